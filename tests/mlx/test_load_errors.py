"""What the trainer reports about errors while it loads, and before its first update: wait, or never try again."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_moe

from jobs.model.events import Kind
from jobs.model.outcomes import Outcome, Reason
from jobs.policies.exits import NEVER_RETRY, RESUMABLE
from tests.mlx.conftest import Build
from tests.mlx.training import Training

ABSENT = "someone/a-model-that-is-not-cached"


@contextmanager
def hub(status: int, code: str | None = None) -> Iterator[str]:
    """Run a hub that answers every request with this HTTP status, and give its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if code is not None:
                self.send_header("X-Error-Code", code)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 the name http.server calls

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def closed_port() -> Iterator[str]:
    """Give an address that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def ended(training: Training, endpoint: str, **environment: str) -> tuple[int, Any, Any, str]:
    """Run an attempt with this hub; return exit code, outcome, reason and detail."""
    cache = str(training.job_dir.path / "hub")
    own = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "no_proxy": "*"}
    code = training.run(1, **own | environment)
    end = training.only(Kind.ENDED)
    return code, end["outcome"], end["reason"], str(end["detail"])


@pytest.mark.parametrize("status", [429, 503])
def test_busy_hub_is_waited_for(build: Build, status: int) -> None:
    with hub(status) as endpoint:
        code, outcome, reason, detail = ended(build(model=ABSENT), endpoint)
    assert (code, outcome, reason) == (RESUMABLE, Outcome.STOPPED, Reason.NETWORK)
    assert str(status) in detail


@pytest.mark.parametrize("offline", ["0", "1"])
def test_absent_network_is_waited_for(build: Build, offline: str) -> None:
    with closed_port() as endpoint:
        code, outcome, reason, detail = ended(build(model=ABSENT), endpoint, HF_HUB_OFFLINE=offline)
    assert (code, outcome, reason) == (RESUMABLE, Outcome.STOPPED, Reason.NETWORK)
    assert ("offline" if offline == "1" else "refused") in detail


@pytest.mark.parametrize(("status", "error"), [(404, "RepoNotFound"), (403, "GatedRepo")])
def test_refusing_hub_is_final(build: Build, status: int, error: str) -> None:
    with hub(status, error) as endpoint:
        code, outcome, reason, detail = ended(build(model=ABSENT), endpoint)
    assert (code, outcome, reason) == (NEVER_RETRY, Outcome.REFUSED, Reason.MODEL_MISSING)
    assert ABSENT in detail


def test_torn_weights_are_named(build: Build, model: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(model, tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    code, outcome, reason, detail = ended(build(model=str(torn)), "")
    assert (code, outcome, reason) == (NEVER_RETRY, Outcome.REFUSED, Reason.MODEL_MISSING)
    assert str(torn) in detail


def test_failing_template_is_named(build: Build, model: Path, tmp_path: Path) -> None:
    """A template that raises is an error of jinja2, which no list of types contains."""
    strict = shutil.copytree(model, tmp_path / "strict")
    settings = json.loads((strict / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{{ raise_exception('roles must alternate') }}"
    (strict / "tokenizer_config.json").write_text(json.dumps(settings))
    code, outcome, reason, detail = ended(build(model=str(strict)), "")
    assert (code, outcome, reason) == (NEVER_RETRY, Outcome.REFUSED, Reason.DATA_INVALID)
    assert "roles must alternate" in detail


def experts(folder: Path, like: Path, *, dtype: mx.Dtype, quantized: bool) -> Path:
    """Write a tiny mixture-of-experts model with the tokenizer of another model."""
    shutil.copytree(like, folder)
    known = json.loads((like / "config.json").read_text())
    config = {
        "model_type": "qwen3_moe",
        **{name: known[name] for name in ("vocab_size", "eos_token_id", "max_position_embeddings")},
        **dict.fromkeys(("hidden_size", "intermediate_size", "moe_intermediate_size"), 64),
        **dict.fromkeys(("num_hidden_layers", "num_experts_per_tok", "num_key_value_heads"), 2),
        **dict.fromkeys(("num_attention_heads", "num_experts"), 4),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "norm_topk_prob": True,
    }
    network = qwen3_moe.Model(qwen3_moe.ModelArgs.from_dict(config))
    network.set_dtype(dtype)
    if quantized:
        cast("Any", nn).quantize(network, group_size=32, bits=4)
        config["quantization"] = {"group_size": 32, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(network.parameters())))
    return folder


@pytest.mark.parametrize(
    ("dtype", "quantized", "tuned", "cause"),
    [
        pytest.param(mx.float32, True, "full", "no gradient wrt the quantized weights", id="quantized experts"),
        pytest.param(mx.float16, False, "lora", "only supports float32", id="experts of 16 bits"),
    ],
)
def test_impossible_training_ends_at_once(
    build: Build, model: Path, tmp_path: Path, dtype: mx.Dtype, quantized: bool, tuned: str, cause: str
) -> None:
    moe = experts(tmp_path / "experts", model, dtype=dtype, quantized=quantized)
    code, outcome, reason, detail = ended(build(model=str(moe), fine_tune_type=tuned), "")
    assert (code, outcome, reason) == (NEVER_RETRY, Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert cause in detail
