"""The command group of `lq`, and how errors become messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import shutil
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

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Queue": {
        "submit": ("submit", "Check job files and queue them."),
        "run": ("run", "Submit a job and show its progress until it ends."),
        "check": ("planning", "Check jobs with a dry run: memory, speed, end time, disk, data."),
        "plan": ("planning", "Estimate memory, duration and start times, without training."),
        "status": ("status", "Show the worker, the queue and the last jobs."),
        "watch": ("status", "Show lq status and update it."),
        "wait": ("run", "Wait until jobs have ended."),
    },
    "Control": {
        "pause": ("control", "Pause jobs, or the queue."),
        "resume": ("control", "Resume jobs, or the queue."),
        "move": ("edit", "Move jobs within the queue."),
        "edit": ("edit", "Edit the settings of a job that has not started."),
        "cancel": ("control", "Cancel jobs and keep their checkpoints."),
        "retry": ("control", "Queue failed or cancelled jobs again."),
        "dismiss": ("control", "Take jobs that failed off the status view."),
        "extend": ("control", "Continue a succeeded job to more iterations."),
    },
    "Results": {
        "show": ("status", "Show everything about one job."),
        "logs": ("logs", "Show the log of a job."),
        "report": ("results", "Write the report of a job and print its path."),
        "compare": ("results", "Compare jobs: settings, results, loss curves."),
        "chat": ("model", "Chat with the model of a job and its best adapter."),
        "generate": ("model", "Generate one answer with the model of a job."),
        "test": ("model", "Evaluate the weights of a job on its test set."),
        "fuse": ("model", "Fuse model and adapter into one model folder."),
    },
    "Machine": {
        "worker": ("worker", "Run the worker in the foreground or background."),
        "service": ("worker", "Install the worker as a service."),
        "doctor": ("doctor", "Check whether this machine can train overnight."),
        "notify": ("notify", "List, add or test the notification services."),
        "demo": ("doctor", "Run the demo on a tiny model."),
    },
    "Files": {
        "config": ("config", "Print schemas, list presets, write a job file."),
        "verify": ("files", "Verify every file of jobs."),
        "prune": ("files", "Delete checkpoints that are not needed."),
        "clean": ("files", "Delete the files of old jobs."),
        "completion": ("config", "Print the shell completion script."),
    },
}
"""Module in orchestrator/cli/commands/ and help of each verb, in the order of `lq --help`."""

VERBS = {verb: entry for verbs in GROUPS.values() for verb, entry in verbs.items()}

_ALIASES_OF = {
    "submit": "add enqueue queue",
    "run": "train",
    "status": "list ls ps jobs top",
    "show": "info describe",
    "logs": "log follow tail",
    "cancel": "kill abort remove",
    "pause": "stop hold",
    "resume": "release start continue",
    "retry": "restart",
    "move": "switch",
    "clean": "delete rm",
    "plan": "estimate",
    "config init": "init",
    "check": "validate",
    "worker": "daemon",
}
ALIASES = {alias: verb for verb, aliases in _ALIASES_OF.items() for alias in aliases.split()}
"""Verbs of other tools (pueue, Slurm, Docker, Determined), and the verb of lq that does the same."""


EXAMPLES = {
    "submit": ("lq submit qwen.yaml", "lq submit qwen.yaml --set learning_rate=1e-5 --set lq.priority=5"),
    "run": ("lq run qwen.yaml",),
    "check": ("lq check qwen.yaml", "lq check --queue"),
    "plan": ("lq plan", "lq plan tonight/*.yaml"),
    "status": ("lq status", "lq status --all --json"),
    "watch": ("lq watch",),
    "wait": ("lq wait 3 4 && lq fuse 4", "lq wait --any --timeout 3600"),
    "pause": ("lq pause 3", "lq pause --queue"),
    "resume": ("lq resume 3", "lq resume --queue"),
    "move": ("lq move 7 --first", "lq move 5-7 --after 3"),
    "edit": ("EDITOR=nano lq edit 4",),
    "cancel": ("lq cancel 3", "lq cancel --group sweep"),
    "retry": ("lq retry 3", "lq retry 3 --from 400", "lq retry 3 --set learning_rate=1e-4"),
    "extend": ("lq extend 3 --iters 1200",),
    "dismiss": ("lq dismiss 3", "lq dismiss --failed"),
    "show": ("lq show 3",),
    "logs": ("lq logs -f", "lq logs 3 --grep 'loss|spike' --since 2h"),
    "report": ("lq report 3 --open",),
    "compare": ("lq compare 3 4 5", "lq compare --group sweep"),
    "chat": ("lq chat 3", "lq chat 3 -- --temp 0.7 --max-tokens 500"),
    "generate": ('lq generate 3 -p "What is LoRA?"', "lq generate 3 --base < prompt.txt"),
    "test": ("lq test 3", "lq test 3 --checkpoint last"),
    "fuse": ("lq fuse 3 --save-path models/qwen-tuned", "lq fuse 3 -- --dequantize"),
    "worker": ("lq worker start", "lq worker restart"),
    "service": ("lq service install",),
    "doctor": ("lq doctor",),
    "notify": ("lq notify add ntfy://ntfy.sh/my-topic", "lq notify test"),
    "demo": ("lq demo",),
    "config": ("lq config init small", "lq config schema > lq.schema.json"),
    "verify": ("lq verify 3", "lq verify --all"),
    "prune": ("lq prune --all --dry-run",),
    "clean": ("lq clean --older-than 2w --keep-adapters",),
}


class Verbs(click.Group):
    """The verbs. A verb is imported when it is called, so that `lq status` does not load the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `lq --help`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb, and add its examples to its help."""
        if cmd_name == "help":
            return help_
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"orchestrator.cli.commands.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        examples = EXAMPLES.get(cmd_name, ())
        if examples:
            command.epilog = "\n  ".join(("\b\nExample:" if len(examples) == 1 else "\b\nExamples:", *examples))
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

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs before the options."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by group, without importing them."""
        for group, verbs in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(verb, text) for verb, (_, text) in verbs.items()], col_max=12)


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


