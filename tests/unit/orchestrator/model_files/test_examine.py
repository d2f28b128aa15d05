"""What is wrong with a model is found at submit, from its files: each case is a kind of damage or mismatch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jobs.model.errors import InvalidInput
from orchestrator.core.app import App
from orchestrator.demo.tiny_model import build_data, build_model
from orchestrator.submission.submit import check_all
from tests import wild_files

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1\nsize 9\n"
PAGE = b"\n<!DOCTYPE html><html><head><title>Error 502</title></head></html>"
FILE = "model: model\ndata: data\niters: 10\nbatch_size: 2\nnum_layers: -1\n"

Settings = Mapping[str, Any]
Weights = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, chats and a job file."""
    build_model(tmp_path / "model")
    build_data(tmp_path / "data", train=8, valid=2, test=0)
    (tmp_path / "night.yaml").write_text(FILE)
    return tmp_path


def faults(app: App, place: Path, **settings: Any) -> list[str]:
    """Return the lines of the refusal, without the name of the file; empty if the job can be queued."""
    sets = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    try:
        check_all(app, [place / "night.yaml"], sets=sets)
    except InvalidInput as error:
        assert error.exit_code == 2
        return [line.removeprefix(f"{place / 'night.yaml'}:").strip() for line in str(error).splitlines()]
    return []


def cautions(app: App, place: Path, **settings: Any) -> tuple[str, ...]:
    """Return the cautions about the model of a job that can be queued."""
    sets = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    (job,) = check_all(app, [place / "night.yaml"], sets=sets)
    return job.cautions


def write(name: str, content: bytes) -> Callable[[Path], None]:
    """Return what replaces a file of the model."""

    def replace(model: Path) -> None:
        (model / name).write_bytes(content)

    return replace


def cut(name: str, keep: float) -> Callable[[Path], None]:
    """Return what cuts a file of the model short."""

    def shorten(model: Path) -> None:
        whole = (model / name).read_bytes()
        (model / name).write_bytes(whole[: int(len(whole) * keep)])

    return shorten


def delete_tokenizer(model: Path) -> None:
    """Delete every file of the tokenizer."""
    for pattern in ("tokenizer*", "vocab*", "merges*"):
        for path in model.glob(pattern):
            path.unlink()


def config(**values: Any) -> Callable[[Path], None]:
    """Return what changes config.json; None removes a key."""

    def change(model: Path) -> None:
        content = json.loads((model / "config.json").read_text()) | values
        content = {key: value for key, value in content.items() if value is not None}
        (model / "config.json").write_text(json.dumps(content))

    return change


def shard(*, index: bool, lost: int | None) -> Callable[[Path], None]:
    """Return what splits the weights into three shards and loses one."""

    def split(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        (model / "model.safetensors").unlink()
        names = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
        place_of = {key: names[number % 3] for number, key in enumerate(weights)}
        for name in names:
            own = {key: value for key, value in weights.items() if place_of[key] == name}
            save_file(own, model / name, metadata={"format": "pt"})
        if index:
            (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place_of}))
        if lost is not None:
            (model / names[lost]).unlink()

    return split


def dangle(name: str) -> Callable[[Path], None]:
    """Return what replaces a file by a link to nothing."""

    def link(model: Path) -> None:
        (model / name).unlink()
        (model / name).symlink_to(model / "blobs" / "4d7a2146")

    return link


