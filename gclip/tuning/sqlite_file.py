"""A SQLite file that holds a study, opened by one process; what goes wrong names the file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.core.files import what_is_at
from gclip.errors import UsageError
from gclip.text.streams import printable

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


_compatible: set[str] = set()
"""Versions of Optuna's tables that Optuna has called its own in this process."""


class UnreadableStudy(UsageError):
    """A study file that this gclip cannot use; the message names it."""


@contextmanager
def storage_in(path: Path, *, create: bool = False) -> Iterator[RDBStorage]:
    """The storage in a file, which is made only if `create`."""
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy import QueuePool
    from sqlalchemy.exc import SQLAlchemyError

    def connect() -> sqlite3.Connection:
        return _connect(path, create=create)

    storage: RDBStorage | None = None
    try:
        with naming(path):
            if create:
                _check_tables(path)
            # The file is opened here, and not by a URL, which would make something else of a path
            # with ? or % or { in it.
            schema = _schema_of(path)
            storage = RDBStorage(
                "sqlite://",
                engine_kwargs={"creator": connect, "poolclass": QueuePool},
                skip_table_creation=not create,
                skip_compatibility_check=schema in _compatible,
            )
            if schema := schema or _schema_of(path):
                _compatible.add(schema)
        yield storage
    except (SQLAlchemyError, StorageInternalError, sqlite3.Error) as error:
        raise _unreadable(path, error) from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """A connection to a file, which is made only if `create`, and else not even written to."""
    # But for what a killed process left half written: to read is then to undo that first.
    has_journal = path.with_name(f"{path.name}-journal").exists()
    mode = "rwc" if create else "rw" if has_journal else "ro"
    file = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(file, uri=True, check_same_thread=False)


def _schema_of(path: Path) -> str:
    """Which version of Optuna's tables a file has; empty where it has none yet.

    Optuna reads all its migrations each time that it compares this with its own, which takes longer
    than to read a study.
    """
    if not path.is_file():
        return ""
    with contextlib.closing(_connect(path, create=False)) as database:
        try:
            found = database.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return ""
    return str(found[0]) if found else ""


def _check_tables(path: Path) -> None:
    """Raises `UsageError` for a database of something else, before Optuna adds to it."""
    if not os.path.exists(path):
        return
    if not os.path.isfile(path):
        raise UsageError(f"it is {what_is_at(path)}, not a file")
    with contextlib.closing(_connect(path, create=False)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if tables and "studies" not in tables:
        raise UsageError("it is a database of something else")


@contextmanager
def naming(path: Path, *, but: type[UsageError] = UnreadableStudy) -> Iterator[None]:
    """Whatever a file makes of those who read it, they say which file it was.

    What reads it expects what gclip wrote, and a damaged or a foreign file may hold anything.

    Args:
        but: errors that speak for themselves.
    """
    try:
        yield
    except but:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> UnreadableStudy:
    from sqlalchemy.exc import SQLAlchemyError

    deepest: BaseException = error
    while deepest.__cause__ is not None and not isinstance(deepest, SQLAlchemyError):
        deepest = deepest.__cause__  # Optuna's words for it do not say what it was
    said = str(getattr(deepest, "orig", None) or deepest).strip() or type(deepest).__name__
    if isinstance(deepest, KeyError):
        said = f"{said} is missing"
    return UnreadableStudy(
        f"the study file {_quoted(path)} cannot be used: {printable(said.splitlines()[0])}"
    )


def _quoted(path: Path) -> str:
    return f"'{printable(str(path))}'"


def storage_url(path: Path) -> str:
    """The URL of a study file, for Optuna's own tools."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()
