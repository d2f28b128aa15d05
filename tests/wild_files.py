"""The job files in wild/, a tiny model and data for dry runs of them, and the expected result of each.

The files imitate public job files, which a comment in each names. The model is a test model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors.numpy import load_file, save_file

from orchestrator.demo.tiny_model import build_data, build_model

FOLDER = Path(__file__).parent / "wild"
LAYERS = 16

REFUSED = {
    "before_october_2024": "9: unknown key 'lora_layers'; write 'num_layers: 16'",
    "alpha_and_scale": "7: unknown key 'lora_parameters.alpha'; remove it, 'lora_parameters.scale' is given",
    "alpha_alone": "15: unknown key 'lora_parameters.alpha'; write 'lora_parameters.scale: 1'",
    "modules_as_layers": "13: unknown key 'lora_parameters.lora_layers'; write 'lora_parameters.keys'",
    "all_at_the_top": "8: unknown key 'rank'; it belongs under 'lora_parameters'",
    "layers_of_another_model": "11: num_layers: 28, but the model has 16 layers; write 16 or less, or -1 for all",
    "resumed": "10: resume_adapter_file: no such file: ",
    "old_hub_data": "8: hf_dataset: 'path' is missing",
    "dpo": "6: unknown key 'training_mode'; ",
    "axolotl": " this is a file for axolotl, not for mlx_lm.lora; here base_model is model, ",
}
"""Refused before the model is loaded, with exit code 2; the start of the error after FILE:."""

OF_ANOTHER_MODEL = {
    "keys_of_another_model": "10: lora_parameters.keys: none of self_attn.qkv_proj is",
    "short_keys": "14: lora_parameters.keys: none of q_proj, v_proj, k_proj, o_proj and 3 more is",
}
"""Refused because of the model's weights, with exit code 2; the start of the error after FILE:."""

RUNS = {
    "mlx_lm_example": {"epochs"},
    "example_with_schedule": {"schedule"},
    "masked_prompt": {"epochs"},
    "thirty_five_examples": set[str](),
    "full_at_lora_rate": {"learning_rate"},
}
"""Files that run, and the cautions about them."""


def laid_out(folder: Path) -> dict[str, Path]:
    """Copy each file to its own folder, next to model and data; return the copies by name."""
    folder.mkdir(exist_ok=True)
    build_model(folder / "shallow")
    deepen(folder / "shallow", folder / "model")
    build_data(folder / "data", train=100, valid=60, test=0)
    _without_shared(folder / "data")
    copies = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        own = folder / path.stem
        own.mkdir()
        for name in ("model", "data"):
            (own / name).symlink_to(folder / name)
        copies[path.stem] = own / "lora_config.yaml"
        copies[path.stem].write_bytes(path.read_bytes())
    return copies


def deepen(model: Path, target: Path) -> None:
    """Copy a tiny model with its first layer LAYERS times."""
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    weights = load_file(model / "model.safetensors")
    first = {name: value for name, value in weights.items() if ".layers.0." in name}
    kept = {name: value for name, value in weights.items() if ".layers." not in name}
    for layer in range(LAYERS):
        kept |= {re.sub(r"\.layers\.0\.", f".layers.{layer}.", name): value for name, value in first.items()}
    save_file(kept, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))


def _without_shared(data: Path) -> None:
    """Number the questions, so that no validation row equals or resembles a training row."""
    for count, name in enumerate(("train", "valid")):
        rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row["messages"][0]["content"] = f"{count}{number} " * 6 + row["messages"][0]["content"]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
