"""Checks data files as the trainer will read them: each row is rendered and tokenized, without loading the model.

The result is cached under a hash of everything that it depends on. Rows that a model on another machine would get are
only estimated by their characters.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.data_rows import format_of
from jobs.model.errors import DataInvalid, located, message_of
from jobs.model.objective import Supervised
from workers.data import answers
from workers.data.model_text import ModelText, plain
from workers.data.rendering import CUT_OFF, Rendered, Renderer, RowUnusable, Span, TokenizedRow, tokenized
from workers.files.atomic import write_atomically

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

CHARACTERS_PER_TOKEN = 3.5
"""Of English text in current vocabularies; used if the tokenizer is not on this machine."""

MAX_AGE_S = 30 * 86400.0
"""Results that nobody used for this long are deleted."""

_VERSION = 2
_ROWS = 1024
"""Rows of one call of the tokenizer, which runs while the next ones are rendered."""

_AHEAD = 2
"""Calls that may wait, so that the text of a large file is not held in memory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileCheck:
    """The rows of a file as the model sees them."""

    tokens: tuple[int, ...]  # of each row, in the order of the file
    how: Literal["tokenizer", "characters"]  # exact, or estimated
    left_out: Mapping[str, tuple[int, ...]]  # rows with nothing to learn, from 0, by reason (`rendering`)

    @property
    def learned(self) -> int:
        """Rows of which something is learned."""
        return len(self.tokens) - sum(map(len, self.left_out.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShownRow:
    """One row as the model sees it."""

    text: str
    learned: tuple[Span, ...]  # in characters
    why: str | None  # nothing is learned, for a reason of `rendering`
    tokens: int | None = None  # None if they cannot be counted here
    learned_tokens: int | None = None
    cut_at: int | None = None  # character at which max_seq_length cuts the text; None if it does not


class RowChecker:
    """Checks the data files of a job; `model` is the model's folder, None if it is not on this machine."""

    def __init__(self, model: Path | None, spec: JobSpec, *, cache: Path | None) -> None:
        """Read no row yet.

        Args:
            spec: names the fields of a row.
            cache: folder for the results, created when needed; None to keep none.

        Raises:
            ModelMissing: the model has no usable tokenizer.
        """
        self._spec, self._cache = spec, cache
        self._model = ModelText(model) if model is not None else None

    @property
    def unchecked(self) -> str | None:
        """What keeps rows from being rendered or counted here; None if nothing does."""
        if self._model is None:
            return f"{self._spec.model} is not on this machine, so its chat template and tokenizer were not tried"
        if self._model.has_own_code:
            return "Python code renders the rows of this model, so they were not tried"
        if self._model.file is None:
            return "the model has no tokenizer.json, so the rows were not checked by length"
        return None

    @cached_property
    def _counts(self) -> bool:
        return self._model is not None and self._model.file is not None and not self._model.has_own_code

    def check(self, path: Path, sha256: str | None = None) -> FileCheck:
        """Check every row of a file; `sha256` is that of the file, if known.

        Raises:
            DataInvalid: a row cannot be used; the text has file and line.
            ModelMissing: the tokenizer or the template is damaged.
            OSError, ValueError: the file cannot be read.
        """
        if self._cache is None:
            return self._checked(path)
        cached = self._cache / f"{self._hash(path, sha256)}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(cached.read_text())
            os.utime(cached)  # marks it as used
            left_out = {name: tuple(rows) for name, rows in content["left_out"].items()}
            return FileCheck(tokens=tuple(content["tokens"]), how=content["how"], left_out=left_out)
        checked = self._checked(path)
        with suppress(OSError):  # the next call checks again
            self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(cached, json.dumps(dataclasses.asdict(checked)))
            for old in self._cache.glob("*.json"):
                if old.stat().st_mtime < time.time() - MAX_AGE_S:
                    old.unlink()
        return checked

    def _hash(self, path: Path, sha256: str | None) -> str:
        """Return a hash of everything the result depends on."""
        names = (
            "prompt_feature",
            "completion_feature",
            "chat_feature",
            "text_feature",
            "mask_prompt",
            "max_seq_length",
        )
        about = {name: getattr(self._spec, name) for name in names} | {"objective": self._spec.lq.objective.keys}
        return hashlib.sha256(
            json.dumps([_VERSION, about, sha256 or _file_sha256(path), self._model_hash]).encode()
        ).hexdigest()

    @cached_property
    def _model_hash(self) -> list[Any]:
        model = self._model
        if model is None:
            return []
        tokenizer = _file_sha256(model.file) if model.file is not None else None
        return [dict(model.templates), model.has_own_code, model.settings, tokenizer]

    def _checked(self, path: Path) -> FileCheck:
        tokens: list[int] = []
        left_out: dict[str, list[int]] = {}
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as thread:
            rows = self._rendered(path)
            running: deque[Future[list[tuple[int, str | None]]]] = deque()
            while (batch := list(islice(rows, _ROWS))) or running:
                if batch:
                    running.append(thread.submit(self._measured, batch))
                if len(running) > _AHEAD or not batch:
                    for count, why in running.popleft().result():
                        if why is not None:
                            left_out.setdefault(why, []).append(len(tokens))
                        tokens.append(count)
        return FileCheck(
            tokens=tuple(tokens),
            how="tokenizer" if self._counts else "characters",
            left_out={why: tuple(indices) for why, indices in left_out.items()},
        )

    def _rendered(self, path: Path) -> Iterator[Rendered]:
        renderer: Renderer | None = None
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                row = json.loads(line)
                renderer = renderer or self._renderer(row)
                try:
                    yield self._longest([renderer(each) for each in self._sequences(row)])
                except RowUnusable as error:
                    raise DataInvalid(located(path, number, str(error))) from error

    def _sequences(self, row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        objective = self._spec.lq.objective
        return [row] if isinstance(objective, Supervised) else answers.own_sequences(row, objective)

    @staticmethod
    def _longest(rendered: Sequence[Rendered]) -> Rendered:
        """Return the longest sequence of a row, or one of which nothing is learned."""
        return next((one for one in rendered if one.why), max(rendered, key=lambda one: len(one.text)))

    def _renderer(self, first: Mapping[str, Any]) -> Renderer:
        """Return what renders the rows of a file that begins with this row."""
        row_format = format_of(first, self._spec)
        if row_format is None:
            raise ValueError("unknown format")
        known = self._model is not None and not self._model.has_own_code
        render = self._model.render if self._model is not None and known and row_format.name != "text" else None
        if not isinstance(self._spec.lq.objective, Supervised):
            return Renderer(answers.FORMAT, render if known else plain, mask_prompt=True)
        return Renderer(row_format, render if known else plain, mask_prompt=self._spec.mask_prompt)

    def _measured(self, rows: Sequence[Rendered]) -> list[tuple[int, str | None]]:
        """Return the tokens of each row, and why nothing of it is learned."""
        if self._model is None or not self._counts:
            return [(max(1, round(len(row.text) / CHARACTERS_PER_TOKEN)), row.why) for row in rows]
        counts = self._model.counted([row.text for row in rows], special=not rows[0].is_chat)
        starts = [0] * len(rows)
        long = [index for index, row in enumerate(rows) if row.learned and counts[index] > self._spec.max_seq_length]
        masked = [index for index in long if rows[index].learned[0][0]]
        for index, row in zip(masked, self._tokenized([rows[index] for index in masked]), strict=True):
            starts[index] = row.learned[0][0]
        return [
            (count, row.why or (None if self._is_learned(start, count) else CUT_OFF))
            for row, count, start in zip(rows, counts, starts, strict=True)
        ]

    def _tokenized(self, rows: Sequence[Rendered]) -> list[TokenizedRow]:
        assert self._model is not None
        return tokenized(rows, self._model.encode, self._model.end)

    def _is_learned(self, start: int, count: int) -> bool:
        """Return whether tokens are left to learn after the cut; the first one is not predicted from anything."""
        return max(1, start) < min(count, self._spec.max_seq_length)

    def shown(self, path: Path, number: int) -> ShownRow:
        """Return a row, from 1, as the model sees it.

        Raises:
            DataInvalid: the row does not exist or cannot be used.
            ModelMissing: the tokenizer or the template is damaged.
        """
        try:
            with path.open("rb") as file:
                lines = [next(file), next(islice(file, number - 2, None))] if number > 1 else [next(file)] * 2
            first, wanted = map(json.loads, lines)
            row = self._renderer(first)(wanted)
        except StopIteration:
            raise DataInvalid(located(path, None, f"has no row {number}")) from None
        except (RowUnusable, OSError, ValueError) as error:
            raise DataInvalid(located(path, number, message_of(error))) from error
        shown = ShownRow(text=row.text, learned=row.learned, why=row.why)
        if not self._counts or self._model is None:
            return shown
        (tokens, learned), limit = self._tokenized([row])[0], self._spec.max_seq_length
        cut_at = None
        if len(tokens) > limit:
            ends = self._model.ends(row.text, special=not row.is_chat)
            cut_at = ends[limit - 1] if limit <= len(ends) else None
        last = len(row.text) if cut_at is None else cut_at
        is_learned = self._is_learned(learned[0][0] if learned else 0, len(tokens))
        return dataclasses.replace(
            shown,
            learned=tuple((start, min(end, last)) for start, end in row.learned if start < last),
            tokens=len(tokens),
            learned_tokens=sum(max(0, min(end, limit) - max(1, start)) for start, end in learned),
            cut_at=cut_at,
            why=row.why or (None if is_learned else CUT_OFF),
        )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
