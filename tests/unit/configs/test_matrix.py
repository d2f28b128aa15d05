"""One file, many jobs: the product, its names, and what a user reads after a mistake in a matrix."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.labels import LONGEST_NAME, LabelPart, labels_of, named, short_number
from configs.load import LoadedJob, dump_job, load_frozen, load_jobs
from jobs.model.errors import InvalidInput

HEAD = "model: model\ndata: data\nnum_layers: 4\n"
LR = "lq:\n  matrix:\n    learning_rate: [1e-5, 5e-5]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "qwen.yaml"
    path.write_text(HEAD + text)
    return path


def jobs_of(folder: Path, text: str, *sets: str) -> list[LoadedJob]:
    return load_jobs(write(folder, text), sets)


def said(folder: Path, text: str, *sets: str) -> str:
    """Return what is said after the file's name."""
    path = write(folder, text)
    with pytest.raises(InvalidInput) as caught:
        load_jobs(path, sets)
    return str(caught.value).removeprefix(f"{path}:")


# --- the product ---


def test_every_combination_is_a_job_of_its_own_the_first_key_slowest(folder: Path) -> None:
    found = jobs_of(folder, f"{LR}    lora_parameters.rank: [8, 16]\n")
    assert [(job.spec.learning_rate, job.spec.lora_parameters.rank) for job in found] == [
        (1e-5, 8),
        (1e-5, 16),
        (5e-5, 8),
        (5e-5, 16),
    ]
    assert [job.spec.name for job in found] == [
        "qwen lr=1e-5 r=8",
        "qwen lr=1e-5 r=16",
        "qwen lr=5e-5 r=8",
        "qwen lr=5e-5 r=16",
    ]
    assert {job.spec.lq.group for job in found} == {"qwen"}
    assert dict(found[3].varied) == {"learning_rate": 5e-5, "lora_parameters.rank": 16}


def test_a_frozen_job_of_a_sweep_is_one_run_that_can_be_submitted_again(folder: Path) -> None:
    first, _ = jobs_of(folder, LR)
    frozen = folder / "config.yaml"
    frozen.write_text(dump_job(first.spec))
    assert "matrix" not in frozen.read_text()
    assert load_frozen(frozen) == first.spec
    (again,) = load_jobs(frozen)
    assert (again.spec, again.sweep) == (first.spec, None)


KEYS: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 10_000),
    "iters": st.integers(1, 10_000),
    "batch_size": st.integers(1, 64),
    "learning_rate": st.floats(1e-9, 1.0),
    "lora_parameters.rank": st.integers(1, 512),
    "lora_parameters.dropout": st.floats(0, 0.99),
    "mask_prompt": st.booleans(),
    "lq.batching": st.sampled_from(["bucketed", "shuffled"]),
    "lq.early_stop.patience": st.integers(1, 50),
    "lq.keep.milestones": st.integers(0, 100).map("{}%".format),
}


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, list[Any]]:
    keys = draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3, unique=True))
    return {key: draw(st.lists(KEYS[key], min_size=1, max_size=4, unique=True)) for key in keys}


def value_of(job: LoadedJob, key: str) -> Any:
    value: Any = job.spec
    for part in key.split("."):
        value = getattr(value, part)
    return value


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(matrix=matrices())
def test_the_jobs_are_the_product_and_no_two_share_a_name(folder: Path, matrix: dict[str, list[Any]]) -> None:
    found = jobs_of(folder, yaml.safe_dump({"adapter_path": "out", "lq": {"matrix": matrix}}, sort_keys=False))
    wanted = list(itertools.product(*matrix.values()))
    assert [tuple(value_of(job, key) for key in matrix) for job in found] == wanted
    names = [job.spec.name for job in found]
    folders = [(job.spec.adapter_path or "").casefold() for job in found]
    assert len(set(names)) == len(set(folders)) == len(wanted)
    assert all(len(name) <= LONGEST_NAME and name.isprintable() for name in names)
    assert all(Path(path).parent == folder / "out" for path in (job.spec.adapter_path or "" for job in found))


WORDS = st.one_of(st.text(max_size=90), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers()))


