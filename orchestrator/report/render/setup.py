"""The sections of a report about data, adapter, checkpoints, machine and settings. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.formatting.markdown import code, escaped, table
from orchestrator.formatting.text import NOT_MEASURED, counted, duration, figure, loss, percent, size, whole
from orchestrator.report.facts import CheckpointFacts, Dataset, Facts, Overlap, Settings, TokenisedFile

MOST_CHECKPOINTS = 20
"""Rows of the checkpoint table; report.json has them all."""


def what_is_trained(settings: Settings | None) -> str:
    """Return kind, rank, scale and dropout."""
    if settings is None:
        return NOT_MEASURED
    if settings.rank is None:
        return settings.fine_tune_type
    return f"{settings.fine_tune_type}, rank {settings.rank}, scale {settings.scale}, dropout {settings.dropout}"


def adapter_section(facts: Facts) -> list[str]:
    """Return what was trained, and the files that hold it."""
    title = ["## Adapter", ""]
    files = [
        (code(file.name), what, whole(file.iteration), size(file.size_bytes), code(file.sha256))
        for file, what in ((facts.adapter.best, "what MLX-LM loads"), (facts.adapter.final, "the last weights"))
        if file is not None
    ]
    if not files:
        return [*title, "None was published.", "", *_shape(facts)]
    header = ("File", "What", "Iteration", "Size", "SHA-256")
    return [*title, *_shape(facts), "", code(facts.adapter.path), "", *table(header, files, right="llrr")]


def _shape(facts: Facts) -> list[str]:
    settings, parameters = facts.settings, facts.parameters
    asked = [("Rank", "–"), ("Scale", "–"), ("Dropout", "–")]
    if settings is not None and settings.rank is not None:
        asked = [
            ("Rank", whole(settings.rank)),
            ("Scale", f"{settings.scale:g} (alpha {settings.rank * (settings.scale or 0):g})"),
            ("Dropout", f"{settings.dropout:g}"),
        ]
    if parameters is None:
        rows = [*asked, ("Targets", NOT_MEASURED), ("Layers", NOT_MEASURED), ("Trained parameters", NOT_MEASURED)]
        return table(("Adapter", "Value"), rows)
    trained = f"{whole(parameters.trained)} of {whole(parameters.total)} ({percent(parameters.share)})"
    rows = [
        *asked,
        ("Targets", ", ".join(code(name) for name in parameters.targets) or "every weight of these layers"),
        ("Layers", whole(parameters.layers)),
        ("Trained parameters", trained),
    ]
    return table(("Adapter", "Value"), rows)


def checkpoint_section(facts: Facts) -> list[str]:
    """Return the checkpoints, and which is the best."""
    title = ["## Checkpoints", ""]
    if not facts.checkpoints:
        return [*title, "None was written."]
    kept = [record for record in facts.checkpoints if record.on_disk]
    rows = [
        (
            code(record.path),
            whole(record.iteration),
            loss(record.val_loss),
            size(record.size_bytes),
            "yes" if record.on_disk else "no",
            "best by validation" if record.recommended else "",
        )
        for record in _shown(facts.checkpoints)
    ]
    more = f" {len(rows)} of them are shown; report.json has all." if len(rows) < len(facts.checkpoints) else ""
    held = size(sum(record.size_bytes for record in kept))
    return [
        *title,
        f"{counted(len(facts.checkpoints), 'checkpoint')} written, {whole(len(kept))} on disk ({held}).{more}",
        "",
        *table(("Checkpoint", "Iteration", "Validation loss", "Size", "On disk", "Recommended"), rows, right="lrrrll"),
    ]


def _shown(records: Sequence[CheckpointFacts]) -> list[CheckpointFacts]:
    """Return those that are shown: evenly spread, and the best."""
    spread = _spread(records, MOST_CHECKPOINTS)
    best = [record for record in records if record.recommended and record not in spread]
    return sorted([*spread, *best], key=lambda record: record.iteration)


def _spread(items: Sequence[CheckpointFacts], most: int) -> list[CheckpointFacts]:
    """Return at most `most` of the items (2 or more), evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def settings_section(facts: Facts) -> list[str]:
    """Return what was asked for."""
    settings = facts.settings
    if settings is None:
        return ["## Settings", "", "config.yaml could not be read."]
    rate = f"{settings.learning_rate:g}"
    schedule = f", {escaped(settings.lr_schedule)}" if settings.lr_schedule else ""
    rows = [
        ("Model", code(settings.model)),
        ("Fine-tune type", what_is_trained(settings)),
        ("Layers", "all" if settings.num_layers == -1 else whole(settings.num_layers)),
        ("Optimizer", settings.optimizer),
        ("Learning rate", f"{rate}{schedule}"),
        ("Batch size", f"{counted(settings.batch_size, 'row')} per iteration"),
        ("Gradient accumulation", f"{counted(settings.grad_accumulation_steps, 'iteration')} per update"),
        ("Effective batch", f"{counted(settings.effective_batch, 'row')} per update"),
        ("Longest sequence", f"{whole(settings.max_seq_length)} tokens"),
        ("Gradient checkpointing", _on(settings.grad_checkpoint)),
        ("Loss on the answer only", _on(settings.mask_prompt)),
        ("Batching", settings.batching),
        ("Seed", f"{settings.seed}"),
        ("Report, validation, checkpoint every", _cadence(settings)),
        ("Code that comes with the model", "was allowed to run" if settings.trust_remote_code else "not allowed"),
    ]
    return ["## Settings", "", *table(("Setting", "Value"), rows)]


