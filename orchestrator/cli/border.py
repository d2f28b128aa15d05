"""The border of the process: the verbs, and what an error becomes."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

import click

from jobs.errors import LqError
from orchestrator.cli import INTERRUPTED

VERBS = {
    "submit": ("orchestrator.cli.submit", "submit", "Check a job file and queue it."),
    "run": ("orchestrator.cli.submit", "run", "Submit, show live progress, exit as the job ends."),
    "check": ("orchestrator.cli.check", "check", "Rehearse jobs: will they fit, when will they be done."),
    "status": ("orchestrator.cli.status", "status", "Every live job and the last ones that ended."),
    "plan": ("orchestrator.cli.plan", "plan", "Will it fit, will it finish: the night ahead, without training."),
    "show": ("orchestrator.cli.show", "show", "Everything about one job."),
    "logs": ("orchestrator.cli.logs", "logs", "What a job's trainer says, attempt after attempt."),
    "wait": ("orchestrator.cli.wait", "wait", "Wait for jobs to end."),
    "pause": ("orchestrator.cli.turns", "pause", "Stop running jobs for now, with a checkpoint; or the queue."),
    "resume": ("orchestrator.cli.turns", "resume", "Let paused jobs go on; or the queue."),
    "hold": ("orchestrator.cli.turns", "hold", "Keep jobs that wait for their turn from running."),
    "release": ("orchestrator.cli.turns", "release", "Let held jobs take their turn again."),
    "move": ("orchestrator.cli.turns", "move", "Give jobs another place in the line."),
    "edit": ("orchestrator.cli.edit", "edit", "Change the settings of a job before it starts, in your editor."),
    "cancel": ("orchestrator.cli.control", "cancel", "Stop jobs for good; their checkpoints stay."),
    "retry": ("orchestrator.cli.control", "retry", "Queue failed or cancelled jobs again; they go on where they were."),
    "worker": ("orchestrator.cli.worker", "worker", "The process that looks after the jobs."),
    "report": ("orchestrator.cli.report", "report", "Write a job's report anew and say where it is."),
    "verify": ("orchestrator.cli.verify", "verify", "Check every file of a job."),
    "prune": ("orchestrator.cli.tidy", "prune", "Delete the checkpoints that need not stay."),
    "clean": ("orchestrator.cli.tidy", "clean", "Delete what old jobs left behind."),
    "compare": ("orchestrator.cli.compare", "compare", "Several jobs beside each other: settings, results, curves."),
    "notify": ("orchestrator.cli.notify", "notify", "Notification services."),
    "service": ("orchestrator.cli.service", "service", "Have a worker started after a login or a reboot."),
    "doctor": ("orchestrator.cli.doctor", "doctor", "Whether this machine can train all night."),
    "config": ("orchestrator.cli.config", "config", "What a job file may say; presets to begin one."),
    "demo": ("orchestrator.cli.demo", "demo", "The whole story on a tiny model, in a home of its own."),
}


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
            raise click.NoSuchCommand(error.command_name, possibilities=VERBS, ctx=ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, VERBS[verb][2]) for verb in VERBS])


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
        return INTERRUPTED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return INTERRUPTED
    except BrokenPipeError:
        return _pipe_closed()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        return _told(_click_line(error), 2, debug)
    except LqError as error:
        return _told(str(error), error.exit_code, debug)
    except Exception as error:  # noqa: BLE001 the border of the process
        return _told(f"unexpected: {type(error).__name__}: {error} (lq --debug … shows where)", 1, debug)


def _told(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"lq: {' '.join(line.split())}\n")
    return code


def _click_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lq"
    said = error.format_message().rstrip(".")
    return f"{said}{'' if said.endswith('?') else ';'} see: {path} --help"


def _pipe_closed() -> int:
    """End quietly when the reader of a pipe has gone, such as `head`."""
    sys.stderr.close()
    return 0
