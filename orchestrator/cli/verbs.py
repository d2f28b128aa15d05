"""The border of the process: the verbs, and what an error becomes."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobs.model.errors import LqError
from jobs.model.exit_codes import ExitCode

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETING = "_LQ_COMPLETE"
"""Set where a shell asks what could be typed: whatever goes wrong then, nothing is said in the midst of its prompt."""

VERBS = {
    "submit": ("orchestrator.cli.commands.submit", "submit", "Check a job file and queue it."),
    "run": ("orchestrator.cli.commands.submit", "run", "Submit, show live progress, exit as the job ends."),
    "check": ("orchestrator.cli.commands.check", "check", "Rehearse jobs: will they fit, when will they be done."),
    "status": (
        "orchestrator.cli.commands.status",
        "status",
        "The night at a glance: what runs, what is to come, what has ended.",
    ),
    "watch": ("orchestrator.cli.commands.watch", "watch", "The same, drawn anew where something changed."),
    "plan": (
        "orchestrator.cli.commands.plan",
        "plan",
        "Will it fit, will it finish: the night ahead, without training.",
    ),
    "show": ("orchestrator.cli.commands.show", "show", "Everything about one job."),
    "logs": ("orchestrator.cli.commands.logs", "logs", "What a job's trainer says, attempt after attempt."),
    "wait": ("orchestrator.cli.commands.wait", "wait", "Wait for jobs to end."),
    "pause": (
        "orchestrator.cli.commands.turns",
        "pause",
        "Stop running jobs for now, with a checkpoint; or the queue.",
    ),
    "resume": ("orchestrator.cli.commands.turns", "resume", "Let paused jobs go on; or the queue."),
    "hold": ("orchestrator.cli.commands.turns", "hold", "Keep jobs that wait for their turn from running."),
    "release": ("orchestrator.cli.commands.turns", "release", "Let held jobs take their turn again."),
    "move": ("orchestrator.cli.commands.turns", "move", "Give jobs another place in the line."),
    "edit": (
        "orchestrator.cli.commands.edit",
        "edit",
        "Change the settings of a job before it starts, in your editor.",
    ),
    "cancel": ("orchestrator.cli.commands.cancel", "cancel", "Stop jobs for good; their checkpoints stay."),
    "retry": (
        "orchestrator.cli.commands.cancel",
        "retry",
        "Queue failed or cancelled jobs again; they go on where they were.",
    ),
    "worker": ("orchestrator.cli.commands.worker", "worker", "The process that looks after the jobs."),
    "report": ("orchestrator.cli.commands.report", "report", "Write a job's report anew and say where it is."),
    "verify": ("orchestrator.cli.commands.verify", "verify", "Check every file of a job."),
    "prune": ("orchestrator.cli.commands.clean", "prune", "Delete the checkpoints that need not stay."),
    "clean": ("orchestrator.cli.commands.clean", "clean", "Delete what old jobs left behind."),
    "chat": ("orchestrator.cli.commands.artifacts", "chat", "Chat with a job's model and its best adapter."),
    "generate": ("orchestrator.cli.commands.artifacts", "generate", "Ask a job's model once."),
    "test": ("orchestrator.cli.commands.artifacts", "test", "Measure a job's weights on its test rows."),
    "fuse": ("orchestrator.cli.commands.artifacts", "fuse", "Write a job's model and adapter as one model folder."),
    "compare": (
        "orchestrator.cli.commands.compare",
        "compare",
        "Several jobs beside each other: settings, results, curves.",
    ),
    "notify": ("orchestrator.cli.commands.notify", "notify", "Notification services."),
    "service": ("orchestrator.cli.commands.service", "service", "Have a worker started after a login or a reboot."),
    "doctor": ("orchestrator.cli.commands.doctor", "doctor", "Whether this machine can train all night."),
    "config": ("orchestrator.cli.commands.config", "config", "What a job file may say; presets to begin one."),
    "completion": (
        "orchestrator.cli.commands.completion",
        "completion",
        "Have a shell complete verbs, ids, groups, presets.",
    ),
    "demo": ("orchestrator.cli.commands.demo", "demo", "The whole story on a tiny model, in a home of its own."),
}


ELSEWHERE = {
    "add": "submit",
    "enqueue": "submit",
    "queue": "submit",
    "train": "run",
    "list": "status",
    "ls": "status",
    "ps": "status",
    "jobs": "status",
    "top": "status",
    "info": "show",
    "describe": "show",
    "log": "logs",
    "follow": "logs",
    "tail": "logs",
    "kill": "cancel",
    "stop": "pause",
    "abort": "cancel",
    "remove": "cancel",
    "start": "resume",
    "continue": "resume",
    "restart": "retry",
    "switch": "move",
    "delete": "clean",
    "rm": "clean",
    "estimate": "plan",
    "init": "config init",
    "validate": "check",
    "daemon": "worker",
    "help": "--help",
}
"""What neighbours call a verb (pueue, Slurm, Docker, Determined), and what it is here."""


class Verbs(click.Group):
    """The verbs; each is imported when it is called, so that `lq status` pays for nothing else."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module, name, _ = VERBS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or suggest one: click looks for the nearest among the imported, and none is."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.UsageError(no_verb(error.command_name), ctx=ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Offer the verbs without importing them."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=VERBS[verb][2]) for verb in VERBS if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb][2]) for verb in VERBS])


def no_verb(typed: str) -> str:
    """Say that there is no such verb, and what was meant.

    Args:
        typed: in the place of the verb.
    """
    if typed.isdecimal():
        return f"no verb '{typed}'; did you mean 'lq show {typed}'?"
    if typed.endswith((".yaml", ".yml")):
        return f"no verb '{typed}'; did you mean 'lq submit {typed}'?"
    near = [ELSEWHERE[typed]] if typed in ELSEWHERE else difflib.get_close_matches(typed, [*VERBS, *ELSEWHERE], n=1)
    meant = ELSEWHERE.get(near[0], near[0]) if near else None
    return f"no verb '{typed}'" + (f"; did you mean 'lq {meant}'?" if meant is not None else "")


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="lq", message="lq %(version)s")
def lq(debug: bool) -> None:
    """Queue LLM fine-tuning runs on this machine, and have them looked after all night.

    First: lq submit config.yaml (a file that mlx_lm.lora -c takes, as it is), then: lq status.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    debug = "--debug" in arguments
    try:
        code = lq.main(list(arguments), prog_name="lq", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _told(_click_line(error, arguments), ExitCode.INVALID, debug)
    except LqError as error:
        return _told(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 the border of the process
        return _told(
            f"unexpected: {type(error).__name__}: {error} (lq --debug … shows where)", ExitCode.UNEXPECTED, debug
        )


def _told(line: str, code: int, debug: bool) -> int:
    if COMPLETING in os.environ:
        return code
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"lq: {' '.join(line.split())}\n")
    return code


def _click_line(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return what click says as lq says things: in one sentence, with where to read on."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _typed_verb(arguments)
    said = _misplaced(error, arguments) if path == "lq" else None
    said = said or error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    said = said[:1].lower() + said[1:]
    return f"{said}{'' if said.endswith('?') else ';'} see: {path} --help"


def _typed_verb(arguments: Sequence[str]) -> str:
    """Return the verb that was typed, for an error that does not say where it arose."""
    return next((f"lq {word}" for word in arguments if word in VERBS), "lq")


def _misplaced(error: click.ClickException, arguments: Sequence[str]) -> str | None:
    """Say where an option belongs that was typed before the verb."""
    verb = next((word for word in arguments if word in VERBS), None)
    if not isinstance(error, click.NoSuchOption) or verb is None:
        return None
    return f"option '{error.option_name}' stands after the verb: lq {verb} {error.option_name}"


def _pipe_closed() -> int:
    """End quietly when the reader of a pipe has gone, such as `head`."""
    sys.stderr.close()
    return 0