def _complete_verb(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    command: click.Command | None = lq
    for word in ctx.params.get("words") or ():
        command = command.get_command(ctx, word) if isinstance(command, click.Group) else None
    return command.shell_complete(click.Context(command), incomplete) if isinstance(command, click.Group) else []


@click.command(name="help", add_help_option=False)
@click.argument("words", metavar="[VERB]", nargs=-1, shell_complete=_complete_verb)
@click.pass_context
def help_(context: click.Context, words: Sequence[str]) -> None:
    """Show the options and examples of a verb."""
    command: click.Command = lq
    at = click.Context(lq, info_name="lq", **lq.context_settings)
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"'{at.command_path}' has no verb '{word}'", at)
        name, child, _ = command.resolve_command(at, [word])
        assert child is not None
        command, at = child, click.Context(child, info_name=name, parent=at)
    click.echo(command.get_help(at))


@click.command(
    cls=Verbs,
    subcommand_metavar="VERB [ARGS]...",
    epilog="lq help VERB shows the options and examples of a verb.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "terminal_width": max(30, min(shutil.get_terminal_size().columns, 112) - 2),  # click stops at 50 by itself
    },
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(None, "-V", "--version", package_name="lq", message="lq %(version)s")
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
    except SystemExit as error:
        if error.code == 1 and COMPLETE_VARIABLE not in os.environ:
            return 0  # how click ends when the reader has closed the pipe, such as `head`
        raise
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
    for line in text.splitlines():
        shown = "".join(char if char.isprintable() else " " for char in line)  # it can repeat what was typed
        sys.stderr.write(f"lq: {' '.join(shown.split())}\n")
    return code


def _usage_message(error: click.ClickException, arguments: Sequence[str]) -> str:
    """Return the message of click as one sentence that names the help of the verb."""
    context = getattr(error, "ctx", None)
    verb = next((word for word in arguments if word in VERBS), None)
    path = context.command_path if context is not None else f"lq {verb}" if verb else "lq"
    text = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    text = re.sub(r"\.? \(Did you mean one of: (.*)\?\)", r"; did you mean one of \1?", text)
    text = text.replace("No such command", "no verb")
    if path == "lq" and verb is not None and isinstance(error, click.NoSuchOption):
        text = f"option '{error.option_name}' goes after the verb: lq {verb} {error.option_name}"
    text = re.sub(r"[\w+.-]+://[^\s'\"()]+", "URL", text[:1].lower() + text[1:])  # it can contain a password
    return f"{text}{'' if text.endswith('?') else ';'} see: {path} --help"