def _on(value: bool) -> str:
    return "on" if value else "off"


def _cadence(settings: Settings) -> str:
    every = (settings.steps_per_report, settings.steps_per_eval, settings.save_every)
    return f"{', '.join(whole(count) for count in every)} iterations"


def data_section(facts: Facts) -> list[str]:
    """Return the data set: files, tokens, lengths, padding, and what train and the others share."""
    title = ["## Data", ""]
    if facts.settings is not None:
        title += [code(facts.settings.data), ""]
    if not facts.data:
        return [*title, f"Rows per file: {NOT_MEASURED}."]
    rows = [
        (code(file.name), whole(file.rows), size(file.size_bytes), code(file.sha256) if file.sha256 else NOT_MEASURED)
        for file in facts.data
    ]
    files = table(("File", "Rows", "Size", "SHA-256"), rows, right="lrr")
    return [*title, *files, "", *_tokenised(facts)]


def _tokenised(facts: Facts) -> list[str]:
    found, epochs = facts.dataset, figure(facts.progress.epochs)
    if found is None:
        return [f"Tokens, lengths, padding and duplicates: {NOT_MEASURED}. Epochs: {epochs}."]
    header = ("Tokenised", "Rows", "Tokens", "Learned", "Shortest", "Median", "95 %", "Longest", "Truncated")
    repeated = "" if not found.repeated_inside else f" {counted(found.repeated_inside, 'training row')} repeat another."
    return [
        *table(header, [_lengths(one) for one in found.files], right="lrrrrrrrr"),
        "",
        f"Lengths in tokens; longer than {whole(found.max_seq_length)} is cut. Epochs: {epochs}. "
        f"Padding: {percent(found.padding_share)} of all positions of an epoch.{repeated}",
        *(line for one in found.overlaps for line in ("", _overlap(one))),
        *_twins(found),
    ]


def _lengths(one: TokenisedFile) -> tuple[str, ...]:
    return (
        one.name,
        whole(one.rows),
        whole(one.tokens),
        whole(one.supervised_tokens),
        whole(one.shortest),
        figure(one.median),
        figure(one.p95),
        whole(one.longest),
        whole(one.truncated),
    )


def _overlap(one: Overlap) -> str:
    near = NOT_MEASURED if one.near is None else whole(one.near)
    which = "validation" if one.name == "valid" else one.name
    return (
        f"Of {counted(one.rows, f'{which} row')} the training set has {whole(one.exact)} word for word; nearly: {near}."
    )


def _twins(found: Dataset) -> list[str]:
    rows = [
        (f"{code(f'{one.name}.jsonl')} row {whole(twin.row)}", whole(twin.train_row), percent(twin.share))
        for one in found.overlaps
        for twin in one.examples
    ]
    return ["", *table(("Row", "Training row", "In common"), rows, right="lrr")] if rows else []


def hardware_section(facts: Facts) -> list[str]:
    """Return what the run took of the machine, and what the machine did meanwhile."""
    found = facts.hardware
    speeds = f"{figure(found.it_s_first, 'it/s')} in the first tenth, {figure(found.it_s_last, 'it/s')} in the last"
    rows = [
        ("Machine", escaped(facts.host.get("machine") or facts.host.get("system") or NOT_MEASURED)),
        ("Memory limit", size(found.limit_bytes)),
        ("Most that MLX held", size(found.peak_bytes)),
        ("Most that the trainer took", size(found.footprint_bytes)),
        ("Headroom", _headroom(found.headroom_bytes, found.limit_bytes)),
        ("Swap of the machine", f"{size(found.swap_first_bytes)} at first, {size(found.swap_most_bytes)} at most"),
        ("Speed", speeds if found.it_s_first is not None else NOT_MEASURED),
        ("Slept", f"{duration(found.slept_seconds)} in {counted(found.sleeps, 'sleep')}" if found.sleeps else "no"),
        ("Battery", _battery(found.battery_before, found.battery_after)),
    ]
    return ["## Hardware", "", *table(("What", "Value"), rows)]


def _headroom(left: int | None, limit: int | None) -> str:
    if left is None or not limit:
        return NOT_MEASURED
    amount = size(left) if left >= 0 else f"-{size(-left)}"
    return f"{amount} ({percent(left / limit)} of the limit)"


def _battery(before: float | None, after: float | None) -> str:
    if before is None and after is None:
        return NOT_MEASURED
    return f"{percent(before)} before, {percent(after)} after"


def origin_section(facts: Facts) -> list[str]:
    """Return versions and machine, and what could not be read."""
    known = [(escaped(name), escaped(value)) for name, value in (*facts.versions.items(), *facts.host.items())]
    lines = ["## Versions and machine", "", *(table(("What", "Value"), known) if known else [f"{NOT_MEASURED}"])]
    if facts.unread:
        lines += ["", "This report could not read:", "", *(f"- {escaped(line)}" for line in facts.unread)]
    return lines
