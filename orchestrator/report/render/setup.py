"""The sections of a report about data, adapter, checkpoints, hardware, settings and versions."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NONE, NOT_MEASURED, counted, duration, figure, loss, percent, size, whole
from orchestrator.report.facts import CheckpointFacts, Dataset, Facts, Overlap, RunSettings, TokenizedFile

MOST_CHECKPOINTS = 20
"""Rows of the checkpoint table; report.json has all."""


def fine_tuning(settings: RunSettings | None) -> str:
    """Return the fine-tune type with rank, scale and dropout."""
    if settings is None:
        return NONE
    if settings.rank is None:
        return settings.fine_tune_type
    return f"{settings.fine_tune_type}, rank {settings.rank}, scale {settings.scale}, dropout {settings.dropout}"


# --- data ---


def data(facts: Facts) -> list[str]:
    """Return the section about the data set: files, tokens, lengths, padding and duplicates."""
    title = ["## Data", ""]
    if facts.settings is not None:
        title += [code(facts.settings.data), ""]
    if not facts.data:
        return [*title, f"Rows per file: {NOT_MEASURED}."]
    rows = [
        (code(file.name), whole(file.rows), size(file.size_bytes), code(file.sha256) if file.sha256 else NONE)
        for file in facts.data
    ]
    return [*title, *table(("File", "Rows", "Size", "SHA-256"), rows, right="lrr"), "", *_tokenised(facts)]


def _tokenised(facts: Facts) -> list[str]:
    dataset, epochs = facts.dataset, figure(facts.progress.epochs)
    if dataset is None:
        return [f"Tokens, lengths, padding and duplicates: {NOT_MEASURED}. Epochs: {epochs}."]
    header = ("Tokenised", "Rows", "Tokens", "Supervised", "Shortest", "Median", "95 %", "Longest", "Truncated")
    repeats = dataset.repeated_inside
    repeated = f" Training rows that repeat an earlier one: {whole(repeats)}." if repeats else ""
    return [
        *table(header, [_lengths(file) for file in dataset.files], right="lrrrrrrrr"),
        "",
        f"Lengths are in tokens. Rows longer than {whole(dataset.max_seq_length)} are truncated. Epochs: {epochs}. "
        f"Padding: {percent(dataset.padding_share)} of all positions of an epoch.{repeated}",
        *(line for overlap in dataset.overlaps for line in ("", _overlap(overlap))),
        *_twins(dataset),
    ]


def _lengths(file: TokenizedFile) -> tuple[str, ...]:
    return (
        file.name,
        whole(file.rows),
        whole(file.tokens),
        whole(file.supervised_tokens),
        whole(file.shortest),
        figure(file.median),
        figure(file.p95),
        whole(file.longest),
        whole(file.truncated),
    )


def _overlap(overlap: Overlap) -> str:
    near = NOT_MEASURED if overlap.near is None else whole(overlap.near)
    rows = counted(overlap.rows, f"{'validation' if overlap.name == 'valid' else overlap.name} row")
    return f"Of {rows}, {whole(overlap.exact)} are training rows too. Nearly identical: {near}."


def _twins(dataset: Dataset) -> list[str]:
    rows = [
        (f"{code(f'{overlap.name}.jsonl')} row {whole(twin.row)}", whole(twin.train_row), percent(twin.share))
        for overlap in dataset.overlaps
        for twin in overlap.examples
    ]
    return ["", *table(("Row", "Training row", "In common"), rows, right="lrr")] if rows else []


# --- adapter and checkpoints ---


def adapter(facts: Facts) -> list[str]:
    """Return the section about the adapter and the files that hold it."""
    files = [
        (code(file.name), what, whole(file.iteration), size(file.size_bytes), code(file.sha256))
        for file, what in ((facts.adapter.best, "loaded by MLX-LM"), (facts.adapter.final, "the last weights"))
        if file is not None
    ]
    shape = table(("Adapter", "Value"), [*_lora(facts.settings), *_parameters(facts)])
    if not files:
        return ["## Adapter", "", "No adapter was published.", "", *shape]
    header = ("File", "What", "Iteration", "Size", "SHA-256")
    return ["## Adapter", "", *shape, "", code(facts.adapter.path), "", *table(header, files, right="llrr")]


def _lora(settings: RunSettings | None) -> list[tuple[str, str]]:
    if settings is None or settings.rank is None:
        return [("Rank", NONE), ("Scale", NONE), ("Dropout", NONE)]
    return [
        ("Rank", whole(settings.rank)),
        ("Scale", f"{settings.scale:g} (alpha {settings.rank * (settings.scale or 0):g})"),
        ("Dropout", f"{settings.dropout:g}"),
    ]


def _parameters(facts: Facts) -> list[tuple[str, str]]:
    parameters = facts.parameters
    if parameters is None:
        return [("Targets", NONE), ("Layers", NONE), ("Trained parameters", NONE)]
    trained = f"{whole(parameters.trained)} of {whole(parameters.total)} ({percent(parameters.share)})"
    return [
        ("Targets", ", ".join(code(name) for name in parameters.targets) or "all weights of these layers"),
        ("Layers", whole(parameters.layers)),
        ("Trained parameters", trained),
    ]


def checkpoints(facts: Facts) -> list[str]:
    """Return the section about the checkpoints, with the best one marked."""
    title = ["## Checkpoints", ""]
    if not facts.checkpoints:
        return [*title, "No checkpoint was written."]
    rows = [
        (
            code(record.path),
            whole(record.iteration),
            loss(record.val_loss),
            size(record.size_bytes),
            "yes" if record.on_disk else "no",
            "best by validation" if record.recommended else "",
        )
        for record in _selection(facts.checkpoints)
    ]
    kept = [record.size_bytes for record in facts.checkpoints if record.on_disk]
    more = f" The table shows {len(rows)} of them; report.json has all." if len(rows) < len(facts.checkpoints) else ""
    written = counted(len(facts.checkpoints), "checkpoint")
    return [
        *title,
        f"{written} written, {whole(len(kept))} on disk ({size(sum(kept))}).{more}",
        "",
        *table(("Checkpoint", "Iteration", "Validation loss", "Size", "On disk", "Recommended"), rows, right="lrrrll"),
    ]


def _selection(records: Sequence[CheckpointFacts]) -> list[CheckpointFacts]:
    """Return `MOST_CHECKPOINTS` evenly spread records, with the first, the last and the best among them."""
    if len(records) <= MOST_CHECKPOINTS:
        return list(records)
    step = (len(records) - 1) / (MOST_CHECKPOINTS - 1)
    places = {round(place * step) for place in range(MOST_CHECKPOINTS)}
    return [record for place, record in enumerate(records) if place in places or record.recommended]


# --- hardware, settings, versions ---


def hardware(facts: Facts) -> list[str]:
    """Return the section about memory, speed, sleep and battery."""
    used = facts.hardware
    speeds = f"{figure(used.it_s_first, 'it/s')} in the first tenth, {figure(used.it_s_last, 'it/s')} in the last"
    swap = f"{size(used.swap_first_bytes)} at first, {size(used.swap_most_bytes)} at most"
    battery = f"{percent(used.battery_before)} before, {percent(used.battery_after)} after"
    rows = [
        ("Machine", escaped(facts.host.get("machine") or facts.host.get("system") or NONE)),
        ("Memory limit", size(used.limit_bytes)),
        ("Peak memory of MLX", size(used.peak_bytes)),
        ("Peak memory of the trainer", size(used.footprint_bytes)),
        ("Headroom", _headroom(used.headroom_bytes, used.limit_bytes)),
        ("Swap of the machine", swap if used.swap_first_bytes is not None else NONE),
        ("Speed", speeds if used.it_s_first is not None else NONE),
        ("Slept", f"{duration(used.slept_seconds)} in {counted(used.sleeps, 'sleep')}" if used.sleeps else "no"),
        ("Battery", battery if (used.battery_before, used.battery_after) != (None, None) else NONE),
    ]
    return ["## Hardware", "", *table(("What", "Value"), rows)]


def _headroom(left: int | None, limit: int | None) -> str:
    if left is None or not limit:
        return NONE
    amount = size(left) if left >= 0 else f"-{size(-left)}"
    return f"{amount} ({percent(left / limit)} of the limit)"


def settings(facts: Facts) -> list[str]:
    """Return the section with the requested settings."""
    spec = facts.settings
    if spec is None:
        return ["## Settings", "", "config.yaml could not be read."]
    schedule = f", {escaped(spec.lr_schedule)}" if spec.lr_schedule else ""
    every = (spec.steps_per_report, spec.steps_per_eval, spec.save_every)
    rows = [
        ("Model", code(spec.model)),
        ("Fine-tune type", fine_tuning(spec)),
        ("Layers", "all" if spec.num_layers == -1 else whole(spec.num_layers)),
        ("Optimizer", spec.optimizer),
        ("Learning rate", f"{spec.learning_rate:g}{schedule}"),
        ("Batch size", f"{counted(spec.batch_size, 'row')} per iteration"),
        ("Gradient accumulation", f"{counted(spec.grad_accumulation_steps, 'iteration')} per update"),
        ("Effective batch", f"{counted(spec.effective_batch, 'row')} per update"),
        ("Longest sequence", f"{whole(spec.max_seq_length)} tokens"),
        ("Gradient checkpointing", _on(spec.grad_checkpoint)),
        ("Loss on the answer only", _on(spec.mask_prompt)),
        ("Batching", spec.batching),
        ("Seed", f"{spec.seed}"),
        ("Report, validation, checkpoint every", f"{', '.join(map(whole, every))} iterations"),
        ("Remote code of the model", "allowed" if spec.trust_remote_code else "not allowed"),
    ]
    return ["## Settings", "", *table(("Setting", "Value"), rows)]


def _on(value: bool) -> str:
    return "on" if value else "off"


def versions(facts: Facts) -> list[str]:
    """Return the section with versions and machine, and the files that could not be read."""
    rows = [(escaped(name), escaped(value)) for name, value in (*facts.versions.items(), *facts.host.items())]
    lines = ["## Versions and machine", "", *(table(("What", "Value"), rows) if rows else [f"{NOT_MEASURED}."])]
    if facts.unread:
        lines += ["", "These files could not be read:", "", *(f"- {escaped(line)}" for line in facts.unread)]
    return lines
