"""An event as one line of `lq logs`."""

from __future__ import annotations

from jobs.model.errors import EventInvalid
from jobs.model.events import (
    CheckpointEvent,
    EndedEvent,
    Event,
    EventValue,
    FactEvent,
    FinalTestEvent,
    Kind,
    MeasuredEvent,
    PhaseEvent,
    ProgressEvent,
    SelfTestEvent,
    StartedEvent,
    WarningEvent,
    value_of,
)
from jobs.model.job import Incident
from jobs.model.outcomes import Outcome, Reason
from orchestrator.formatting import text as fmt
from orchestrator.formatting.incidents import CRASHES, describe


def line(event: Event) -> str | None:
    """Return an event in words; None if it reports only that the trainer is alive, or a phase of no interest."""
    try:
        words = _words(event.value)
    except EventInvalid as error:
        words = f"warning   {error}"
    if words is None:
        return None
    return f"{fmt.clock(event.time)}  {event.attempt}  {fmt.printable(words)}"  # an answer may hold any character


def style_of(event: Event) -> str:
    """Return the style of an event's line (orchestrator/cli/views/terminal.py)."""
    match value_of(event):
        case None | WarningEvent() | SelfTestEvent(equal=False):
            return "careful"
        case EndedEvent(outcome=outcome):
            return {Outcome.DONE: "good", Outcome.STOPPED: "careful"}.get(outcome or Outcome.CRASHED, "bad")
    return {Kind.STARTED: "bold", Kind.PHASE: "dim", Kind.FACT: "dim"}.get(event.kind, "")


def incident_line(incident: Incident) -> str:
    """Return an incident in the form of an event's line."""
    text = describe(incident)
    what = f"{text.what}: {text.detail}" if text.detail else text.what
    return f"{fmt.clock(incident.time)}  {incident.attempt or '-'}  lq        {fmt.printable(what)}"


def style_of_incident(incident: Incident) -> str:
    """Return the style of an incident's line: a crash is bad, everything else needs attention."""
    bad = incident.code in CRASHES or incident.code in (Reason.DIVERGED, Reason.CRASH_LOOP)
    return "bad" if bad and incident.code != Reason.DISK_FULL else "careful"


def _words(value: EventValue) -> str | None:
    words = None
    match value:
        case StartedEvent() as started:
            resumed = f"resumes at iteration {started.iteration:,} ({started.resume_quality})"
            words = f"started   pid {started.pid}, {resumed if started.resumed_from else 'from the beginning'}"
        case PhaseEvent(phase=("load" | "tokenize" | "reference" | "test") as phase):
            words = f"phase     {phase}"
        case ProgressEvent() as progress:
            words = _progress(progress)
        case FinalTestEvent(perplexity=float(perplexity)) as tested:
            words = f"{_measured('test', tested)}, perplexity {perplexity:.2f}"
        case MeasuredEvent() as measured:
            words = _measured("test" if measured.kind is Kind.TEST else "validate", measured)
        case CheckpointEvent() as saved:
            size = f"{saved.bytes / 1e6:.1f} MB, {saved.seconds:.2f} s"
            words = f"saved     {saved.iteration:>7,}  {saved.path} ({size})"
        case SelfTestEvent() as test:
            verdict = "equal to the last bit" if test.equal else "NOT EQUAL"
            measured_again = f"measured {test.measured}, recorded {test.recorded}: {verdict}"
            words = f"self-test {test.iteration or 0:>7,}  {measured_again}"
        case FactEvent() as fact:
            words = _fact(fact)
        case WarningEvent(code=code, text=text):
            words = f"{code if code == 'autopsy' else 'warning':<9} {text or code}"
        case EndedEvent() as ended:
            words = _ended(ended)
    return words


def _progress(progress: ProgressEvent) -> str | None:
    if not progress.losses:
        return None
    mean = sum(progress.losses) / len(progress.losses)
    peak = f", peak {progress.memory.peak / 1e9:.2f} GB" if progress.memory.peak is not None else ""
    rate = f"  lr {progress.learning_rate:.2e}" if progress.learning_rate is not None else ""
    speed = f"{fmt.figure(progress.it_s)} it/s"
    return f"train     {progress.iteration:>7,}  loss {fmt.short_loss(mean)}{rate}  {speed}{peak}"


def _measured(word: str, measured: MeasuredEvent) -> str:
    spread = f" ± {measured.standard_error:.3f}" if measured.standard_error is not None else ""
    loss = f"{fmt.short_loss(measured.loss)}{spread} over {measured.examples} rows"
    rewards = measured.rewards
    more = f", accuracy {fmt.percent(rewards.accuracy)}, margin {fmt.figure(rewards.margin)}" if rewards else ""
    return f"{word:<9} {measured.iteration:>7,}  loss {loss}{more}"


def _fact(fact: FactEvent) -> str | None:
    name, value = fact.name, fact.value
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


def _ended(ended: EndedEvent) -> str:
    if ended.outcome is Outcome.STOPPED:
        return f"ended     {ended.outcome}: {ended.detail}"  # its reason is the signal; an incident has the cause
    return f"ended     {ended.outcome}: {ended.reason}: {ended.detail}"
