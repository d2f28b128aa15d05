"""Files and keys of other trainers: recognised, and each key with what corresponds to it or the advice to remove it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.load import load_jobs
from configs.suggestions import other_trainer, unknown_key
from configs.validation import levels
from jobs.model.errors import InvalidInput
from jobs.model.spec import JobSpec
from tests.golden import assert_golden

GOLDEN = Path(__file__).parent / "golden"
LEVELS = levels(JobSpec)
SYNONYMS = Path(__file__).parents[3] / "configs" / "synonyms.yaml"

FILES = {
    "LLaMA-Factory": """\
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
lora_rank: 16
dataset: support_chats
dataset_dir: data
template: qwen
cutoff_len: 1024
overwrite_cache: true
preprocessing_num_workers: 8
output_dir: saves/support
logging_steps: 10
save_steps: 200
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.05
bf16: true
val_size: 0.1
eval_strategy: steps
eval_steps: 100
""",
    "axolotl": """\
base_model: Qwen/Qwen2.5-0.5B-Instruct
load_in_4bit: true
datasets:
  - path: rows.jsonl
    type: chat_template
val_set_size: 0.05
output_dir: ./out
adapter: qlora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 2048
sample_packing: true
micro_batch_size: 2
num_epochs: 3
optimizer: adamw_8bit
lr_scheduler: cosine
train_on_inputs: false
gradient_checkpointing: true
flash_attention: true
evals_per_epoch: 4
weight_decay: 0.0
special_tokens:
  pad_token: <pad>
""",
    "Unsloth": """\
model: unsloth/Qwen2.5-0.5B-Instruct
data:
  dataset: chats.jsonl
training:
  training_type: lora
  max_seq_length: 2048
  load_in_4bit: true
  learning_rate: 2e-4
  max_steps: 60
  random_seed: 3407
  train_on_completions: true
  gradient_checkpointing: unsloth
lora:
  lora_r: 16
  lora_alpha: 16
  use_rslora: false
logging:
  enable_wandb: false
""",
    "mlx-lm-lora": """\
model: mlx-community/Qwen2.5-0.5B-Instruct-4bit
train: true
data: org/preferences
train_type: lora
train_mode: dpo
beta: 0.1
reference_model_path: mlx-community/Qwen2.5-0.5B-Instruct-4bit
iters: 200
""",
    "TRL": """\
model_name_or_path: Qwen/Qwen2.5-0.5B
dataset_name: trl-lib/Capybara
use_peft: true
lora_r: 32
lora_target_modules: [q_proj, v_proj]
torch_dtype: bfloat16
max_length: 1024
assistant_only_loss: true
max_grad_norm: 1.0
""",
    "Hugging Face's Trainer": """\
output_dir: out
per_device_train_batch_size: 4
num_train_epochs: 3
weight_decay: 0.01
warmup_steps: 20
save_total_limit: 3
load_best_model_at_end: true
optim: adamw_torch
""",
}


def errors(folder: Path, text: str) -> list[str]:
    job = folder / "job.yaml"
    job.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load_jobs(job)
    return [line.removeprefix(f"{job}:") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("tool", FILES)
def test_file_of_another_trainer(tmp_path: Path, tool: str) -> None:
    first, *faults = errors(tmp_path, FILES[tool])
    assert first.startswith(f" this is a file for {tool}, not for mlx_lm.lora; here ")
    assert sorted(faults, key=lambda line: int(line.partition(":")[0])) == faults
    named = {line.partition("'")[2].partition("'")[0] for line in faults}
    assert named >= {key for key in yaml.safe_load(FILES[tool]) if key not in JobSpec.model_fields}


def test_files_of_other_trainers_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = ["\n".join([f"== {tool}", *errors(tmp_path, text)]) for tool, text in FILES.items()]
    assert_golden("\n\n".join(entries) + "\n", GOLDEN / "other_trainers.txt")


@pytest.mark.parametrize(
    "text", ["lora_alpha: 16\nr: 8\niters: 3\nbatch_size: 2", "iterations: 3\nbf16: true", "zoo: 1", "lq: {after: [x]}"]
)
def test_file_of_mlx_lm_with_few_mistakes(text: str) -> None:
    assert other_trainer(yaml.safe_load(f"model: x\ndata: y\n{text}"), LEVELS) is None


MEANT = {
    **dict.fromkeys(("iterations", "num_iters", "steps", "max_steps", "trainSteps", "train-iters"), "'iters: 7'"),
    "eval_steps": "'steps_per_eval: 7'",
    "random_seed": "'seed: 7'",
    "max_grad_norm": "'lq.grad_clip: 7'",
    "data_path": "'data'",
    "dataset": "'data'",
    "output_dir": "'adapter_path'",
    "adapter_file": "'adapter_path'",
    "resume_from_checkpoint": "'resume_adapter_file'",
    "warmup_ratio": "'lr_schedule.warmup: 3%'",
    "weight_decay": "'optimizer_config: {adamw: {weight_decay: 7}}'",
    "validation": "valid.jsonl",
    **dict.fromkeys(("metadata", "deepspeed", "bf16", "template", "packing", "beta"), "remove it"),
    "learning_rte": "did you mean 'learning_rate'?",
    "nothing_like_it": "remove it",
}


@pytest.mark.parametrize("key", MEANT)
def test_key_is_suggested_by_its_meaning(key: str) -> None:
    text = unknown_key((key,), 7, top={key: 7}, levels=LEVELS)
    assert MEANT[key] in text
    assert ("did you mean" in text) == ("did you mean" in MEANT[key])


def test_synonyms_name_keys_of_a_job_file() -> None:
    table = yaml.safe_load(SYNONYMS.read_text())
    foreign = [key for keys in table["same_value"].values() for key in keys]
    foreign += [key for item in table["advice"] for key in item["keys"]]
    here = [*table["same_value"], *(item["here"] for item in table["advice"] if "here" in item)]
    for target in here:
        level, _, key = target.rpartition(".")
        assert key in LEVELS[level], target
    assert len(set(foreign)) == len(foreign), "each key has one meaning"
    assert not {*foreign} & {*JobSpec.model_fields}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer_config: {weight_decay: 0.01}", "optimizer_config: {adamw: {weight_decay: 0.01}}"),
        ("optimizer: sgd\noptimizer_config: {momentum: 0.9}", "write 'optimizer_config: {sgd: {momentum: 0.9}}'"),
        ('train: "true"', "must be true, not 'true'; write true without quotes"),
        ('learning_rate: "1e-5"', "write 1e-5 without quotes"),
        (
            "resume_adapter_file: adapters",
            "is a folder, not a file: HERE/adapters; write adapters/adapters.safetensors",
        ),
        ("lq: {after: 77}", "; write [77]"),
        ("lora_parameters: {keys: q_proj}", "; write [q_proj]"),
    ],
)
def test_value_in_the_wrong_form(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.chdir(folder)
    (folder / "adapters").mkdir()
    (folder / "adapters" / "adapters.safetensors").touch()
    (line,) = errors(folder, f"model: model\ndata: data\nnum_layers: 4\n{text}")
    assert expected in line.replace(str(folder), "HERE")


def test_set_of_one_value_for_a_list(folder: Path) -> None:
    (folder / "job.yaml").write_text("model: model\ndata: data\nnum_layers: 4\n")
    with pytest.raises(InvalidInput, match=r"write --set lq\.after=\[77\], in quotes"):
        load_jobs(folder / "job.yaml", ["lq.after=77"])
