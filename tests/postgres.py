"""A private PostgreSQL server for tests: made with initdb in a temporary folder, reached by a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

DEBIAN = Path("/usr/lib/postgresql")
"""Debian keeps initdb and postgres out of PATH."""

START_S = 60.0


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL server's programs; None if none is installed."""
    on_path = shutil.which("initdb")
    debian = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name))
    places = [*([Path(on_path)] if on_path is not None else []), *debian]
    return places[-1].resolve().parent if places else None


class Cluster:
    """A running server and its folder. Leave the `with` block to stop it and to delete the folder."""

    def __init__(self, binaries: Path) -> None:
        """Create the folder; the server starts in `__enter__`."""
        self._binaries = binaries
        self._folder = Path(tempfile.mkdtemp(prefix="lq-pg-", dir="/tmp"))  # a socket's path has at most 107 bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def __enter__(self) -> Self:
        """Create the cluster and start the server."""
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server at once and delete everything."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # PostgreSQL's immediate shutdown
            self._process.wait(START_S)
        shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._databases += 1
        name = f"lq{self._databases}"
        subprocess.run(self._command("createdb", name), check=True)
        return name

    def url(self, database: str) -> str:
        """Return the URL of a database for SQLAlchemy."""
        return f"postgresql+psycopg://lq@/{database}?host={self._folder}"

    def schema(self, database: str) -> str:
        """Return the statements that create a database's schema, as pg_dump writes them."""
        command = self._command("pg_dump", "--schema-only", database)
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return "\n".join(line for line in lines if not line.startswith("\\"))  # \restrict has a random key

    def _start(self) -> None:
        user, log = _unprivileged(), self._folder / "log"
        if user:
            os.chown(self._folder, pwd.getpwnam(user["user"]).pw_uid, -1)
        data = str(self._folder / "data")
        options = ["--auth=trust", "--username=lq", "--no-locale", "--encoding=UTF8", "--no-sync"]
        initdb = [str(self._binaries / "initdb"), *options, data]
        made = subprocess.run(initdb, cwd=self._folder, capture_output=True, text=True, **user)
        assert made.returncode == 0, made.stderr
        server = [str(self._binaries / "postgres"), "-D", data, "-k", str(self._folder)]
        server += ["-c", "listen_addresses=", "-c", "fsync=off"]
        with log.open("wb") as output:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                server, cwd=self._folder, stdout=output, stderr=output, start_new_session=True, **user
            )
        self._process = process
        deadline = time.monotonic() + START_S
        while subprocess.run(self._command("pg_isready", "-q")).returncode != 0:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()

    def _command(self, program: str, *words: str) -> list[str]:
        return [str(self._binaries / program), "--host", str(self._folder), "--username", "lq", *words]


def _unprivileged() -> dict[str, Any]:
    """Return the arguments for subprocess under which PostgreSQL, which refuses to run as root, starts."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in names else "nobody"
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
