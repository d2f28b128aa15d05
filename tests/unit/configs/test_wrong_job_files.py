"""Errors of invalid job files: one line each, with the line number and what to write instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import load_jobs
from configs.yaml_text import parse
from jobs.model.errors import ConfigInvalid, InvalidInput, ModelMissing
from tests.golden import assert_golden

GOLDEN = Path(__file__).parent / "golden"
HEAD = "model: model\ndata: data\nnum_layers: 4\n"

# the text from line 4 on
WRONG = [
    # keys
    "grad_accumulation: 4",
    "gradient_accumulation_steps: 4",
    "gradient_accumulation_steps: 4\ngrad_accumulation_steps: 2",
    "batch-size: 3",
    "zoo: 1",
    "lr: 1e-4",
    "epochs: 3",
    "batch_size: 2\nnum_epochs: 5",
    "num_epochs: many",
    "max_seq_len: 512",
    "max_length: 512",
    "lora_rank: 16",
    "lora_dropout: 0.1",
    "warmup_steps: 10",
    "target_modules: [q_proj]",
    "use_dora: true",
    "lora_parameters:\n  rank: 8\n  alpha: 16",
    "lora_alpha: 32",
    "lora_parameters: {r: 16, lora_alpha: 24}",
    "lora_parameters: {scale: 2, alpha: 16}",
    "alpha: much",
    f"alpha: 1{'0' * 400}",
    "rank: 8",
    "priority: 3",
    "name: x",
    "lora_parameters.rank: 8",
    "lq.memory.limit: 3GB",
    "lq: {iters: 3}",
    "lq:\n  retry:\n    max: 3",
    "lq: {window: '22:00'}",
    "lq: {deadline: 730}",
    "lq: {after: [0]}",
    "lq: {after: [true]}",
    "lq: {power: {min_battery: 101}}",
    "lq: {power: {thermal: warm}}",
    "lq: {early_stop: {patience: 0}}",
    "lq: {early_stop: {min_delta: 1sd}}",
    "lq: {spike: {enable: true}}",
    "lq: {grad_clip: 0}",
    "matrix: {seed: [1, 2]}",
    "'json://me:secret@host': 3",
    # types and ranges
    "batch_size: four",
    "batch_size: 0",
    "batch_size: yes",
    "batch_size: '4'",
    "iters: 1.5",
    "learning_rate: -1e-5",
    "learning_rate: .nan",
    "val_batches: -2",
    "train: false",
    "mask_prompt: maybe",
    "optimizer: lion",
    "fine_tune_type: qlora",
    "prompt_feature: [a]",
    "clear_cache_threshold: big",
    "lora_parameters: [8]",
    "lora_parameters: {dropout: 1.0}",
    "lora_parameters: {keys: q_proj}",
    "lq: {name: 12}",
    'lq: {name: "a\\nb"}',
    "lq: {checkpoint: {every: soon}}",
    "lq: {notify: {on: [failed, done]}}",
    "lq: {notify: {on: failed}}",
    "lq: fast",
    "zoo: 1\nbatch_size: x\nlr: 3",
    # training
    "optimizer_config: {adam: {beta: 3}}",
    "optimizer_config:\n  adam:\n    learning_rate: 3",
    "optimizer_config: {AdamW: {}}",
    "optimizer_config: {adam: 3}",
    "optimizer_config: {adam: {betas: 0.9}}",
    "optimizer_config: {adam: {betas: [0.9, 1]}}",
    "optimizer: sgd\noptimizer_config: {sgd: {nesterov: true}}",
    "lr_schedule: cosine",
    "lr_schedule: {arguments: [1e-5, 3]}",
    "lr_schedule: {name: cosine, arguments: [1e-5, 3]}",
    "lr_schedule: {name: step_decay, arguments: [1e-5]}",
    "lr_schedule: {name: cosine_decay, arguments: [1e-5, 0]}",
    "lr_schedule:\n  name: cosine_decay\n  arguments:\n    - 1e-5\n    - x",
    "report_to: tensorboard",
    "hf_dataset: {train_split: train}",
    "hf_dataset:\n  - {path: x}\n  - {path: y, split: z}",
    # YAML
    "batch_size: 4\nbatch_size: 2",
    "lq:\n  retry: {max_restarts: 1, max_restarts: 2}",
    "a: b: c",
    "seed: [",
    "\tseed: 1",
    "seed: &a [*a]",
    "seed: !foo 3",
    "seed: !!python/object:os.system {}",
    "? [a]\n: 3",
    "seed: !!int abc",
    'project_name: "\\ud800"',
    "project_name: \x07",
]

# whole files
BROKEN = [
    b"",
    b"# nothing yet\n",
    b"null\n",
    b"- a\n",
    b"just a text\n",
    b"seed: 1\nproject_name: \xff\xfe\n",
    b"\x00\x01\x02",
    b"[" * 5000,
    b'seed: "\\UFFFFFFFF"',
    b"x: 1\n" * 300_000,
    b"lq: {format: 2, later: 1}",
]


def error(job: Path) -> str:
    """Load an invalid job file; return its errors, one line each, after the path of the file."""
    with pytest.raises(InvalidInput) as caught:
        load_jobs(job)
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{job}:") for line in lines)
    return "\n   ".join(line.removeprefix(f"{job}:").strip() for line in lines)


def test_wrong_keys_and_values_golden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    job = folder / "job.yaml"
    entries = []
    for text in WRONG:
        job.write_text(HEAD + text + "\n")
        shown = text if len(text) < 200 else f"{text[:20]}..."
        entries.append(f"{shown}\n-> {error(job)}\n".replace("\a", "\\a"))
    assert_golden("\n".join(entries), GOLDEN / "wrong_job_files.txt")


def test_error_names_line_of_the_value(folder: Path) -> None:
    job = folder / "job.yaml"
    for line, text in ((4, "iters: x"), (5, "seed: 1\niters: x"), (6, "lora_parameters:\n  rank: 8\n  alpha: 16")):
        job.write_text(HEAD + text + "\n")
        assert error(job).startswith(f"{line}: ")


def test_broken_job_files_golden(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    entries = []
    for content in BROKEN:
        job.write_bytes(content)
        entries.append(f"{content[:30]!r}\n-> {error(job)}\n")
    assert_golden("\n".join(entries), GOLDEN / "broken_files.txt")


def test_missing_file_and_folder_refused(tmp_path: Path) -> None:
    assert error(tmp_path / "none.yaml") == "no such file"
    assert error(tmp_path).startswith("is a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_file_without_permission_refused(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.touch(mode=0o000)
    assert "Permission denied" in error(job)


def test_unreadable_file_is_refused() -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc here")
    assert "Input/output error" in error(Path("/proc/self/mem"))


def test_line_break_in_name_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_jobs(tmp_path / "a\nb.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/a\\nb.yaml: ")


MODELS = [
    "model: nowhere",
    "model: ./org/name",
    "model: a/b/c",
    "model: /no/where",
    "model: data/train.jsonl",
]


def test_unusable_models_golden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    job = folder / "job.yaml"
    entries = []
    for text in MODELS:
        job.write_text(text)
        with pytest.raises(ModelMissing):
            load_jobs(job)
        entries.append(f"{text}\n-> {error(job)}\n".replace(str(folder), "FOLDER"))
    assert_golden("\n".join(entries), GOLDEN / "unusable_models.txt")


@pytest.mark.parametrize(("text", "line", "layers"), [("\nnum_layers: 5", "2: ", "5"), ("", "", "16 (the default)")])
def test_too_many_layers_are_refused(folder: Path, text: str, line: str, layers: str) -> None:
    job = folder / "job.yaml"
    job.write_text(f"model: model{text}")
    assert error(job).startswith(f"{line}num_layers: {layers}, ")
    assert "has 4 layers" in error(job)


def test_missing_resume_adapter_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    job = folder / "job.yaml"
    job.write_text(HEAD + "resume_adapter_file: old.safetensors")
    assert error(job) == f"4: resume_adapter_file: no such file: {folder}/old.safetensors"


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@\\\n\t 01.e~?,<=u", max_size=60))
@settings(max_examples=300, deadline=None, database=None)
def test_reader_survives_any_text(text: str) -> None:
    try:
        parse(Path("job.yaml"), text.encode())
    except ConfigInvalid as error:
        assert "\n" not in str(error)
