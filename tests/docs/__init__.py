"""The documentation: generated pages and pictures, the recorded demo, and tests that run what the pages show.

`make docs` writes the generated files and builds the site; `make picture` records docs/demo.svg.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.docs import command_line, configuration, data_path, exit_codes, json_reference, packages, states

GENERATORS: dict[str, Callable[[], str]] = {
    command_line.PAGE: command_line.page,
    configuration.PAGE: configuration.page,
    packages.PAGE: packages.page,
    states.PAGE: states.page,
    data_path.PAGE: data_path.page,
    json_reference.PAGE: json_reference.page,
    exit_codes.PAGE: exit_codes.page,
}
"""The text of each generated page or picture, by its path relative to the repository."""
