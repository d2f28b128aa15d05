"""The child of `lq test`: `python -P -m workers.measuring JOB_DIR ...`. Test rows measured as a run measures them.

It changes nothing in the job's folder. Its answer is the last line of stdout, in JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import DataInvalid, LqError
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from workers.data.measures import Measured
from workers.events.log import EventLog
from workers.process.stop_requests import Requests
from workers.system.processes import be_first_to_go


def main(arguments: list[str]) -> int:
    """Measure, print what was measured, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.measuring", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--weights", type=Path, help="a safetensors file; the run's beginning where none is given")
    parser.add_argument("--data", help="a folder with a test.jsonl; the job's own unless given")
    options = parser.parse_args(arguments)
    be_first_to_go()
    try:
        measured = _measured(JobDir(options.job_dir), options.weights, options.data)
    except LqError as error:
        print(error, file=sys.stderr)  # noqa: T201 the parent tells it
        return error.exit_code
    print()  # noqa: T201 what MLX-LM said may lack an end of line
    print(json.dumps({"sums": measured.sums, "tokens": measured.tokens, "seconds": measured.seconds}))  # noqa: T201
    return 0


def _measured(job_dir: JobDir, weights: Path | None, data: str | None) -> Measured:
    from workers.mlx.run import TrainingRun

    spec = load_frozen(job_dir.config)
    run_plan = (
        run_plans.from_json(job_dir.run_plan.read_text()) if job_dir.run_plan.exists() else RunPlan.requested(spec)
    )
    if data is not None:
        spec = spec.model_copy(update={"data": data, "hf_dataset": None})
    with tempfile.TemporaryDirectory(prefix="lq-test-") as folder, EventLog(Path(folder) / "events.jsonl", 1) as events:
        run = TrainingRun(spec, run_plan, JobDir(Path(folder)), events, Requests())
        measured = run.tested(weights)
    if not sum(measured.tokens):
        raise DataInvalid(f"no test row of {spec.data} has a token to learn; nothing can be measured")
    return measured


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