@given(values=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12), base=st.text("ab é", min_size=1, max_size=80))
def test_labels_differ_fit_and_can_be_shown_whatever_the_values(values: list[tuple[Any, Any]], base: str) -> None:
    keys = ("model", "a.long.key.of.many.parts")
    made = labels_of(
        [
            [LabelPart(key=key, value=value, place=place) for key, value in zip(keys, one, strict=True)]
            for place, one in enumerate(values, start=1)
        ]
    )
    texts = [named(base, label.text) for label in made]
    assert len(set(texts)) == len({label.folder.casefold() for label in made}) == len(values)
    assert all(len(text) <= LONGEST_NAME and text.isprintable() for text in texts)
    assert all(label.folder not in (".", "..") and "/" not in label.folder for label in made)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-5"),
        (0.05, "0.05"),
        (8, "8"),
        (1e10, "1e10"),
        (0.001, "1e-3"),
        (5000, "5000"),
        (12345.678, "12345.678"),
        (True + 0.5, "1.5"),
        (1.23456789, "1.23456789"),
        (-1, "-1"),
    ],
)
def test_numbers_are_written_as_people_do(value: float, text: str) -> None:
    assert short_number(value) == text


def test_settings_that_belong_together_are_laid_upon_the_file_key_by_key(folder: Path) -> None:
    found = jobs_of(
        folder,
        "lora_parameters: {rank: 4, scale: 2}\n"
        "lq:\n  matrix:\n    size:\n"
        "      big: {batch_size: 8, lora_parameters: {rank: 16}}\n"
        "      small: {batch_size: 1, lora_parameters.dropout: 0.1}\n",
    )
    assert [(job.label, job.spec.batch_size, job.spec.lora_parameters.rank) for job in found] == [
        ("size=big", 8, 16),
        ("size=small", 1, 4),
    ]
    assert [job.spec.lora_parameters.scale for job in found] == [2, 2]
    unnamed = jobs_of(folder, "lq: {matrix: {size: [{batch_size: 8}, {batch_size: 1, iters: 5}]}}\n")
    assert [job.label for job in unnamed] == ["size=1", "size=2"]


def test_a_mapping_that_is_a_keys_value_takes_its_place_whole(folder: Path) -> None:
    text = "lora_parameters: {rank: 4, scale: 2}\nlq: {matrix: {lora_parameters: [{rank: 8}, {rank: 16}]}}\n"
    assert [job.spec.lora_parameters.scale for job in jobs_of(folder, text)] == [20, 20]


def test_null_is_the_default_and_a_place_in_a_list_can_be_varied(folder: Path) -> None:
    text = (
        "lr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}\n"
        "lq: {matrix: {'lr_schedule.arguments[0]': [1e-5, 1e-4], lq.early_stop: [null, {patience: 3}]}}\n"
    )
    found = jobs_of(folder, text)
    assert [(job.spec.lr_schedule and job.spec.lr_schedule.arguments[0]) for job in found] == [1e-5, 1e-5, 1e-4, 1e-4]
    assert [job.spec.lq.early_stop is None for job in found] == [True, False] * 2
    assert found[0].label == "lr=1e-5 early_stop=none"


def test_excluded_combinations_are_left_out(folder: Path) -> None:
    text = f"{LR}    lora_parameters.rank: [8, 16]\n    exclude: [{{learning_rate: 5e-5, lora_parameters.rank: 16}}]\n"
    assert [job.label for job in jobs_of(folder, text)] == ["lr=1e-5 r=8", "lr=1e-5 r=16", "lr=5e-5 r=8"]


@pytest.mark.parametrize("text", ["lq: {matrix: null}", "lq: {matrix: {}}", "lq: {matrix: {seed: null}}"])
def test_an_empty_matrix_is_none(folder: Path, text: str) -> None:
    (job,) = jobs_of(folder, text)
    assert (job.spec.name, job.sweep, job.spec.lq.group) == ("qwen", None, None)


def test_a_group_that_is_named_is_joined_and_a_varied_adapter_path_stays(folder: Path) -> None:
    found = jobs_of(folder, "lq: {name: x, group: night, matrix: {adapter_path: [a, b], seed: [1]}}\n")
    assert [job.spec.lq.group for job in found] == ["night", "night"]
    assert found[0].sweep is not None
    assert found[0].sweep is found[1].sweep
    assert found[0].sweep.joins == "night"
    assert [job.spec.adapter_path for job in found] == [str(folder / "a"), str(folder / "b")]


# --- mistakes ---

