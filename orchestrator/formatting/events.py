"""An event as a line a person reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobs.model.events import Event, Kind, number
from jobs.model.job import Incident
from jobs.model.outcomes import Outcome, Reason
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import CRASHES, describe


def line(event: Event) -> str | None:
    """Return an event in words; None where it is only a sign of life or a change of phase nobody waits for."""
    words = _WORDS[event.kind](event.data)
    if words is None:
        return None
    return f"{fmt.clock(event.time)}  {event.attempt}  {fmt.printable(words)}"  # a model's answer may hold anything


def style_of(event: Event) -> str:
    """Return the style of an event's line (orchestrator/cli/views/terminal.py): what deserves an eye has one."""
    if event.kind is Kind.WARNING or (event.kind is Kind.SELF_TEST and not event.data.get("equal")):
        return "careful"
    if event.kind is Kind.ENDED:
        outcomes: dict[object, str] = {Outcome.DONE: "good", Outcome.STOPPED: "careful"}
        return outcomes.get(event.data.get("outcome"), "bad")
    return {Kind.STARTED: "bold", Kind.PHASE: "dim", Kind.FACT: "dim"}.get(event.kind, "")


def incident_line(incident: Incident) -> str:
    """Return what lq itself saw or decided, in the form of an event's line."""
    text = describe(incident)
    what = f"{text.what}: {text.detail}" if text.detail else text.what
    return f"{fmt.clock(incident.time)}  {incident.attempt or '-'}  lq        {fmt.printable(what)}"


def style_of_incident(incident: Incident) -> str:
    """Return the style of an incident's line: a death is bad, everything else asks for care."""
    bad = incident.code in CRASHES or incident.code in (Reason.DIVERGED, Reason.CRASH_LOOP)
    return "bad" if bad and incident.code != Reason.DISK_FULL else "careful"


def _started(data: Mapping[str, Any]) -> str:
    if data.get("resumed_from"):
        return f"started   pid {data['pid']}, resumes at iteration {data['iteration']:,} ({data['resume_quality']})"
    return f"started   pid {data['pid']}, from the beginning"


def _phase(data: Mapping[str, Any]) -> str | None:
    return f"phase     {data['phase']}" if data["phase"] in ("load", "tokenize", "test") else None


def _progress(data: Mapping[str, Any]) -> str | None:
    losses = [value for item in data["losses"] if (value := number(item)) is not None]
    if not losses:
        return None
    mean = sum(losses) / len(losses)
    memory = (data.get("memory") or {}).get("peak")
    peak = f", peak {memory / 1e9:.2f} GB" if memory is not None else ""
    return (
        f"train     {data['iteration']:>7,}  loss {fmt.short_loss(mean)}  lr {data['learning_rate']:.2e}"
        f"  {fmt.figure(data['it_s'])} it/s{peak}"
    )


def _measured(word: str) -> Callable[[Mapping[str, Any]], str]:
    def words(data: Mapping[str, Any]) -> str:
        error = number(data.get("standard_error"))
        spread = f" ± {error:.3f}" if error is not None else ""
        perplexity = f", perplexity {number(data['perplexity']):.2f}" if "perplexity" in data else ""
        loss = fmt.short_loss(number(data["loss"]))
        return f"{word:<9} {data['iteration']:>7,}  loss {loss}{spread} over {data['examples']} rows{perplexity}"

    return words


def _checkpoint(data: Mapping[str, Any]) -> str:
    return f"saved     {data['iteration']:>7,}  {data['path']} ({data['bytes'] / 1e6:.1f} MB, {data['seconds']:.2f} s)"


def _self_test(data: Mapping[str, Any]) -> str:
    verdict = "equal to the last bit" if data["equal"] else "NOT EQUAL"
    return f"self-test {data['iteration']:>7,}  measured {data['measured']}, recorded {data['recorded']}: {verdict}"


def _fact(data: Mapping[str, Any]) -> str | None:
    name, value = str(data["name"]), data["value"]
    if name == "dataset":
        rows = ", ".join(f"{value[file]['rows']:,} {file}" for file in ("train", "valid", "test"))
        return f"data      {rows} rows; {value['train'].get('tokens', 0):,} tokens to train on"
    if name == "parameters":
        return f"adapter   {value['trained']:,} of {value['total']:,} parameters are trained"
    if name.startswith("answer."):
        return f"answer    {value['iteration']:>7,}  {_one_line(value['prompt'])} -> {_one_line(value['answer'])}"
    return None


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def _warning(data: Mapping[str, Any]) -> str:
    word = data["code"] if data["code"] == "autopsy" else "warning"
    return f"{word:<9} {data.get('text') or data['code']}"


def _ended(data: Mapping[str, Any]) -> str:
    if data["outcome"] == Outcome.STOPPED:
        return f"ended     {data['outcome']}: {data['detail']}"  # who asked is told elsewhere; here it is a signal
    return f"ended     {data['outcome']}: {data['reason']}: {data['detail']}"


_WORDS: dict[Kind, Callable[[Mapping[str, Any]], str | None]] = {
    Kind.STARTED: _started,
    Kind.PHASE: _phase,
    Kind.PROGRESS: _progress,
    Kind.VALIDATION: _measured("validate"),
    Kind.TEST: _measured("test"),
    Kind.CHECKPOINT: _checkpoint,
    Kind.SELF_TEST: _self_test,
    Kind.FACT: _fact,
    Kind.WARNING: _warning,
    Kind.ENDED: _ended,
}
