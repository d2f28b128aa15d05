"""The presets that come with lq: job files with a comment on every key, ready to be copied. Read, never written."""

from __future__ import annotations

import dataclasses
import difflib
from importlib.resources import files

from configs.errors import one_line
from jobs.model.errors import InvalidInput

DEFAULT = "small"
"""What `lq config init` writes where no preset is named."""

_FOLDER, _ENDING = "presets", ".yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """One of them."""

    name: str  # as one types it
    summary: str  # its first line, without the hash
    text: str  # the file


def presets() -> list[Preset]:
    """Return every preset, the default one first, the others by name."""
    found = [entry for entry in files("configs").joinpath(_FOLDER).iterdir() if entry.name.endswith(_ENDING)]
    read = [_preset(entry.name.removesuffix(_ENDING), entry.read_text(encoding="utf-8")) for entry in found]
    return sorted(read, key=lambda one: (one.name != DEFAULT, one.name))


def preset(name: str) -> Preset:
    """Return a preset by its name, with or without its ending.

    Raises:
        InvalidInput: there is none; names the nearest.
    """
    known = {one.name: one for one in presets()}
    word = name.strip().lower().removesuffix(_ENDING)
    if word in known:
        return known[word]
    near = difflib.get_close_matches(word, known, n=1) or [one for one in known if word and word in one]
    advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    raise InvalidInput(one_line(f"no preset {name!r}; {advice}"))


def _preset(name: str, text: str) -> Preset:
    return Preset(name=name, summary=text.partition("\n")[0].removeprefix("#").strip(), text=text)
