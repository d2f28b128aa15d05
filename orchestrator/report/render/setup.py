"""The sections of a report about data, adapter, checkpoints, hardware, settings and versions."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.formatting.markdown import code, escaped, table, values
from orchestrator.formatting.text import NONE, counted, duration, figure, loss, percent, size, whole
from orchestrator.report.facts import AdapterFile, CheckpointFacts, Facts, Overlap, Parameters, RunSettings

MOST_CHECKPOINTS = 20
"""Rows of the checkpoint table; report.json has all."""


def fine_tuning(settings: RunSettings | None) -> str:
    """Return the fine-tune type with rank, scale and dropout."""
    if settings is None:
        return NONE
    if settings.rank is None:
        return settings.fine_tune_type
    return f"{settings.fine_tune_type}, rank {settings.rank}, scale {settings.scale}, dropout {settings.dropout}"


def data(facts: Facts) -> list[str]:
    """Return the section about the data set: files, tokens, lengths, padding and duplicates, a column for each file."""
    tokenised = {file.name: file for file in facts.dataset.files} if facts.dataset else {}
    hashed = {file.name.partition(".")[0]: file for file in facts.data}
    names: list[str] = [name for name in ("train", "valid", "test") if name in tokenised or name in hashed]
    names += [name for name in hashed if name not in names]
    rows: list[tuple[str, ...]] = []
    for title, source, field, text in (
        ("Rows", hashed, "rows", whole),
        ("Rows, tokenised", tokenised, "rows", whole),
        ("Tokens", tokenised, "tokens", whole),
        ("Tokens with a loss", tokenised, "supervised_tokens", whole),
        ("Shortest row, tokens", tokenised, "shortest", whole),
        ("Median", tokenised, "median", figure),
        ("95 %", tokenised, "p95", figure),
        ("Longest", tokenised, "longest", whole),
        ("Truncated rows", tokenised, "truncated", whole),
        ("Size", hashed, "size_bytes", size),
        ("SHA-256, first digits", hashed, "sha256", lambda text: code(text[:12]) if text else NONE),
    ):
        cells = [text(getattr(source.get(name), field, None)) for name in names]
        if any(cell != NONE for cell in cells):
            rows.append((title, *cells))
    lines = table(("What", *names), rows, right="l" + "r" * len(names)) if rows else []
    source_line = [f"From {code(facts.settings.data)}.", ""] if facts.settings is not None else []
    return ["## Data", "", *source_line, *lines, *_tokenised(facts)] if rows else []


def _tokenised(facts: Facts) -> list[str]:
    dataset = facts.dataset
    if dataset is None:
        return []
    padding = f"Padding: {percent(dataset.padding_share)} of all positions of an epoch."
    repeats = f" Training rows that repeat an earlier one: {whole(dataset.repeated_inside)}."
    truncation = f"Rows longer than {whole(dataset.max_seq_length)} tokens are truncated. {padding}"
    twins = [
        f"- {code(f'{overlap.name}.jsonl')} row {whole(twin.row)}: {percent(twin.share)} in common with training row "
        f"{whole(twin.train_row)}"
        for overlap in dataset.overlaps
        for twin in overlap.examples
    ]
    overlaps = [line for overlap in dataset.overlaps for line in ("", _overlap(overlap))]
    return ["", truncation + (repeats if dataset.repeated_inside else ""), *overlaps, "", *twins]


def _overlap(overlap: Overlap) -> str:
    near = "" if overlap.near is None else f" Nearly identical: {whole(overlap.near)}."
    rows = counted(overlap.rows, f"{'validation' if overlap.name == 'valid' else overlap.name} row")
    return f"Of {rows}, {whole(overlap.exact)} are training rows too.{near}"


def adapter(facts: Facts) -> list[str]:
    """Return the section about the adapter and the files that hold it."""
    settings, parameters = facts.settings, facts.parameters
    scale = settings.scale if settings else None
    alpha = None if settings is None or settings.rank is None or scale is None else settings.rank * scale
    rows = [
        ("Rank", whole(settings.rank if settings else None)),
        ("Scale", None if alpha is None else f"{scale:g} (alpha {alpha:g})"),
        *_trained(parameters),
        *_file("Best, loaded by MLX-LM", facts.adapter.best),
        *_file("Last weights", facts.adapter.final),
    ]
    return values("Adapter", rows) if parameters or facts.adapter.best else []


def _trained(parameters: Parameters | None) -> list[tuple[str, str]]:
    if parameters is None:
        return []
    share = f"{whole(parameters.trained)} of {whole(parameters.total)} ({percent(parameters.share)})"
    targets = ", ".join(map(code, parameters.targets)) or "all weights of these layers"
    return [("Targets", targets), ("Layers", whole(parameters.layers)), ("Trained parameters", share)]


def _file(name: str, file: AdapterFile | None) -> list[tuple[str, str]]:
    if file is None:
        return []
    what = f"{code(file.name)}, iteration {whole(file.iteration)}, {size(file.size_bytes)}"
    return [(name, f"{what}, sha256 {code(file.sha256)}")]


def checkpoints(facts: Facts) -> list[str]:
    """Return the section about the checkpoints, with the best one marked."""
    if not facts.checkpoints:
        return []
    rows = [
        (
            whole(record.iteration),
            f"{loss(record.val_loss)}{' (best)' if record.recommended else ''}",
            size(record.size_bytes),
            "yes" if record.on_disk else "no",
        )
        for record in _selection(facts.checkpoints)
    ]
    kept = [record.size_bytes for record in facts.checkpoints if record.on_disk]
    more = f" The table shows {len(rows)} of them; report.json has all." if len(rows) < len(facts.checkpoints) else ""
    written = (
        f"{counted(len(facts.checkpoints), 'checkpoint')} written, {whole(len(kept))} on disk ({size(sum(kept))})."
    )
    lines = table(("Iteration", "Validation loss", "Size", "On disk"), rows, right="rrrl")
    return ["## Checkpoints", "", f"{written}{more}", "", *lines]


def _selection(records: Sequence[CheckpointFacts]) -> list[CheckpointFacts]:
    """Return `MOST_CHECKPOINTS` evenly spread records, with the first, the last and the best among them."""
    if len(records) <= MOST_CHECKPOINTS:
        return list(records)
    step = (len(records) - 1) / (MOST_CHECKPOINTS - 1)
    places = {round(place * step) for place in range(MOST_CHECKPOINTS)}
    return [record for place, record in enumerate(records) if place in places or record.recommended]


def hardware(facts: Facts) -> list[str]:
    """Return the section about memory, speed, sleep and battery; empty if nothing was measured."""
    used = facts.hardware
    if used.peak_bytes is None and used.footprint_bytes is None:
        return []
    speeds = f"{figure(used.it_s_first, 'it/s')} in the first tenth, {figure(used.it_s_last, 'it/s')} in the last"
    swap = f"{size(used.swap_first_bytes)} at first, {size(used.swap_most_bytes)} at most"
    battery = f"{percent(used.battery_before)} before, {percent(used.battery_after)} after"
    return values(
        "Hardware",
        [
            ("Machine", escaped(facts.host.get("machine") or facts.host.get("system") or NONE)),
            ("Memory limit", size(used.limit_bytes)),
            ("Peak memory of MLX", size(used.peak_bytes)),
            ("Peak memory of the trainer", size(used.footprint_bytes)),
            ("Headroom", _headroom(used.headroom_bytes, used.limit_bytes)),
            ("Swap of the machine", swap if used.swap_first_bytes is not None else None),
            ("Speed", speeds if used.it_s_first is not None else None),
            ("Slept", f"{duration(used.slept_seconds)} in {counted(used.sleeps, 'sleep')}" if used.sleeps else None),
            ("Battery", battery if (used.battery_before, used.battery_after) != (None, None) else None),
        ],
    )


def _headroom(left: int | None, limit: int | None) -> str | None:
    if left is None or not limit:
        return None
    amount = size(left) if left >= 0 else f"-{size(-left)}"
    return f"{amount} ({percent(left / limit)} of the limit)"


def settings(facts: Facts) -> list[str]:
    """Return the section with the requested settings."""
    spec = facts.settings
    if spec is None:
        return []
    schedule = f", {escaped(spec.lr_schedule)}" if spec.lr_schedule else ""
    every = (spec.steps_per_report, spec.steps_per_eval, spec.save_every)
    return values(
        "Settings",
        [
            ("Model", code(spec.model)),
            ("Fine-tune type", fine_tuning(spec)),
            ("Layers", "all" if spec.num_layers == -1 else whole(spec.num_layers)),
            ("Optimizer", spec.optimizer),
            ("Learning rate", f"{spec.learning_rate:g}{schedule}"),
            ("Batch size", f"{counted(spec.batch_size, 'row')} per iteration"),
            ("Gradient accumulation", f"{counted(spec.grad_accumulation_steps, 'iteration')} per update"),
            ("Effective batch", f"{counted(spec.effective_batch, 'row')} per update"),
            ("Longest sequence", f"{whole(spec.max_seq_length)} tokens"),
            ("Gradient checkpointing", "on" if spec.grad_checkpoint else "off"),
            ("Objective", spec.objective if spec.objective != "sft" else None),
            ("Loss on the answer only", "on" if spec.mask_prompt or spec.objective != "sft" else "off"),
            ("Batching", spec.batching),
            ("Seed", f"{spec.seed}"),
            ("Report, validation, checkpoint every", f"{', '.join(map(whole, every))} iterations"),
            ("Remote code of the model", "allowed" if spec.trust_remote_code else "not allowed"),
        ],
    )


def versions(facts: Facts) -> list[str]:
    """Return the section with versions and machine, and the files that could not be read."""
    rows = [(escaped(name), escaped(value)) for name, value in (*facts.versions.items(), *facts.host.items())]
    lines = values("Versions and machine", rows)
    if facts.unread:
        unread = ("These files could not be read:", "", *(f"- {escaped(line)}" for line in facts.unread))
        lines = [*(lines or ["## Versions and machine"]), "", *unread]
    return lines
