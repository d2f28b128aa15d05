"""The process of `lq test`: `python -P -m workers.mlx.measure JOB_DIR ...`. It measures test rows as a run does.

It changes nothing in the job's folder. Its result is the last line of stdout, in JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import DataInvalid, LqError
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from workers.data.loss_measurement import LossMeasurement
from workers.system.memory import prefer_for_oom_kill


def main(arguments: list[str]) -> int:
    """Measure, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.mlx.measure", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--weights", type=Path, help="a safetensors file; default: the weights the run starts with")
    parser.add_argument("--data", help="a folder with a test.jsonl; default: the job's own")
    options = parser.parse_args(arguments)
    prefer_for_oom_kill()
    try:
        measured = _measure(JobDir(options.job_dir), options.weights, options.data)
    except LqError as error:
        print(error, file=sys.stderr)  # noqa: T201 the parent shows it
        return error.exit_code
    print()  # noqa: T201 MLX-LM's output may lack a newline at its end
    print(json.dumps(dataclasses.asdict(measured)))  # noqa: T201
    return 0


def _measure(job_dir: JobDir, weights: Path | None, data: str | None) -> LossMeasurement:
    from workers.mlx.data import load_test_rows
    from workers.mlx.evaluate import measure
    from workers.mlx.model import TrainedModel
    from workers.mlx.reference import of_rows

    spec = load_frozen(job_dir.config)
    run_plan = (
        run_plans.from_json(job_dir.run_plan.read_text()) if job_dir.run_plan.exists() else RunPlan.requested(spec)
    )
    if data is not None:
        spec = spec.model_copy(update={"data": data, "hf_dataset": None})
    stage = run_plan.stages[-1]
    model = TrainedModel.load(spec)
    rows = load_test_rows(spec, stage, model.tokenizer)
    needs_reference = spec.lq.objective.needs_reference
    model.choose_trained(fresh=weights is None or needs_reference)
    if needs_reference:
        rows = of_rows(model, rows, stage)
    if weights is not None:
        model.load_weights(weights)
    measured = measure(model, rows, range(len(rows)), stage, spec.clear_cache_threshold)
    if not sum(measured.tokens):
        raise DataInvalid(f"no test row of {spec.data} has a token to learn; nothing can be measured")
    return measured


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
