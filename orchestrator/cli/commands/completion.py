"""`lq completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from orchestrator.cli.verbs import COMPLETE_VARIABLE

INSTALLATION = """\b
bash  eval "$(lq completion bash)"    in ~/.bashrc (needs bash 4.4)
zsh   eval "$(lq completion zsh)"     in ~/.zshrc, below compinit
fish  lq completion fish | source     in ~/.config/fish/config.fish
"""


@click.command(epilog=INSTALLATION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell completion script."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(click.Command("lq"), {}, "lq", COMPLETE_VARIABLE).source(), nl=False)
