"""A PostgreSQL server for tests: the one that a variable names, else one started for them; and a
look at its studies."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.tuning.postgres import connect, find, read_url

if TYPE_CHECKING:
    from optuna import Study

VARIABLE = "GCLIP_POSTGRES"


class NoServer(Exception):
    """There is no PostgreSQL to test with; the message says what would help."""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a database to write into."""
    if not any(map(importlib.util.find_spec, ("psycopg", "psycopg2"))):
        raise NoServer('no driver for PostgreSQL: pip install "gclip[postgres]"')
    if VARIABLE in os.environ:
        yield os.environ[VARIABLE]
        return
    initdb, server = _program("initdb"), _program("postgres")
    folder = Path(tempfile.mkdtemp(prefix="gclip-postgres-"))
    user = _user()
    if user is not None:
        shutil.chown(folder, user)
    data = folder / "data"
    # No network: a socket in a folder of its own cannot be in anybody's way.
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder), "-D", str(data)]
    try:
        subprocess.run(
            [
                initdb,
                "-D",
                data,
                "-U",
                "gclip",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            user=user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        running = subprocess.Popen(
            [server, *options],
            user=user,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(folder / ".s.PGSQL.5432", running)
            yield f"postgresql://gclip@/postgres?host={folder}"
        finally:
            running.send_signal(signal.SIGINT)  # its "fast" way to stop
            running.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def read_study_at(text: str, name: str) -> Iterator[Study]:
    """A study of the storage with the URL `text`, to look at."""
    url = read_url(text)
    with connect(url) as storage:
        yield find(storage, url, name)


def _program(name: str) -> str:
    """One of PostgreSQL's programs; Debian keeps most of them out of the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name) or next(
        (str(folder / name) for folder in folders if (folder / name).is_file()), None
    )
    if found is None:
        raise NoServer(
            f"no PostgreSQL here: install Debian's package postgresql, or let {VARIABLE} be the "
            "URL of a database to write into"
        )
    return found


def _user() -> str | None:
    """Who the server runs as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NoServer("PostgreSQL does not run as root, and there is no other user here")


def _wait_for(socket: Path, server: subprocess.Popen[bytes]) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    url = read_url(f"postgresql://gclip@/postgres?host={socket.parent}")
    deadline = time.monotonic() + 30
    while True:
        engine = create_engine(url)
        try:
            engine.connect().close()
            return
        except OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise NoServer("the PostgreSQL that is installed here does not start") from None
            time.sleep(0.05)
        finally:
            engine.dispose()
