"""completion: the script for a shell, and what the shell is told to offer: ids, groups, presets.

A shell calls `lq` for every completion, so only what is asked for is imported, nothing is made, and nothing is printed
but what can be typed. Verbs and options come from click.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from jobs.model.states import ENDED, LIVE, Status
from orchestrator.cli.verbs import COMPLETING
from orchestrator.core.paths import Home

if TYPE_CHECKING:
    from orchestrator.store.completion import Named

APPLIES: dict[str, frozenset[Status]] = {
    "pause": frozenset({Status.QUEUED, Status.RUNNING, Status.WAITING}),
    "resume": frozenset({Status.HELD, Status.PAUSED, Status.WAITING}),
    "hold": frozenset({Status.QUEUED, Status.WAITING}),
    "release": frozenset({Status.HELD, Status.PAUSED}),
    "move": LIVE,
    "edit": frozenset({Status.HELD, Status.QUEUED}),
    "cancel": LIVE,
    "retry": frozenset({Status.FAILED, Status.CANCELLED}),
    "clean": ENDED,
    "chat": ENDED,
    "fuse": ENDED,
}
"""States of the jobs that a verb is for; every job, where a verb is not here."""

# click's own needs bash 4.4, and macOS has 3.2. That one knows neither `nosort` nor `compopt`.
BASH = """\
_lq_completion() {
    local IFS=$'\\n' response answer
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _LQ_COMPLETE=bash_complete "$1" 2>/dev/null)
    COMPREPLY=()
    for answer in $response; do
        case $answer in
            plain,*) printf -v answer %q "${answer#plain,}"; COMPREPLY+=("$answer") ;;
            dir,*) type compopt >/dev/null 2>&1 && compopt -o dirnames ;;
            file,*) type compopt >/dev/null 2>&1 && compopt -o default ;;
        esac
    done
    return 0
}
complete -o nosort -F _lq_completion lq 2>/dev/null || complete -o default -F _lq_completion lq
"""


# click's own cuts what is said of a choice at its first comma, and has fish sort the ids
FISH = """\
function _lq_completion
    set -l answers (env _LQ_COMPLETE=fish_complete COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \\
        lq 2>/dev/null)
    for answer in $answers
        set -l parts (string split -m 1 "," -- $answer)
        switch $parts[1]
            case plain
                printf '%s\\n' $parts[2]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
        end
    end
end
complete --no-files --keep-order --command lq --arguments "(_lq_completion)"
"""

WHERE = """\b
bash  eval "$(lq completion bash)"    in ~/.bashrc (macOS: ~/.bash_profile)
zsh   eval "$(lq completion zsh)"     in ~/.zshrc, below compinit
fish  lq completion fish | source     in ~/.config/fish/config.fish
"""


@click.command(epilog=WHERE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what has a shell complete verbs, options, job ids, groups and presets."""
    click.echo(script(shell), nl=False)


def script(shell: str) -> str:
    """Return what a shell has to read.

    Args:
        shell: bash, zsh or fish.
    """
    if shell == "zsh":
        return get_completion_class("zsh")(click.Command("lq"), {}, "lq", COMPLETING).source()
    return {"bash": BASH, "fish": FISH}[shell]


def job_ids(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Return the ids that begin so and that the verb is for, live ones first, the newest first, but for those typed."""
    verb = ctx.info_name or ""
    chosen = [job for job in _jobs() if job.status in APPLIES.get(verb, frozenset(Status))]
    typed = _typed(ctx)
    return [
        CompletionItem(str(job.id), help=f"{job.name}, {job.status}")
        for job in sorted(chosen, key=lambda job: _rank(job.status))
        if str(job.id).startswith(incomplete) and str(job.id) not in typed
    ]


def groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the groups that begin so, the newest first, with how many jobs they have."""
    counts: dict[str, int] = {}
    for job in _jobs():
        if job.group is not None:
            counts[job.group] = counts.get(job.group, 0) + 1
    return [
        CompletionItem(name, help=f"{count} job{'s' * (count != 1)}")
        for name, count in counts.items()
        if name.startswith(incomplete)
    ]


def preset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return the presets that begin so, with what they are for."""
    from configs.preset_files import presets

    return [CompletionItem(one.name, help=one.summary) for one in presets() if one.name.startswith(incomplete)]


def schema_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Return what begins so and has a schema."""
    from orchestrator.results.catalogue import NAMES

    return [CompletionItem(name, help=of) for name, of in NAMES.items() if name.startswith(incomplete)]


def _jobs() -> Sequence[Named]:
    """Return the newest jobs of this user's home."""
    from orchestrator.store.completion import named_jobs

    return named_jobs(Home.of(os.environ).store)


def _rank(status: str) -> tuple[bool, bool]:
    return status in ENDED, status != Status.RUNNING


def _typed(ctx: click.Context) -> set[str]:
    """Return the values of arguments that stand on the command line already."""
    given: set[str] = set()
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if isinstance(param, click.Argument) and value is not None:
            given |= {str(one) for one in (value if isinstance(value, list | tuple) else [value])}
    return given
