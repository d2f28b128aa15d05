"""The presets: each can be submitted, explains every key, and has consistent numbers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from configs.load import LoadedJob, load_jobs
from configs.preset_files import DEFAULT, Preset, preset, presets
from jobs.model.errors import InvalidInput
from jobs.model.job import Validation
from jobs.policies.early_stop import Patience
from tests.benchmarks.detectors.curves import reference_run

ROOT = Path(__file__).parents[3]
ALL = [pytest.param(each, id=each.name) for each in presets()]
HOURS_OF_THE_REFERENCE_RUN, ITERATIONS = 8.3, 15_000
NAMES = {
    "small",
    "quick",
    "reference",
    "reference-early-stop",
    "qlora",
    "dora",
    "dpo",
    "full",
    "sweep",
    "nightly",
}


def loaded(chosen: Preset, folder: Path) -> LoadedJob:
    """Load an unchanged preset; return its first job."""
    (folder / "data").mkdir(exist_ok=True)
    path = folder / f"{chosen.name}.yaml"
    path.write_text(chosen.text)
    return load_jobs(path)[0]


def keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield every key of a file except those in braces, which share one comment."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            assert isinstance(key, yaml.ScalarNode)
            yield key
            if not (isinstance(value, yaml.MappingNode) and value.flow_style):
                yield from keys(value)


def measurement(iteration: int, loss: float) -> Validation:
    """Return a validation of 53 rows without the losses of the rows."""
    return Validation(
        attempt=1,
        kind="validation",
        iteration=iteration,
        time=0.0,
        loss=loss,
        standard_error=None,
        examples=53,
        seconds=9.0,
        row_losses=None,
    )


def test_default_preset_is_listed_first() -> None:
    assert {each.name for each in presets()} == NAMES
    assert presets()[0].name == DEFAULT


@pytest.mark.parametrize("chosen", ALL)
def test_preset_can_be_loaded_unchanged(chosen: Preset, tmp_path: Path) -> None:
    spec = loaded(chosen, tmp_path).spec
    assert (spec.lq.group or spec.lq.name) == chosen.name
    assert spec.data == str(tmp_path / "data"), "the folder beside the file"
    assert "/" in spec.model
    assert not spec.model.startswith("/"), "a name on the hub"


def test_sweep_preset_makes_six_jobs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "sweep.yaml"
    path.write_text(preset("sweep").text)
    specs = [job.spec for job in load_jobs(path)]
    assert [(spec.learning_rate, spec.lora_parameters.rank) for spec in specs] == [
        (rate, rank) for rate in (8e-5, 2e-4, 5e-4) for rank in (8, 32)
    ]
    assert len({spec.name for spec in specs}) == 6


@pytest.mark.parametrize("chosen", ALL)
def test_every_preset_key_has_a_comment(chosen: Preset) -> None:
    lines = chosen.text.splitlines()
    node = yaml.compose(chosen.text, Loader=yaml.SafeLoader)
    assert node is not None
    nodes = list(keys(node))
    assert len(nodes) >= 12
    # a value of several lines has its comment on the first one
    silent = [key.value for key in nodes if not re.search(r"\s#\s\S.{3}", lines[key.start_mark.line])]
    assert silent == []


@pytest.mark.parametrize("chosen", ALL)
def test_preset_fits_a_screen(chosen: Preset) -> None:
    assert 10 < len(chosen.summary) <= 58
    assert chosen.text.startswith(f"# {chosen.summary}\n#\n"), "the reasons for the numbers follow"
    assert max(map(len, chosen.text.splitlines())) <= 120
    assert chosen.text.endswith("\n")


@pytest.mark.parametrize("chosen", ALL)
def test_preset_numbers_are_consistent(chosen: Preset, tmp_path: Path) -> None:
    spec = loaded(chosen, tmp_path).spec
    updates = spec.iters / spec.grad_accumulation_steps
    assert spec.iters // spec.steps_per_eval >= 5, "a verdict needs five validations"
    if spec.lr_schedule is not None:
        assert spec.lr_schedule.arguments[1] + spec.lr_schedule.warmup == updates, "the schedule ends with the run"
    if spec.lq.early_stop is not None:
        assert spec.lq.early_stop.patience * spec.steps_per_eval < spec.iters, "it can end the run early"
    if spec.fine_tune_type != "full":
        rate = spec.lr_schedule.arguments[0] if spec.lr_schedule is not None else spec.learning_rate
        usual = (1e-6, 5e-5) if spec.lq.objective.keys else (5e-5, 5e-4)
        assert usual[0] <= rate <= usual[1], "usual rates for adapters"


@pytest.mark.parametrize("seed", range(10))
def test_early_stop_saves_seven_hours(seed: int, tmp_path: Path) -> None:
    spec = loaded(preset("reference-early-stop"), tmp_path).spec
    _, validated = reference_run(np.random.default_rng(seed))
    due = [each for each in validated if each.iteration % spec.steps_per_eval == 0]
    measured = [measurement(each.iteration, each.loss) for each in due]
    assert spec.lq.early_stop is not None
    patience = Patience(spec.lq.early_stop)
    stop = next(filter(None, map(patience.add, measured)))
    saved = HOURS_OF_THE_REFERENCE_RUN * (1 - stop.iteration / ITERATIONS)
    assert saved > 7
    assert stop.best <= 970, "before the spike"


def test_reference_preset_is_reference_run(tmp_path: Path) -> None:
    spec = loaded(preset("reference"), tmp_path).spec
    shown = (spec.iters, spec.batch_size, spec.grad_accumulation_steps, spec.max_seq_length, spec.learning_rate)
    assert shown == (15_000, 4, 32, 2048, 2e-4)
    assert (spec.lora_parameters.rank, spec.lora_parameters.scale, spec.lora_parameters.dropout) == (32, 2.0, 0.05)
    assert len(spec.lora_parameters.keys or ()) == 7
    assert spec.grad_checkpoint
    with_end = loaded(preset("reference-early-stop"), tmp_path).spec
    differ = {key for key in type(spec).model_fields if getattr(spec, key) != getattr(with_end, key)}
    assert differ == {"save_every", "lq"}


@pytest.mark.parametrize(("typed", "meant"), [("quick", "quick"), ("quick.yaml", "quick"), (" QLoRA ", "qlora")])
def test_preset_name_ignores_case_and_suffix(typed: str, meant: str) -> None:
    assert preset(typed).name == meant


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("quik", "did you mean 'quick'?"),
        ("night", "did you mean 'nightly'?"),
        ("early", "did you mean 'reference-early-stop'?"),
        ("zzz", "the presets are small, "),
        ("", "the presets are small, "),
        ("../../etc/passwd", "the presets are small, "),
        ("a\nb", r"no preset 'a\nb'"),
    ],
)
def test_wrong_preset_suggests_nearest(typed: str, advice: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        preset(typed)
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)


def test_presets_are_part_of_the_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "configs" in wheel["packages"], "hatch packages every file of these folders"
