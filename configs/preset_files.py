"""The presets of lq: job files to copy, with a comment on every key."""

from __future__ import annotations

import dataclasses
import difflib
from importlib.resources import files

from configs.errors import one_line
from jobs.model.errors import InvalidInput

DEFAULT = "small"  # the preset that `lq config init` writes by default

_ENDING = ".yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """One preset."""

    name: str
    summary: str  # its first line, without the hash
    text: str  # the file


def presets() -> list[Preset]:
    """Return every preset: the default first, the others by name."""
    entries = [entry for entry in files("configs").joinpath("presets").iterdir() if entry.name.endswith(_ENDING)]
    texts = {entry.name.removesuffix(_ENDING): entry.read_text(encoding="utf-8") for entry in entries}
    return [
        Preset(name=name, summary=texts[name].partition("\n")[0].removeprefix("#").strip(), text=texts[name])
        for name in sorted(texts, key=lambda name: (name != DEFAULT, name))
    ]


def preset(name: str) -> Preset:
    """Return a preset by its name, with or without `.yaml`; raise InvalidInput if there is none."""
    known = {each.name: each for each in presets()}
    word = name.strip().lower().removesuffix(_ENDING)
    if word in known:
        return known[word]
    near = difflib.get_close_matches(word, known, n=1) or [name for name in known if word and word in name]
    advice = f"did you mean {near[0]!r}?" if near else f"the presets are {', '.join(known)}"
    raise InvalidInput(one_line(f"no preset {name!r}; {advice}"))
