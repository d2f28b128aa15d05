"""The presets that come with lq: each can be submitted as it is, says what every key means, and keeps its promise."""

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
from jobs.policies import early_stop
from tests.benchmarks.detectors.curves import reference_run

ROOT = Path(__file__).parents[3]
ALL = [pytest.param(one, id=one.name) for one in presets()]
HOURS_OF_THE_REFERENCE_RUN, ITERATIONS = 8.3, 15_000
NAMES = {
    "small",
    "quick",
    "reference",
    "reference-early-stop",
    "qlora",
    "dora",
    "full",
    "sweep",
    "nightly",
}


def loaded(one: Preset, folder: Path) -> LoadedJob:
    """Load a preset as `lq submit` would, of the sweep the first job; nothing of it is replaced."""
    path = folder / f"{one.name}.yaml"
    path.write_text(one.text)
    return load_jobs(path)[0]


def keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield every key of a file but those inside braces, which share a line and its comment."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            assert isinstance(key, yaml.ScalarNode)
            yield key
            if not (isinstance(value, yaml.MappingNode) and value.flow_style):
                yield from keys(value)


def measurement(iteration: int, loss: float) -> Validation:
    """A validation of 53 rows whose losses one by one are not known."""
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


def test_there_is_a_preset_for_each_need_and_the_general_one_comes_first() -> None:
    assert {one.name for one in presets()} == NAMES
    assert presets()[0].name == DEFAULT


@pytest.mark.parametrize("one", ALL)
def test_a_preset_can_be_submitted(one: Preset, tmp_path: Path) -> None:
    spec = loaded(one, tmp_path).spec
    assert (spec.lq.group or spec.lq.name) == one.name
    assert spec.data == str(tmp_path / "data"), "the folder beside the file"
    assert "/" in spec.model
    assert not spec.model.startswith("/"), "a name on the hub"


def test_the_sweep_makes_six_jobs_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(preset("sweep").text)
    specs = [one.spec for one in load_jobs(path)]
    assert [(spec.learning_rate, spec.lora_parameters.rank) for spec in specs] == [
        (rate, rank) for rate in (8e-5, 2e-4, 5e-4) for rank in (8, 32)
    ]
    assert len({spec.name for spec in specs}) == 6


@pytest.mark.parametrize("one", ALL)
def test_every_key_of_a_preset_is_explained(one: Preset) -> None:
    lines = one.text.splitlines()
    node = yaml.compose(one.text, Loader=yaml.SafeLoader)
    assert node is not None
    found = list(keys(node))
    assert len(found) >= 12
    # a value of several lines has its comment on its first one
    silent = [key.value for key in found if not re.search(r"\s#\s\S.{3}", lines[key.start_mark.line])]
    assert silent == []


@pytest.mark.parametrize("one", ALL)
def test_a_preset_is_listed_with_one_line_and_fits_a_screen(one: Preset) -> None:
    assert 10 < len(one.summary) <= 58
    assert one.text.startswith(f"# {one.summary}\n#\n"), "why these numbers stands below"
    assert max(map(len, one.text.splitlines())) <= 120
    assert one.text.endswith("\n")


@pytest.mark.parametrize("one", ALL)
def test_the_numbers_of_a_preset_agree_with_each_other(one: Preset, tmp_path: Path) -> None:
    spec = loaded(one, tmp_path).spec
    updates = spec.iters / spec.grad_accumulation_steps
    assert spec.iters // spec.steps_per_eval >= 5, "a verdict takes five validations"
    if spec.lr_schedule is not None:
        assert spec.lr_schedule.arguments[1] + spec.lr_schedule.warmup == updates, "the schedule ends with the run"
    if spec.lq.early_stop is not None:
        assert spec.lq.early_stop.patience * spec.steps_per_eval < spec.iters, "it can end before the run does"
    if spec.fine_tune_type != "full":
        rate = spec.lr_schedule.arguments[0] if spec.lr_schedule is not None else spec.learning_rate
        assert 5e-5 <= rate <= 5e-4, "the field's rates for adapters"


@pytest.mark.parametrize("seed", range(10))
def test_early_stop_would_have_saved_the_seven_hours_of_the_reference_run(seed: int, tmp_path: Path) -> None:
    spec = loaded(preset("reference-early-stop"), tmp_path).spec
    _, validated = reference_run(np.random.default_rng(seed))
    measured = [measurement(one.iteration, one.loss) for one in validated if one.iteration % spec.steps_per_eval == 0]
    stop = early_stop.stop(measured, spec.lq.early_stop)
    assert stop is not None
    saved = HOURS_OF_THE_REFERENCE_RUN * (1 - stop.iteration / ITERATIONS)
    assert saved > 7
    assert stop.best <= 970, "before the spike"


def test_the_reference_preset_is_the_reference_run(tmp_path: Path) -> None:
    spec = loaded(preset("reference"), tmp_path).spec
    shown = (spec.iters, spec.batch_size, spec.grad_accumulation_steps, spec.max_seq_length, spec.learning_rate)
    assert shown == (15_000, 4, 32, 2048, 2e-4)
    assert (spec.lora_parameters.rank, spec.lora_parameters.scale, spec.lora_parameters.dropout) == (32, 2.0, 0.05)
    assert len(spec.lora_parameters.keys or ()) == 7
    assert spec.grad_checkpoint
    with_end = loaded(preset("reference-early-stop"), tmp_path).spec
    differ = {key for key in type(spec).model_fields if getattr(spec, key) != getattr(with_end, key)}
    assert differ == {"save_every", "lq"}, "nothing else was needed"


@pytest.mark.parametrize(("typed", "meant"), [("quick", "quick"), ("quick.yaml", "quick"), (" QLoRA ", "qlora")])
def test_a_preset_is_found_by_its_name(typed: str, meant: str) -> None:
    assert preset(typed).name == meant


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("quik", "did you mean 'quick'?"),
        ("night", "did you mean 'nightly'?"),
        ("early", "did you mean 'reference-early-stop'?"),
        ("zzz", "there are small, "),
        ("", "there are small, "),
        ("../../etc/passwd", "there are small, "),
        ("a\nb", r"no preset 'a\nb'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(typed: str, advice: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        preset(typed)
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_presets_are_part_of_the_package() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "configs" in wheel["packages"], "hatch takes every file of the folders named here"