def without_template(model: Path) -> None:
    """Remove the chat template."""
    path = model / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["chat_template"]
    path.write_text(json.dumps(content))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (cut("model.safetensors", 0.5), "model.safetensors"),
    "header cut short": (cut("model.safetensors", 0.001), "model.safetensors"),
    "weights empty": (write("model.safetensors", b""), "model.safetensors"),
    "weights LFS pointer": (write("model.safetensors", LFS), "git lfs pull"),
    "weights web page": (write("model.safetensors", PAGE), "model.safetensors"),
    "weights pickle": (write("model.safetensors", b"\x80\x02}q\x00."), "mlx_lm.convert"),
    "weights zipped pickle": (write("model.safetensors", b"PK\x03\x04" + bytes(200)), "mlx_lm.convert"),
    "weights GGUF": (write("model.safetensors", b"GGUF" + bytes(200)), "GGUF"),
    "weights dangling": (dangle("model.safetensors"), "model.safetensors"),
    "shard lost, index": (shard(index=True, lost=1), "model-00002-of-00003.safetensors"),
    "shard lost, no index": (shard(index=False, lost=2), "model-00003-of-00003.safetensors"),
    "weights absent": (lambda model: (model / "model.safetensors").unlink(), "no model*.safetensors"),
    "weights of PyTorch": (
        lambda model: (model / "model.safetensors").rename(model / "pytorch_model.bin"),
        "pytorch_model.bin",
    ),
    "config absent": (lambda model: (model / "config.json").unlink(), "config.json"),
    "config torn": (write("config.json", b"{"), "config.json"),
    "config LFS pointer": (write("config.json", LFS), "config.json"),
    "config without model_type": (config(model_type=None), "model_type"),
    "config of a new model": (config(model_type="qwen7"), "'qwen7'"),
    "config names helper": (config(model_type="switch_layers"), "'switch_layers'"),
    "config with own code": (config(model_file="modeling.py"), "trust_remote_code"),
    "tokenizer absent": (delete_tokenizer, "tokenizer.json"),
    "tokenizer LFS pointer": (write("tokenizer.json", LFS), "tokenizer.json"),
    "tokenizer cut short": (cut("tokenizer.json", 0.9), "tokenizer.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_model_is_refused(app: App, place: Path, name: str) -> None:
    assert faults(app, place) == []
    spoil, named = DAMAGE[name]
    spoil(place / "model")
    (line,) = faults(app, place)
    assert line.startswith("1: model: ")
    assert named in line


def test_all_faults_are_said_at_once(app: App, place: Path) -> None:
    shard(index=True, lost=0)(place / "model")
    cut("model-00002-of-00003.safetensors", 0.7)(place / "model")
    config(model_type="qwen7")(place / "model")
    delete_tokenizer(place / "model")
    lines = faults(app, place, report_to="swanlab")
    for named in ("swanlab", "'qwen7'", "model-00001-of-00003", "model-00002-of-00003", "tokenizer"):
        assert sum(named in line for line in lines) == 1, named
    assert len(lines) == 5


def test_whole_shards_are_accepted(app: App, place: Path) -> None:
    shard(index=True, lost=None)(place / "model")
    assert faults(app, place) == []
    assert cautions(app, place) == ()


def test_rows_of_text_need_no_template(app: App, place: Path) -> None:
    without_template(place / "model")
    for name in ("train", "valid"):
        rows = (place / "data" / f"{name}.jsonl").read_text().splitlines()
        (place / "data" / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    assert faults(app, place) == []


def test_chats_need_a_template(app: App, place: Path) -> None:
    without_template(place / "model")
    (line,) = faults(app, place)
    assert "no chat template" in line
    (place / "model" / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    assert faults(app, place) == []


@pytest.mark.parametrize("model_type", ["mistral", "llava", "qwen2"])
def test_renamed_model_types_are_known(app: App, place: Path, model_type: str) -> None:
    config(model_type=model_type)(place / "model")
    assert faults(app, place) == []


KEYS: dict[str, tuple[list[str], list[str], int]] = {
    "tails alone": (["o_proj", "qkv_proj"], ["o_proj", "qkv_proj", "self_attn.o_proj"], 0),
    "of another model": (["self_attn.qkv_proj"], ["self_attn.qkv_proj", "mlp.down_proj"], 0),
    "none": ([], ["self_attn.q_proj"], 0),
    "block": (["self_attn"], ["self_attn.q_proj"], 0),
    "norm": (["input_layernorm", "self_attn.q_proj"], ["input_layernorm"], 0),
    "partly": (["self_attn.q_proj", "o_proj"], ["o_proj", "self_attn.o_proj"], 1),
    "whole": (["self_attn.q_proj", "mlp.up_proj"], [], 0),
    "embedding": (["model.embed_tokens", "self_attn.q_proj"], [], 0),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_compared_with_modules(app: App, place: Path, name: str) -> None:
    keys, named, said = KEYS[name]
    refused = bool(named) and not said
    lines = faults(app, place, **{"lora_parameters.keys": keys})
    assert len(lines) == refused
    told = lines if refused else cautions(app, place, **{"lora_parameters.keys": keys})
    assert len(told) == (1 if named else 0)
    assert all(word in told[0] for word in named)


@pytest.mark.parametrize("name", wild_files.OF_ANOTHER_MODEL)
def test_wild_keys_are_refused(app: App, tmp_path: Path, name: str) -> None:
    file = wild_files.laid_out(tmp_path / "wild")[name]
    with pytest.raises(InvalidInput) as refused:
        check_all(app, [file])
    assert str(refused.value).startswith(f"{file}:{wild_files.OF_ANOTHER_MODEL[name]}")


def save(place: Path, weights: Weights, **values: Any) -> None:
    """Replace the weights and change config.json."""
    save_file(weights, place / "model" / "model.safetensors", metadata={"format": "pt"})
    config(**values)(place / "model")


def halve(place: Path) -> None:
    """Store the weights as float16."""
    weights = load_file(place / "model" / "model.safetensors")
    save(place, {name: value.astype(np.float16) for name, value in weights.items()})


def quantize(place: Path) -> None:
    """Give each linear weight of a layer scales and biases, as mlx_lm.convert -q does."""
    weights = load_file(place / "model" / "model.safetensors")
    for name, value in list(weights.items()):
        if ".layers." in name and value.ndim == 2:
            weights[name] = np.zeros((value.shape[0], value.shape[1] // 8), np.uint32)
            for part in ("scales", "biases"):
                weights[name.replace("weight", part)] = np.zeros((value.shape[0], 1), np.float32)
    save(place, weights, quantization={"group_size": 32, "bits": 4})


def give_experts(place: Path) -> None:
    """Replace the feed-forward of each layer by experts in one array, as MLX-LM stores them."""
    weights = load_file(place / "model" / "model.safetensors")
    for name in [name for name in weights if ".mlp." in name]:
        weights[name.replace(".mlp.", ".mlp.switch_mlp.")] = np.stack([weights.pop(name)] * 2)
    save(place, weights, model_type="qwen3_moe", num_experts=2)


MISMATCH: dict[str, tuple[Callable[[Path], None], Settings, str]] = {
    "full, quantized": (quantize, {"fine_tune_type": "full"}, "fine_tune_type"),
    "dora, experts": (give_experts, {"fine_tune_type": "dora"}, "fine_tune_type"),
    "too many layers": (lambda _: None, {"num_layers": 3}, "num_layers"),
    "wandb absent": (lambda _: None, {"report_to": "wandb"}, "pip install wandb"),
    "swanlab absent": (lambda _: None, {"report_to": "swanlab"}, "pip install swanlab"),
}


@pytest.mark.parametrize("name", MISMATCH)
def test_settings_that_never_work(app: App, place: Path, name: str) -> None:
    change, settings, named = MISMATCH[name]
    change(place)
    (line,) = faults(app, place, **settings)
    assert named in line


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (quantize, {"fine_tune_type": "lora"}),
        (quantize, {"fine_tune_type": "dora"}),
        (give_experts, {"fine_tune_type": "lora"}),
        (give_experts, {"fine_tune_type": "dora", "lora_parameters.keys": ["self_attn.q_proj"]}),
        (give_experts, {"lora_parameters.keys": ["mlp.switch_mlp.up_proj"]}),
        (halve, {"fine_tune_type": "lora", "optimizer": "adam"}),
        (halve, {"fine_tune_type": "full", "optimizer": "sgd"}),
        (lambda _: None, {"fine_tune_type": "full", "optimizer": "adam"}),
    ],
)
def test_settings_that_work(app: App, place: Path, change: Callable[[Path], None], settings: Settings) -> None:
    change(place)
    assert faults(app, place, **settings) == []
    assert cautions(app, place, **settings) == ()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adafactor"])
def test_float16_moments_are_a_caution(app: App, place: Path, optimizer: str) -> None:
    halve(place)
    (line,) = cautions(app, place, fine_tune_type="full", optimizer=optimizer)
    assert optimizer in line
    assert "bfloat16" in line
    if optimizer != "adafactor":
        larger = {f"optimizer_config.{optimizer}.eps": 1e-4}
        assert cautions(app, place, fine_tune_type="full", optimizer=optimizer, **larger) == ()
