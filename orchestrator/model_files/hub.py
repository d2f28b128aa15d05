"""Asks the Hugging Face hub whether a model exists and may be downloaded. Only its name and the token are sent."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from orchestrator.model_files.hub_cache import hub_home

TIMEOUT_S = 5.0
_ENDPOINT = "https://huggingface.co"


class HubAnswer(StrEnum):
    """What the hub says about a model."""

    THERE = "there"
    ABSENT = "absent"
    GATED = "gated"
    NO_MODEL = "no model"  # a repository without config.json
    UNREACHABLE = "unreachable"


def ask(model: str, environment: Mapping[str, str] = os.environ) -> tuple[HubAnswer, str]:
    """Return the hub's answer about a model, and the reason in words."""
    endpoint = (environment.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
    host = urlsplit(endpoint).netloc.rpartition("@")[2]  # a password in the URL is never shown
    if not endpoint.startswith(("http://", "https://")) or not host:
        return HubAnswer.UNREACHABLE, "HF_ENDPOINT is not the URL of a web server"
    token = _token(environment)
    headers = {"User-Agent": "lq"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        request = Request(f"{endpoint}/{quote(model)}/resolve/main/config.json", method="HEAD", headers=headers)  # noqa: S310
        with build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as response:
            return HubAnswer.THERE, f"HTTP {response.status}"
    except HTTPError as error:
        return _answer(error), f"HTTP {error.code} from {host}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        return HubAnswer.UNREACHABLE, f"{host}: {getattr(reason, 'strerror', None) or type(reason).__name__}"


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the answer is enough, and the token must not go to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _answer(error: HTTPError) -> HubAnswer:
    """Judge a refusal as huggingface_hub.utils.hf_raise_for_status does."""
    code = error.headers.get("X-Error-Code")
    if 300 <= error.code < 400:
        return HubAnswer.THERE
    if code == "EntryNotFound":
        return HubAnswer.NO_MODEL
    if code == "GatedRepo" or error.code == 403:
        return HubAnswer.GATED
    return HubAnswer.ABSENT if error.code in (400, 401, 404) else HubAnswer.UNREACHABLE


def _token(environment: Mapping[str, str]) -> str | None:
    if environment.get("HF_TOKEN"):
        return environment["HF_TOKEN"].strip()
    with suppress(OSError):
        path = Path(environment.get("HF_TOKEN_PATH") or hub_home(environment) / "token").expanduser()
        return path.read_text().strip() or None
    return None
