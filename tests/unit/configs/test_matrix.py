"""The matrix of a job file: combinations, labels, errors, and `--set`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.labels import MAX_NAME, LabelPart, job_name, labels_of, short_number
from configs.load import LoadedJob, dump_job, load_frozen, load_jobs
from jobs.model.errors import InvalidInput
from tests.golden import assert_golden

GOLDEN = Path(__file__).parent / "golden"
HEAD = "model: model\ndata: data\nnum_layers: 4\n"
LR = "lq:\n  matrix:\n    learning_rate: [1e-5, 5e-5]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "qwen.yaml"
    path.write_text(HEAD + text)
    return path


def jobs_of(folder: Path, text: str, *sets: str) -> list[LoadedJob]:
    return load_jobs(write(folder, text), sets)


def error(folder: Path, text: str, *sets: str) -> str:
    """Load an invalid file; return its error after the path of the file."""
    path = write(folder, text)
    with pytest.raises(InvalidInput) as caught:
        load_jobs(path, sets)
    return (
        str(caught.value)
        .removeprefix(f"{path}:")
        .strip()
        .replace(str(folder), "FOLDER")
        .replace(str(Path.cwd()), "HERE")
    )


# --- the product ---


def test_first_key_varies_slowest(folder: Path) -> None:
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


def test_frozen_sweep_job_has_no_matrix(folder: Path) -> None:
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
def test_jobs_are_product_with_own_names(folder: Path, matrix: dict[str, list[Any]]) -> None:
    found = jobs_of(folder, yaml.safe_dump({"adapter_path": "out", "lq": {"matrix": matrix}}, sort_keys=False))
    wanted = list(itertools.product(*matrix.values()))
    assert [tuple(value_of(job, key) for key in matrix) for job in found] == wanted
    names = [job.spec.name for job in found]
    folders = [(job.spec.adapter_path or "").casefold() for job in found]
    assert len(set(names)) == len(set(folders)) == len(wanted)
    assert all(len(name) <= MAX_NAME and name.isprintable() for name in names)
    assert all(Path(path).parent == folder / "out" for path in (job.spec.adapter_path or "" for job in found))


WORDS = st.one_of(st.text(max_size=90), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers()))


@given(values=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=12), base=st.text("ab é", min_size=1, max_size=80))
def test_labels_are_unique_and_printable(values: list[tuple[Any, Any]], base: str) -> None:
    keys = ("model", "a.long.key.of.many.parts")
    made = labels_of(
        [
            [LabelPart(key=key, value=value, position=position) for key, value in zip(keys, one, strict=True)]
            for position, one in enumerate(values, start=1)
        ]
    )
    texts, folders = [job_name(base, label) for label, _ in made], [folder for _, folder in made]
    assert len(set(texts)) == len({folder.casefold() for folder in folders}) == len(values)
    assert all(len(text) <= MAX_NAME and text.isprintable() for text in texts)
    assert all(folder not in (".", "..") and "/" not in folder for folder in folders)


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
def test_short_number_notation(value: float, text: str) -> None:
    assert short_number(value) == text


def test_bundles_override_single_keys(folder: Path) -> None:
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


def test_mapping_value_replaces_the_whole(folder: Path) -> None:
    text = "lora_parameters: {rank: 4, scale: 2}\nlq: {matrix: {lora_parameters: [{rank: 8}, {rank: 16}]}}\n"
    assert [job.spec.lora_parameters.scale for job in jobs_of(folder, text)] == [20, 20]


def test_matrix_varies_null_and_list_items(folder: Path) -> None:
    text = (
        "lr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}\n"
        "lq: {matrix: {'lr_schedule.arguments[0]': [1e-5, 1e-4], lq.early_stop: [null, {patience: 3}]}}\n"
    )
    found = jobs_of(folder, text)
    assert [(job.spec.lr_schedule and job.spec.lr_schedule.arguments[0]) for job in found] == [1e-5, 1e-5, 1e-4, 1e-4]
    assert [job.spec.lq.early_stop is None for job in found] == [True, False] * 2
    assert found[0].label == "lr=1e-5 early_stop=none"


def test_exclude_removes_combinations(folder: Path) -> None:
    text = f"{LR}    lora_parameters.rank: [8, 16]\n    exclude: [{{learning_rate: 5e-5, lora_parameters.rank: 16}}]\n"
    assert [job.label for job in jobs_of(folder, text)] == ["lr=1e-5 r=8", "lr=1e-5 r=16", "lr=5e-5 r=8"]


@pytest.mark.parametrize("text", ["lq: {matrix: null}", "lq: {matrix: {}}", "lq: {matrix: {seed: null}}"])
def test_empty_matrix_makes_one_job(folder: Path, text: str) -> None:
    (job,) = jobs_of(folder, text)
    assert (job.spec.name, job.sweep, job.spec.lq.group) == ("qwen", None, None)


def test_sweep_joins_its_named_group(folder: Path) -> None:
    found = jobs_of(folder, "lq: {name: x, group: night, matrix: {adapter_path: [a, b], seed: [1]}}\n")
    assert [job.spec.lq.group for job in found] == ["night", "night"]
    assert found[0].sweep is not None
    assert found[0].sweep is found[1].sweep
    assert found[0].sweep.joins == "night"
    assert [job.spec.adapter_path for job in found] == [str(folder / "a"), str(folder / "b")]


# --- mistakes ---

# the text from line 4 on
WRONG = [
    "lq: {matrix: 3}",
    "lq:\n  matrix:\n    batch_size: 4",
    "lq: {matrix: {seed: []}}",
    "lq: {matrix: {exclude: [{seed: 1}]}}",
    "lq: {matrix: {learning_rat: [1, 2]}}",
    "lq: {matrix: {rank: [8]}}",
    "lq: {matrix: {lq.name: [a, b]}}",
    "lq: {matrix: {size: [{lq.group: a}]}}",
    "lq: {matrix: {size: [{lq: {name: a}}]}}",
    "lq: {matrix: {size: [{}]}}",
    "lq: {matrix: {include: [{seed: 3}]}}",
    "lq:\n  matrix:\n    seed: [1, 2]\n    a: [{seed: 3}]",
    "lq:\n  matrix:\n    lora_parameters: [{rank: 3}]\n    lora_parameters.rank: [3]",
    f"lq: {{matrix: {{seed: {list(range(40))}, iters: {list(range(1, 41))}}}}}",
    f"lq: {{matrix: {{seed: {list(range(999))}, iters: {list(range(1, 1000))}}}}}",
    "lq: {matrix: {seed: [1, 1]}}",
    "lr_schedule: {name: cosine_decay, arguments: [1, 3]}\nlq: {matrix: {learning_rate: [1, 2]}}",
    "lq: {matrix: {seed: [1], exclude: [{sed: 1}]}}",
    "lq: {matrix: {seed: [1], exclude: [{seed: 2}]}}",
    "lq: {matrix: {seed: [1], exclude: [{seed: true}]}}",
    "lq: {matrix: {seed: [1], exclude: [{seed: 1}]}}",
    "lq: {matrix: {seed: [1], exclude: {seed: 1}}}",
    # of one combination: the line is that of the value
    "lq:\n  matrix:\n    iters:\n      - 10\n      - 0",
    "lq:\n  matrix:\n    num_layers:\n      - 2\n      - 9",
    "lq:\n  matrix:\n    a:\n      x:\n        seed: 1\n      y:\n        lora_parameters:\n          alpha: 3",
    "lq:\n  matrix:\n    model: [model, ./other]",
    "iters: x\nlq: {matrix: {seed: [1, 2]}}",
    "lq: {matrx: {seed: [1]}}",
    "iters: 3\nlq: {matrix: {'iters.x': [1]}}",
]


def test_wrong_matrices_golden(folder: Path) -> None:
    entries = [f"{text if len(text) < 300 else text[:30] + '...'}\n-> {error(folder, text)}\n" for text in WRONG]
    assert_golden("\n".join(entries), GOLDEN / "wrong_matrices.txt")


def test_error_names_line_in_the_matrix(folder: Path) -> None:
    assert error(folder, "lq:\n  matrix:\n    iters:\n      - 10\n      - 0").startswith("8: iters: ")


@pytest.mark.parametrize(("sizes", "count"), [((40, 40), "1,600"), ((999, 999), "998,001")])
def test_too_many_combinations_refused(folder: Path, sizes: tuple[int, int], count: str) -> None:
    seeds, iters = list(range(sizes[0])), list(range(1, sizes[1] + 1))
    assert f"{count} combinations" in error(folder, f"lq: {{matrix: {{seed: {seeds}, iters: {iters}}}}}")


# --- --set ---


def test_set_replaces_values_of_file(folder: Path) -> None:
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


def test_set_changes_the_matrix(folder: Path) -> None:
    assert [job.label for job in jobs_of(folder, "", "lq.matrix.lora_parameters.rank=[4, 8]")] == ["r=4", "r=8"]
    assert [job.label for job in jobs_of(folder, LR, "lq.matrix.learning_rate=[1e-3]", "lq.matrix.seed=[1]")] == [
        "lr=1e-3 seed=1"
    ]
    assert len(jobs_of(folder, f"{LR}    seed: [1, 2]\n", "lq.matrix.seed=")) == 2
    assert [job.spec.name for job in jobs_of(folder, LR, "lq.matrix=", "learning_rate=1e-3")] == ["qwen"]


WRONG_SETS = [
    "iters",
    "=3",
    "a..b=3",
    "iters=[",
    "iters=\x07",
    "iters=x",
    "iter=3",
    "lora_parameters.rank=0",
    "lora_parameters={rnk: 3}",
    "lora_parameters.alpha=16",
    "data.x=3",
    "lr_schedule.arguments[3]=3",
    "model=./none",
    "num_layers=9",
    "learning_rate=1e-3",
    "lq.matrix.learning_rate=[0]",
    "lq.matrix.seed=1",
]


def test_wrong_set_options_golden(folder: Path) -> None:
    entries = [f"--set {given!r}\n-> {error(folder, LR, given)}\n" for given in WRONG_SETS]
    assert_golden("\n".join(entries), GOLDEN / "wrong_sets.txt")
