"""What a user reads after a mistake in a job file: one line, the right line, and what to write instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import load_jobs
from configs.yaml_text import parse
from jobs.model.errors import ConfigInvalid, InvalidInput, ModelMissing

HEAD = "model: model\ndata: data\nnum_layers: 4\n"

# what stands from line 4 on -> what is said after FILE:
WRONG = {
    # keys
    "grad_accumulation: 4": "4: unknown key 'grad_accumulation'; did you mean 'grad_accumulation_steps'?",
    "gradient_accumulation_steps: 4": "4: unknown key 'gradient_accumulation_steps'; "
    "write 'grad_accumulation_steps: 4'",
    "gradient_accumulation_steps: 4\ngrad_accumulation_steps: 2": "4: unknown key 'gradient_accumulation_steps'; "
    "remove it, 'grad_accumulation_steps' is given",
    "batch-size: 3": "4: unknown key 'batch-size'; did you mean 'batch_size'?",
    "zoo: 1": "4: unknown key 'zoo'; lq config schema prints every key",
    "lr: 1e-4": "4: unknown key 'lr'; write 'learning_rate: 0.0001'",
    "epochs: 3": "4: unknown key 'epochs'; write 'iters', which counts batches: "
    "epochs * rows / batch_size, here 3 * rows / 4",
    "batch_size: 2\nnum_epochs: 5": "5: unknown key 'num_epochs'; write 'iters', which counts batches: "
    "epochs * rows / batch_size, here 5 * rows / 2",
    "num_epochs: many": "4: unknown key 'num_epochs'; write 'iters', which counts batches: epochs * rows / batch_size",
    "max_seq_len: 512": "4: unknown key 'max_seq_len'; write 'max_seq_length: 512'",
    "max_length: 512": "4: unknown key 'max_length'; write 'max_seq_length: 512'",
    "lora_rank: 16": "4: unknown key 'lora_rank'; write 'lora_parameters.rank: 16'",
    "lora_dropout: 0.1": "4: unknown key 'lora_dropout'; write 'lora_parameters.dropout: 0.1'",
    "warmup_steps: 10": "4: unknown key 'warmup_steps'; write 'lr_schedule.warmup: 10'",
    "target_modules: [q_proj]": "4: unknown key 'target_modules'; write 'lora_parameters.keys' with MLX-LM's names "
    "of the modules, such as self_attn.q_proj",
    "use_dora: true": "4: unknown key 'use_dora'; write 'fine_tune_type: dora'",
    "lora_parameters:\n  rank: 8\n  alpha: 16": "6: unknown key 'lora_parameters.alpha'; "
    "write 'lora_parameters.scale: 2', which is alpha / rank = 16 / 8",
    "lora_alpha: 32": "4: unknown key 'lora_alpha'; write 'lora_parameters.scale: 4', which is alpha / rank = 32 / 8",
    "lora_parameters: {r: 16, lora_alpha: 24}": "4: unknown key 'lora_parameters.r'; "
    "write 'lora_parameters.rank: 16' (and 1 more)",
    "lora_parameters: {scale: 2, alpha: 16}": "4: unknown key 'lora_parameters.alpha'; "
    "remove it, 'lora_parameters.scale' is given",
    "alpha: much": "4: unknown key 'alpha'; write 'lora_parameters.scale', which is alpha / rank",
    f"alpha: 1{'0' * 400}": "4: unknown key 'alpha'; write 'lora_parameters.scale', which is alpha / rank",
    "rank: 8": "4: unknown key 'rank'; it belongs under 'lora_parameters'",
    "priority: 3": "4: unknown key 'priority'; it belongs under 'lq'",
    "name: x": "4: unknown key 'name'; it belongs under 'lq'",
    "lq: {iters: 3}": "4: unknown key 'lq.iters'; it belongs at the top of the file",
    "lq:\n  retry:\n    max: 3": "6: unknown key 'lq.retry.max'; the keys here are max_restarts, crash_loop",
    "lq: {window: '22:00'}": "4: lq.window: must be two different hours such as "
    "\"23:00-07:00\", in quotes, not '22:00'",
    "lq: {deadline: 730}": '4: lq.deadline: must be an hour such as "07:30", or a day and an hour such as '
    '"2026-12-24 18:00", in quotes, not 730',
    "lq: {after: [0]}": "4: lq.after[0]: must be a job's id, from 1, or its name, not 0",
    "lq: {after: [true]}": "4: lq.after[0]: must be a whole number or text, not true",
    "lq: {power: {min_battery: 101}}": "4: lq.power.min_battery: must be a whole number of 1 or more "
    "and at most 100, not 101",
    "lq: {power: {thermal: warm}}": "4: lq.power.thermal: must be fair, serious or critical, not 'warm'",
    "lq: {early_stop: {patience: 0}}": "4: lq.early_stop.patience: must be a whole number of 1 or more, not 0",
    "lq: {early_stop: {min_delta: 1sd}}": (
        "4: lq.early_stop.min_delta: must be a number of nats like 0.001, or of standard errors like 1se, not '1sd'"
    ),
    "lq: {spike: {enable: true}}": "4: unknown key 'lq.spike.enable'; did you mean 'enabled'?",
    "lq: {grad_clip: 0}": "4: lq.grad_clip: must be a number greater than 0, not 0",
    "matrix: {seed: [1, 2]}": "4: unknown key 'matrix'; it belongs under 'lq'",
    "'json://me:secret@host': 3": "4: unknown key '(hidden)'; lq config schema prints every key",
    # types and ranges
    "batch_size: four": "4: batch_size: must be a whole number greater than 0, not 'four'",
    "batch_size: 0": "4: batch_size: must be a whole number greater than 0, not 0",
    "batch_size: yes": "4: batch_size: must be a whole number greater than 0, not true",
    "batch_size: '4'": "4: batch_size: must be a whole number greater than 0, not '4'",
    "iters: 1.5": "4: iters: must be a whole number greater than 0, not 1.5",
    "learning_rate: -1e-5": "4: learning_rate: must be a number greater than 0, not -1e-05",
    "learning_rate: .nan": "4: learning_rate: must be a number greater than 0, not nan",
    "val_batches: -2": "4: val_batches: must be a whole number of -1 or more, not -2",
    "train: false": "4: train: must be true, lq queues training; to measure only, use mlx_lm.lora --test",
    "mask_prompt: maybe": "4: mask_prompt: must be true or false, not 'maybe'",
    "optimizer: lion": "4: optimizer: must be adam, adamw, muon, sgd or adafactor, not 'lion'",
    "fine_tune_type: qlora": "4: fine_tune_type: must be lora, dora or full, not 'qlora'",
    "prompt_feature: [a]": "4: prompt_feature: must be text that is not empty, not a list",
    "clear_cache_threshold: big": "4: clear_cache_threshold: must be a size like 512MB or 2GB, not 'big'",
    "lora_parameters: [8]": "4: lora_parameters: must be a mapping, not a list",
    "lora_parameters: {dropout: 1.0}": "4: lora_parameters.dropout: must be a number of 0 or more and less than 1, "
    "not 1",
    "lora_parameters: {keys: q_proj}": "4: lora_parameters.keys: must be a list of text, not 'q_proj'",
    "lq: {name: 12}": "4: lq.name: must be text, not 12",
    'lq: {name: "a\\nb"}': "4: lq.name: must be a name of 1 to 80 printable characters, not 'a\\nb'",
    "lq: {checkpoint: {every: soon}}": "4: lq.checkpoint.every: must be a duration like 90s, 10min or 1h, not 'soon'",
    "lq: {notify: {on: [failed, done]}}": "4: lq.notify.on[1]: must be submitted, started, recovered, "
    "spike_handled, needs_you, deadline, failed or finished, not 'done'",
    "lq: {notify: {on: failed}}": "4: lq.notify.on: must be a list of submitted, started, recovered, "
    "spike_handled, needs_you, deadline, failed or finished, not 'failed'",
    "lq: fast": "4: lq: must be a mapping, not 'fast'",
    "zoo: 1\nbatch_size: x\nlr: 3": "4: unknown key 'zoo'; lq config schema prints every key (and 2 more)",
    # training
    "optimizer_config: {adam: {beta: 3}}": "4: unknown key 'optimizer_config.adam.beta'; did you mean 'betas'?",
    "optimizer_config:\n  adam:\n    learning_rate: 3": "6: unknown key 'learning_rate'; "
    "it belongs at the top of the file",
    "optimizer_config: {AdamW: {}}": "4: unknown key 'optimizer_config.AdamW'; did you mean 'adamw'?",
    "optimizer_config: {adam: 3}": "4: optimizer_config.adam: must be a mapping, not 3",
    "optimizer_config: {adam: {betas: 0.9}}": "4: optimizer_config.adam.betas: must be a list of two numbers, not 0.9",
    "optimizer_config: {adam: {betas: [0.9, 1]}}": "4: optimizer_config.adam.betas: both must be of 0 or more and "
    "less than 1",
    "optimizer: sgd\noptimizer_config: {sgd: {nesterov: true}}": "5: optimizer_config.sgd.nesterov: "
    "needs a momentum greater than 0 and no dampening",
    "lr_schedule: cosine": "4: lr_schedule: must be a mapping, not 'cosine'",
    "lr_schedule: {arguments: [1e-5, 3]}": "4: lr_schedule: 'name' is missing",
    "lr_schedule: {name: cosine, arguments: [1e-5, 3]}": "4: lr_schedule.name: must be exponential_decay, step_decay, "
    "cosine_decay or linear_schedule, not 'cosine'",
    "lr_schedule: {name: step_decay, arguments: [1e-5]}": "4: lr_schedule.arguments: "
    "step_decay takes init, decay_rate, step_size; 1 given",
    "lr_schedule: {name: cosine_decay, arguments: [1e-5, 0]}": "4: lr_schedule.arguments: "
    "decay_steps of cosine_decay must be 1 or more, not 0",
    "lr_schedule:\n  name: cosine_decay\n  arguments:\n    - 1e-5\n    - x": "8: lr_schedule.arguments[1]: "
    "must be a number, not 'x'",
    "report_to: tensorboard": "4: report_to: must be wandb, swanlab or wandb,swanlab, not 'tensorboard'",
    "hf_dataset: {train_split: train}": "4: hf_dataset: 'path' is missing, the name of the data set",
    "hf_dataset:\n  - {path: x}\n  - {path: y, split: z}": "6: unknown key 'hf_dataset.split'; "
    "did you mean 'test_split'?",
    # YAML
    "batch_size: 4\nbatch_size: 2": "5: key 'batch_size' is given twice, first in line 4",
    "lq:\n  retry: {max_restarts: 1, max_restarts: 2}": "5: key 'max_restarts' is given twice, first in line 5",
    "a: b: c": "4: not valid YAML: mapping values are not allowed here",
    "seed: [": "5: not valid YAML: expected the node content, but found '<stream end>'",
    "\tseed: 1": "4: not valid YAML: found character '\\t' that cannot start any token",
    "seed: &a [*a]": "4: an alias that makes the file endless",
    "seed: !foo 3": "4: not valid YAML: could not determine a constructor for the tag '!foo'",
    "seed: !!python/object:os.system {}": "4: only plain lists and mappings are read, without a tag",
    "? [a]\n: 3": "4: a key must be text",
    "seed: !!int abc": "4: a value that is not what its tag says",
    'project_name: "\\ud800"': "4: a character that does not exist",
    "project_name: \x07": "4: a character that YAML does not allow",
}

# whole files
BROKEN: dict[bytes, str] = {
    b"": " is empty; a job file holds at least a model and data",
    b"# nothing yet\n": " is empty; a job file holds at least a model and data",
    b"null\n": " is empty; a job file holds at least a model and data",
    b"- a\n": "1: must be a mapping of keys and values",
    b"just a text\n": "1: must be a mapping of keys and values",
    b"seed: 1\nproject_name: \xff\xfe\n": "2: not a text in UTF-8",
    b"\x00\x01\x02": "1: a character that YAML does not allow",
    b"[" * 5000: " not valid YAML: nested too deeply",
    b'seed: "\\UFFFFFFFF"': " an escape names a character that does not exist",
    b"x: 1\n" * 300_000: " is larger than 1 MB; this is not a YAML file people write",
    b"lq: {format: 2, later: 1}": " has format 2, this lq reads format 1: update lq",
}


def said(job: Path) -> str:
    with pytest.raises(InvalidInput) as caught:
        load_jobs(job)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{job}:")
    return message.removeprefix(f"{job}:")


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_answered_with_its_line_and_what_to_write(folder: Path, text: str) -> None:
    job = folder / "job.yaml"
    job.write_text(HEAD + text + "\n")
    assert said(job) == WRONG[text]


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:12].hex())
def test_a_file_that_is_no_job_file_is_named(tmp_path: Path, content: bytes) -> None:
    job = tmp_path / "job.yaml"
    job.write_bytes(content)
    assert said(job) == BROKEN[content]


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert said(tmp_path / "none.yaml") == " no such file"
    assert said(tmp_path) == " is a folder; name the YAML file in it"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.touch(mode=0o000)
    assert said(job) == " cannot be read: Permission denied"


def test_a_file_that_cannot_be_read_is_named() -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("no /proc here")
    assert said(Path("/proc/self/mem")) == " cannot be read: Input/output error"


def test_a_line_break_in_a_file_name_stays_out_of_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        load_jobs(tmp_path / "a\nb.yaml")
    assert str(caught.value) == f"{tmp_path}/a\\nb.yaml: no such file"


MODELS = {
    "model: nowhere": "1: model: no such folder: {0}/nowhere (a model on the Hugging Face hub is named org/name)",
    "model: ./org/name": "1: model: no such folder: {0}/org/name (a model on the Hugging Face hub is named org/name)",
    "model: a/b/c": "1: model: no such folder: {0}/a/b/c (a model on the Hugging Face hub is named org/name)",
    "model: /no/where": "1: model: no such folder: /no/where (a model on the Hugging Face hub is named org/name)",
    "model: data/train.jsonl": "1: model: is a file, name the folder it is in: {0}/data/train.jsonl",
    "model: data": "1: model: no model*.safetensors in {0}/data",
    "model: bare": "1: model: no config.json in {0}/bare",
    "model: torn": "1: model: config.json cannot be read in {0}/torn",
}


@pytest.mark.parametrize("text", MODELS)
def test_a_model_that_cannot_be_loaded_is_named_with_the_path_tried(folder: Path, text: str) -> None:
    for name in ("bare", "torn"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").touch()
    (folder / "torn" / "config.json").write_text("{")
    job = folder / "job.yaml"
    job.write_text(text)
    with pytest.raises(ModelMissing) as caught:
        load_jobs(job)
    assert str(caught.value) == f"{job}:" + MODELS[text].format(folder)


def test_more_layers_than_the_model_has_are_refused(folder: Path) -> None:
    job = folder / "job.yaml"
    job.write_text("model: model\nnum_layers: 5")
    assert said(job) == "2: num_layers: 5, but the model has 4 layers; write 4 or less, or -1 for all"
    job.write_text("model: model")
    assert said(job) == " num_layers: 16 (the default), but the model has 4 layers; write 4 or less, or -1 for all"


def test_a_missing_adapter_to_start_from_is_named(folder: Path) -> None:
    job = folder / "job.yaml"
    job.write_text(HEAD + "resume_adapter_file: old.safetensors")
    assert said(job) == f"4: resume_adapter_file: no such file: {folder}/old.safetensors"


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@\\\n\t 01.e~?,<=u", max_size=60))
@settings(max_examples=300, deadline=None, database=None)
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        parse(Path("job.yaml"), text.encode())
    except ConfigInvalid as error:
        assert "\n" not in str(error)