# what stands from line 4 on -> what is said after FILE:
WRONG = {
    "lq: {matrix: 3}": "4: lq.matrix: must be a mapping of keys and lists of values, not 3",
    "lq:\n  matrix:\n    batch_size: 4": "6: lq.matrix.batch_size: must be a list of values, not 4",
    "lq: {matrix: {seed: []}}": "4: lq.matrix.seed: must be a list of values, not an empty one",
    "lq: {matrix: {exclude: [{seed: 1}]}}": "4: lq.matrix: has nothing to vary; "
    "write a key of the file with a list of values",
    "lq: {matrix: {learning_rat: [1, 2]}}": "4: lq.matrix.learning_rat: unknown key 'learning_rat'; "
    "did you mean 'learning_rate'?; a name of your own holds mappings of settings that belong together",
    "lq: {matrix: {rank: [8]}}": "4: lq.matrix.rank: unknown key 'rank'; it belongs under 'lora_parameters'; "
    "a name of your own holds mappings of settings that belong together",
    "lq: {matrix: {lq.name: [a, b]}}": "4: lq.matrix.lq.name: cannot be varied",
    "lq: {matrix: {size: [{lq.group: a}]}}": "4: lq.matrix.size[0].lq.group: cannot be varied",
    "lq: {matrix: {size: [{lq: {name: a}}]}}": "4: lq.matrix.size[0].lq.name: cannot be varied",
    "lq: {matrix: {size: [{}]}}": "4: lq.matrix.size[0]: holds no setting",
    "lq: {matrix: {include: [{seed: 3}]}}": "4: lq.matrix.include: is not read; "
    "a further file with the same lq.group joins the sweep",
    "lq:\n  matrix:\n    seed: [1, 2]\n    a: [{seed: 3}]": "7: lq.matrix.a: sets seed, and so does 'seed'",
    "lq:\n  matrix:\n    lora_parameters: [{rank: 3}]\n    lora_parameters.rank: [3]": "7: "
    "lq.matrix.lora_parameters.rank: sets lora_parameters.rank, and so does 'lora_parameters'",
    f"lq: {{matrix: {{seed: {list(range(40))}, iters: {list(range(1, 41))}}}}}": "4: lq.matrix: "
    "makes 1,600 combinations, and at most 1,000 are queued together",
    f"lq: {{matrix: {{seed: {list(range(999))}, iters: {list(range(1, 1000))}}}}}": "4: lq.matrix: "
    "makes 998,001 combinations, and at most 1,000 are queued together",
    "lq: {matrix: {seed: [1, 1]}}": "4: lq.matrix: 'seed=1 #1' and 'seed=1 #2' are the same run",
    "lr_schedule: {name: cosine_decay, arguments: [1, 3]}\nlq: {matrix: {learning_rate: [1, 2]}}": "5: lq.matrix: "
    "'lr=1' and 'lr=2' are the same run; learning_rate is not used where lr_schedule is given",
    "lq: {matrix: {seed: [1], exclude: [{sed: 1}]}}": "4: lq.matrix.exclude[0].sed: is no key of the matrix; "
    "did you mean 'seed'?",
    "lq: {matrix: {seed: [1], exclude: [{seed: 2}]}}": "4: lq.matrix.exclude[0].seed: 2 is not one of its values",
    "lq: {matrix: {seed: [1], exclude: [{seed: true}]}}": "4: lq.matrix.exclude[0].seed: true is not one of its values",
    "lq: {matrix: {seed: [1], exclude: [{seed: 1}]}}": "4: lq.matrix.exclude: leaves no combination",
    "lq: {matrix: {seed: [1], exclude: {seed: 1}}}": "4: lq.matrix.exclude: must be a list of mappings, "
    "each with keys of the matrix and a value of each",
    # of one combination: the line is that of the value
    "lq:\n  matrix:\n    iters:\n      - 10\n      - 0": "8: iters: must be a whole number greater than 0, not 0",
    "lq:\n  matrix:\n    num_layers:\n      - 2\n      - 9": "8: num_layers: 9, but the model has 4 layers; "
    "write 9 or less".replace("write 9", "write 4")
    + ", or -1 for all",
    "lq:\n  matrix:\n    a:\n      x:\n        seed: 1\n      y:\n        lora_parameters:\n          alpha: 3": "11: "
    "unknown key 'lora_parameters.alpha'; write 'lora_parameters.scale: 0.375', which is alpha / rank = 3 / 8",
    "lq:\n  matrix:\n    model: [model, ./other]": "6: model: no such folder",
    "iters: x\nlq: {matrix: {seed: [1, 2]}}": "4: iters: must be a whole number greater than 0, not 'x'",
    "lq: {matrx: {seed: [1]}}": "4: unknown key 'lq.matrx'; did you mean 'matrix'?",
    "iters: 3\nlq: {matrix: {'iters.x': [1]}}": "5: iters.x: 'x' cannot stand under what is not a mapping",
}


