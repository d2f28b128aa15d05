"""A finished job: one notification, a report, an adapter for MLX-LM, private files, a small worker."""

from __future__ import annotations

import base64
import json
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from orchestrator.report.render.model_card import MARK
from tests.acceptance.undisturbed import PROMPT, SECRETS, Undisturbed
from tests.harness import Workshop

pytestmark = pytest.mark.timeout(180, func_only=True)


def test_message_has_numbers_and_picture(undisturbed: Undisturbed) -> None:
    message = undisturbed.message()
    assert message["event"] == "finished"
    (received,) = undisturbed.received
    assert received["title"] == message["title"] == "lq: usual (job 1) finished"
    assert "\n" not in received["message"]
    assert str(undisturbed.training.folder.path) not in received["message"]
    assert re.search(r"; next: lq \w+ 1\b", received["message"])
    (picture,) = received["attachments"]
    assert base64.b64decode(picture["base64"]) == (undisturbed.training.folder.report / "loss_curve.png").read_bytes()
    assert base64.b64decode(picture["base64"]).startswith(b"\x89PNG\r\n")
    results = {one["service"]: (one["delivered"], one["last_result"]) for one in message["services"]}
    assert results == {"phone": (True, "delivered"), "broken": (False, "HTTP status 500")}


def test_report_has_facts_of_the_trainer(
    undisturbed: Undisturbed,
) -> None:
    undisturbed.message()
    folder = undisturbed.training.folder
    content = json.loads((folder.report / "report.json").read_text())
    ruling = content["findings"]["ruling"]
    assert ruling["verdict"]["code"] == "INCONCLUSIVE"
    assert [file["rows"] for file in content["dataset"]["files"]] == [50, 8]
    assert 0 < content["parameters"]["trained"] < content["parameters"]["total"]
    [answer] = content["answers"]
    assert answer["prompt"] == PROMPT
    assert answer["before"] != answer["after"]
    assert content["hardware"]["headroom_bytes"] > 0
    [gain] = content["findings"]["gains"]
    assert gain["difference"]["paired"]
    assert gain["difference"]["high"] < 0
    page = (folder.report / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "<script" not in page
    assert MARK in (folder.adapters / "README.md").read_text()


def test_secrets_stay_in_the_settings(undisturbed: Undisturbed) -> None:
    undisturbed.message()
    settings = undisturbed.lq.home / "settings.yaml"
    assert all(secret.encode() in settings.read_bytes() for secret in SECRETS)
    others = [path for path in undisturbed.lq.home.rglob("*") if path.is_file() and path != settings]
    assert {"lq.db", "queue.db", "worker.log", "report.md", "events.jsonl.gz"} <= {path.name for path in others}
    found = [(path, secret) for path in others for secret in SECRETS if secret.encode() in path.read_bytes()]
    assert found == []


def test_home_is_private_to_its_owner(undisturbed: Undisturbed) -> None:
    home = undisturbed.lq.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*")}
    assert len(modes) > 30
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to list the loaded libraries")
def test_worker_loads_no_trainer_libraries(undisturbed: Undisturbed) -> None:
    undisturbed.message()
    maps = Path(f"/proc/{undisturbed.lq.worker()}/maps").read_text()
    assert "sqlite" in maps
    loaded = [name for name in ("libmlx", "/mlx/", "tokenizers", "matplotlib", "kiwisolver") if name in maps]
    assert loaded == []


def test_adapter_loads_in_mlx_lm_generate(undisturbed: Undisturbed, workshop: Workshop) -> None:
    where = ("--model", workshop.model, "--adapter-path", undisturbed.training.folder.adapters)
    prompt = ("--prompt", "What is 2 plus 3?", "--max-tokens", 5)
    answer = undisturbed.lq.command("mlx_lm.generate", *where, *prompt, seconds=150)
    assert "Generation: 5 tokens" in answer.out


def test_adapter_fuses_with_mlx_lm_fuse(undisturbed: Undisturbed, workshop: Workshop, tmp_path: Path) -> None:
    where = ("--model", workshop.model, "--adapter-path", undisturbed.training.folder.adapters)
    undisturbed.lq.command("mlx_lm.fuse", *where, "--save-path", tmp_path / "fused", seconds=150)
    before, after = load_file(workshop.model / "model.safetensors"), load_file(tmp_path / "fused" / "model.safetensors")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert "model.layers.1.self_attn.q_proj.weight" in changed
