"""Job files: keys, defaults, paths, names and notes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configs.load import LoadedJob, load_jobs
from jobs.model.errors import InvalidInput
from jobs.model.spec import JobSpec, LqSpec
from tests.unit.jobs.model.test_spec import mlx_lm_defaults

HEAD = "model: model\ndata: data\nnum_layers: 4\n"


def load(folder: Path, text: str, *, name: str = "night.yaml", defaults: LqSpec | None = None) -> LoadedJob:
    (folder / name).write_text(text, encoding="utf-8")
    return load_jobs(folder / name, defaults=defaults)[0]


def test_every_mlx_lm_key_is_accepted(folder: Path) -> None:
    given = mlx_lm_defaults() | {"model": "model", "data": "data", "num_layers": 4, "train": True}
    spec = load(folder, yaml.safe_dump(given)).spec
    assert given.keys() <= JobSpec.model_fields.keys()
    assert spec.lora_parameters.scale == 20.0
    assert spec.optimizer_config == given["optimizer_config"]
    assert spec.adapter_path == str(folder / "adapters")


def test_numbers_are_read_as_in_mlx_lm(folder: Path) -> None:
    text = "learning_rate: 1e-5\niters: 1e3\nlr_schedule: {name: cosine_decay, arguments: [1e-5, 1000, 1E-7]}"
    spec = load(folder, HEAD + text).spec
    assert (spec.learning_rate, spec.iters) == (1e-5, 1000)
    assert spec.lr_schedule is not None
    assert spec.lr_schedule.arguments == (1e-5, 1000.0, 1e-7)


def test_reader_leaves_pyyaml_unchanged() -> None:
    code = (
        "import yaml; before = repr(yaml.SafeLoader.yaml_implicit_resolvers), repr(yaml.SafeDumper.yaml_representers)\n"
        "import configs.load\n"
        "assert yaml.safe_load('1e-5') == '1e-5'\n"
        "assert before == (repr(yaml.SafeLoader.yaml_implicit_resolvers), repr(yaml.SafeDumper.yaml_representers))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_null_means_the_default(folder: Path) -> None:
    text = (
        "iters: null\nval_batches: ~\nlora_parameters: {rank: null, scale: 2}\noptimizer_config: {adam: null}\n"
        "lq: {retry: {max_restarts: null}, window: null}\nresume_adapter_file:\n"
    )
    spec = load(folder, HEAD + text).spec
    assert (spec.iters, spec.val_batches) == (1000, -1)
    assert (spec.lora_parameters.rank, spec.lora_parameters.scale) == (8, 2.0)
    assert spec.lq.retry.max_restarts == 5
    assert spec.optimizer_config == {}


def test_key_named_on_is_not_true(folder: Path) -> None:
    spec = load(folder, HEAD + "lq:\n  notify:\n    on: [failed, finished]\n    tags: [phone]").spec
    assert spec.lq.notify.on == ("failed", "finished")


def test_merge_keys_and_dates_are_read(folder: Path) -> None:
    text = "lq: {<<: {priority: 3, name: x}, name: 2026-01-31}"
    lq = load(folder, HEAD + text).spec.lq
    assert (lq.priority, lq.name) == (3, "2026-01-31")


@pytest.mark.parametrize(
    "text",
    [
        "x-common: &c {batch_size: 2}\n<<: *c\nlora_parameters: {rank: 4}",
        "small: &l {rank: 4}\nbatch_size: 2\nlora_parameters: *l",
        "anchors:\n  - &b 2\n  - {deep: &l {rank: 4}}\nbatch_size: *b\nlora_parameters: {<<: *l}",
        "x: &x {batch_size: 2, lora_parameters: {rank: 4}}\ny: &y {seed: 0}\n<<: [*x, *y]",
        "x: &x {rank: 4}\ny: &y {batch_size: 2, lora_parameters: *x}\n<<: *y",
    ],
)
def test_key_that_only_holds_an_anchor(folder: Path, text: str) -> None:
    spec = load(folder, HEAD + text).spec
    assert (spec.batch_size, spec.lora_parameters.rank) == (2, 4)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("x-common: &c {batch_size: 2}", "x-common"),
        ("batch_size: &b 2\nzoo: *b", "zoo"),
        ("x: &x {zoo: 1}\n<<: *x", "zoo"),
        ("lora_parameters: {small: &r 4, rank: *r}", "lora_parameters.small"),
    ],
)
def test_anchor_excuses_no_other_key(folder: Path, text: str, key: str) -> None:
    with pytest.raises(InvalidInput, match=f"unknown key '{key}'"):
        load(folder, HEAD + text)


def test_optimizer_name_ignores_case(folder: Path) -> None:
    text = "optimizer: AdamW\noptimizer_config: {adamw: {betas: [0.9, 0.98], eps: 1e-6, weight_decay: 0.01}}"
    assert load(folder, HEAD + text).spec.optimizer == "adamw"


def test_paths_can_start_beside_the_file(folder: Path) -> None:
    (folder / "old.safetensors").touch()
    sub = folder / "jobs"
    sub.mkdir()
    text = "model: ../model\ndata: ../data\nnum_layers: -1\nresume_adapter_file: ../old.safetensors\nadapter_path: out"
    loaded = load(sub, text)
    assert loaded.spec.model == str(folder / "model")
    assert loaded.spec.data == str(folder / "data")
    assert loaded.spec.resume_adapter_file == str(folder / "old.safetensors")
    assert loaded.spec.adapter_path == str(sub / "out")
    assert loaded.source == sub / "night.yaml"
    assert loaded.notes == (f"relative paths start in {sub}, the folder of the job file",)


@pytest.mark.parametrize("both", [False, True])
def test_paths_start_in_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, both: bool) -> None:
    """All of them, as in mlx_lm.lora, also if everything exists beside the file too."""
    elsewhere = folder / "cfg"
    elsewhere.mkdir()
    for name in ("model", "data") if both else ():
        shutil.copytree(folder / name, elsewhere / name)
    monkeypatch.chdir(folder)
    loaded = load(elsewhere, HEAD + "adapter_path: out")
    assert (loaded.spec.model, loaded.spec.data) == (str(folder / "model"), str(folder / "data"))
    assert loaded.spec.adapter_path == str(folder / "out")
    assert loaded.notes == (f"relative paths start in {folder}, the current folder",)


@pytest.mark.parametrize("moved", ["model", "data", "old.safetensors"])
def test_one_folder_for_all_relative_paths(folder: Path, monkeypatch: pytest.MonkeyPatch, moved: str) -> None:
    (folder / "old.safetensors").touch()
    elsewhere = folder / "cfg"
    elsewhere.mkdir()
    (folder / moved).rename(elsewhere / moved)
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidInput) as caught:
        load(elsewhere, HEAD + "resume_adapter_file: old.safetensors")
    assert len(str(caught.value).splitlines()) == 1
    assert f"{elsewhere / moved} exists, but relative paths of this file start in {folder}" in str(caught.value)


def test_relative_job_file_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "night.yaml").write_text(HEAD)
    monkeypatch.chdir(folder)
    loaded = load_jobs(Path("night.yaml"))[0]
    assert (loaded.source, loaded.spec.model) == (folder / "night.yaml", str(folder / "model"))


def test_home_folder_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert load(folder, HEAD.replace("model: model", "model: ~/model")).spec.model == str(folder / "model")


def test_hub_names_stay_and_are_noted(folder: Path) -> None:
    loaded = load(folder, "model: org/name-1.5B\ndata: org/rows")
    assert (loaded.spec.model, loaded.spec.data) == ("org/name-1.5B", "org/rows")
    assert [note.partition(" will be downloaded")[0] for note in loaded.notes] == [
        "model: org/name-1.5B",
        "data: org/rows",
    ]


def test_local_folder_beats_hub_name(folder: Path) -> None:
    (folder / "org").mkdir()
    (folder / "model").rename(folder / "org" / "name")
    assert load(folder, "model: org/name\ndata: data\nnum_layers: 4").spec.model == str(folder / "org" / "name")


def test_hub_data_set_can_be_local_folder(folder: Path) -> None:
    text = HEAD + "hf_dataset:\n  - {path: ./data, train_split: 'train[:80%]', config: {name: null}}\n  - {path: org/x}"
    spec = load(folder, text).spec
    assert spec.hf_dataset == (
        {"path": str(folder / "data"), "train_split": "train[:80%]", "config": {}},
        {"path": "org/x"},
    )


def test_trust_remote_code_is_noted(folder: Path) -> None:
    notes = load(folder, HEAD + "trust_remote_code: true").notes
    assert [note.startswith("trust_remote_code is on") for note in notes] == [False, True]


@pytest.mark.parametrize(
    ("file", "name"), [("night.yaml", "night"), ("a\tb.yaml", "ab"), (f"{'x' * 90}.yaml", "x" * 80), (" .yaml", "job")]
)
def test_default_name_is_that_of_the_file(folder: Path, file: str, name: str) -> None:
    assert load(folder, HEAD, name=file).spec.name == name


def test_byte_order_mark_is_ignored(folder: Path) -> None:
    assert load(folder, "\ufeff" + HEAD).spec.num_layers == 4


def test_settings_defaults_fill_missing_keys(folder: Path) -> None:
    defaults = LqSpec.model_validate({"priority": 5, "retry": {"max_restarts": 9}, "notify": {"tags": ["phone"]}})
    text = "lq: {priority: 1, notify: {on: [failed]}}"
    lq = load(folder, HEAD + text, defaults=defaults).spec.lq
    assert (lq.priority, lq.retry.max_restarts) == (1, 9)
    assert (lq.notify.on, lq.notify.tags) == (("failed",), ("phone",))
