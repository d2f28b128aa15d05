"""The command group of `lq`, and how errors become messages and exit codes."""

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

COMPLETE_VARIABLE = "_LQ_COMPLETE"
"""Environment variable that a shell sets to ask for completions."""

VERBS: dict[str, tuple[str, str]] = {
    "submit": ("submit", "Check job files and queue them."),
    "run": ("run", "Submit a job and show its progress until it ends."),
    "check": ("planning", "Check jobs with a dry run: memory, speed, end time, disk, data."),
    "status": ("status", "Show the worker, the queue and the last jobs."),
    "watch": ("status", "Show lq status and update it."),
    "plan": ("planning", "Estimate memory, duration and start times, without training."),
    "show": ("status", "Show everything about one job."),
    "logs": ("logs", "Show the log of a job."),
    "wait": ("run", "Wait until jobs have ended."),
    "pause": ("control", "Pause jobs, or the queue."),
    "resume": ("control", "Resume jobs, or the queue."),
    "move": ("edit", "Move jobs within the queue."),
    "edit": ("edit", "Edit the settings of a job that has not started."),
    "cancel": ("control", "Cancel jobs and keep their checkpoints."),
    "retry": ("control", "Queue failed or cancelled jobs again."),
    "worker": ("worker", "Run the worker in the foreground or background."),
    "report": ("results", "Write the report of a job and print its path."),
    "verify": ("files", "Verify every file of jobs."),
    "prune": ("files", "Delete checkpoints that are not needed."),
    "clean": ("files", "Delete the files of old jobs."),
    "chat": ("model", "Chat with the model of a job and its best adapter."),
    "generate": ("model", "Generate one answer with the model of a job."),
    "test": ("model", "Evaluate the weights of a job on its test set."),
    "fuse": ("model", "Fuse model and adapter into one model folder."),
    "compare": ("results", "Compare jobs: settings, results, loss curves."),
    "notify": ("notify", "List or test the notification services."),
    "service": ("worker", "Install the worker as a service."),
    "doctor": ("doctor", "Check whether this machine can train overnight."),
    "config": ("config", "Print schemas, list presets, write a job file."),
    "completion": ("config", "Print the shell completion script."),
    "demo": ("doctor", "Run the demo on a tiny model."),
}
"""Module in orchestrator/cli/commands/ and help of each verb, in the order of `lq --help`."""

ALIASES = {
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
    "hold": "pause",
    "release": "resume",
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
"""Verbs of other tools (pueue, Slurm, Docker, Determined), and the verb of lq that does the same."""


class Verbs(click.Group):
    """The verbs. A verb is imported when it is called, so that `lq status` does not load the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `lq --help`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"orchestrator.cli.commands.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or suggest one; click suggests only imported verbs."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.UsageError(_no_such_verb(error.command_name), ctx=ctx) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Complete the verb without importing it."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=text) for verb, (_, text) in VERBS.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


def _no_such_verb(typed: str) -> str:
    """Return an error for an unknown verb, with a suggestion if there is one."""
    if typed in ALIASES:
        return f"no verb '{typed}'; use lq {ALIASES[typed]}"
    if typed.isdecimal():
        suggestion = f"show {typed}"
    elif typed.endswith((".yaml", ".yml")):
        suggestion = f"submit {typed}"
    else:
        near = difflib.get_close_matches(typed, [*VERBS, *ALIASES], n=1)
        suggestion = ALIASES.get(near[0], near[0]) if near else ""
    return f"no verb '{typed}'" + (f"; did you mean 'lq {suggestion}'?" if suggestion else "")


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="lq", message="lq %(version)s")
def lq(debug: bool) -> None:
    """Queue LLM fine-tuning runs on this machine, and run them overnight without supervision.

    Start with lq submit config.yaml (a config of mlx_lm.lora), then lq status.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    debug = "--debug" in arguments
    try:
        code = lq.main(list(arguments), prog_name="lq", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader has closed the pipe, such as `head`
        sys.stderr.close()
        return 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _print_error(_usage_message(error, arguments), ExitCode.INVALID, debug)
    except LqError as error:
        return _print_error(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 the outermost handler of the process
        text = f"unexpected: {type(error).__name__}: {error} (traceback: lq --debug ...)"
        return _print_error(text, ExitCode.UNEXPECTED, debug)


def _print_error(text: str, code: int, debug: bool) -> int:
    if COMPLETE_VARIABLE in os.environ:  # a shell shows the prompt
        return code
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"lq: {' '.join(text.split())}\n")
    return code


def _usage_message(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return the message of click as one sentence that names the help of the verb."""
    context = getattr(error, "ctx", None)
    verb = next((word for word in arguments if word in VERBS), None)
    path = context.command_path if context is not None else f"lq {verb}" if verb else "lq"
    text = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    if path == "lq" and verb is not None and isinstance(error, click.NoSuchOption):
        text = f"option '{error.option_name}' goes after the verb: lq {verb} {error.option_name}"
    text = text[:1].lower() + text[1:]
    return f"{text}{'' if text.endswith('?') else ';'} see: {path} --help"