@pytest.mark.parametrize(("text", "line"), WRONG.items(), ids=[text[:60] for text in WRONG])
def test_a_mistake_in_a_matrix_is_one_line_with_its_place(folder: Path, text: str, line: str) -> None:
    found = said(folder, text)
    assert found == line or (found.startswith(line) and line.endswith("no such folder"))
    assert "\n" not in found


# --- --set ---


def test_values_from_the_command_line_take_the_place_of_the_files(folder: Path) -> None:
    (job,) = jobs_of(
        folder,
        "iters: 5\nlr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}\n",
        "iters=10",
        "iters=20",
        "lora_parameters.rank=16",
        "lr_schedule.arguments[0]=2e-4",
        "lq.notify={on: [failed]}",
        "lq.name=from the shell",
    )
    spec = job.spec
    assert (spec.iters, spec.lora_parameters.rank, spec.name) == (20, 16, "from the shell")
    assert spec.lr_schedule is not None
    assert spec.lr_schedule.arguments == (2e-4, 100)
    assert spec.lq.notify.on == ("failed",)
    assert job.sets[0] == "iters=10"


def test_a_matrix_can_be_given_changed_and_taken_away_on_the_command_line(folder: Path) -> None:
    assert [job.label for job in jobs_of(folder, "", "lq.matrix.lora_parameters.rank=[4, 8]")] == ["r=4", "r=8"]
    assert [job.label for job in jobs_of(folder, LR, "lq.matrix.learning_rate=[1e-3]", "lq.matrix.seed=[1]")] == [
        "lr=1e-3 seed=1"
    ]
    assert len(jobs_of(folder, f"{LR}    seed: [1, 2]\n", "lq.matrix.seed=")) == 2
    assert [job.spec.name for job in jobs_of(folder, LR, "lq.matrix=", "learning_rate=1e-3")] == ["qwen"]


WRONG_SETS = {
    "iters": "--set iters: write key=value, such as learning_rate=1e-5 or lora_parameters.rank=16",
    "=3": "--set =3: write key=value, such as learning_rate=1e-5 or lora_parameters.rank=16",
    "a..b=3": "--set a..b=3: write key=value, such as learning_rate=1e-5 or lora_parameters.rank=16",
    "iters=[": "--set iters: not valid YAML: expected the node content, but found '<stream end>'",
    "iters=\x07": "--set iters: a character that YAML does not allow",
    "iters=x": " --set iters: must be a whole number greater than 0, not 'x'",
    "iter=3": " --set iter: unknown key 'iter'; did you mean 'iters'?",
    "lora_parameters.rank=0": " --set lora_parameters.rank: must be a whole number greater than 0, not 0",
    "lora_parameters={rnk: 3}": " --set lora_parameters: unknown key 'lora_parameters.rnk'; did you mean 'rank'?",
    "lora_parameters.alpha=16": " --set lora_parameters.alpha: unknown key 'lora_parameters.alpha'; "
    "write 'lora_parameters.scale: 2', which is alpha / rank = 16 / 8",
    "data.x=3": " --set data.x: 'x' cannot stand under what is not a mapping",
    "lr_schedule.arguments[3]=3": " --set lr_schedule.arguments[3]: there is no [3]; "
    "the list must be in the file, and long enough",
    "model=./none": " --set model: no such folder",
    "num_layers=9": " --set num_layers: 9, but the model has 4 layers; write 4 or less, or -1 for all",
    "learning_rate=1e-3": " --set learning_rate: the matrix varies it; "
    "set its values with --set 'lq.matrix.learning_rate=[...]'",
    "lq.matrix.learning_rate=[0]": " --set lq.matrix.learning_rate: learning_rate: "
    "must be a number greater than 0, not 0",
    "lq.matrix.seed=1": " --set lq.matrix.seed: must be a list of values, not 1",
}


@pytest.mark.parametrize(("given", "line"), WRONG_SETS.items(), ids=list(map(repr, WRONG_SETS)))
def test_a_wrong_value_from_the_command_line_is_named_by_its_key(folder: Path, given: str, line: str) -> None:
    found = said(folder, LR, given)
    assert found == line or (found.startswith(line) and line.endswith("no such folder"))
