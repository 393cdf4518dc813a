"""Where a study of many machines is kept: a PostgreSQL database that all of them reach.

SQLite is for one process alone, so it is refused here. A password is never shown, and best kept
out of the URL: the client library reads ``PGPASSWORD`` and ``~/.pgpass``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError, suggestion
from gclip.tuning.sqlite import quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from sqlalchemy import URL, Engine

EXAMPLE = "postgresql://user@host/database"
DRIVERS = ("psycopg", "psycopg2")
CONNECT_SECONDS = 10
LOCK_SECONDS = 60
"""So long may a process decide alone: a lock whose holder's machine lost power ends then."""

_SECRETS = ("password", "sslpassword")


class Unreachable(UsageError):
    """The database does not answer, or not to this user."""


def read_url(text: str) -> URL:
    """The storage that `text` names.

    Raises:
        UsageError: it is no URL, no PostgreSQL, or its driver is not installed.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    scheme, colon, _ = text.partition("://")
    kind, _, driver = scheme.partition("+")
    if colon and kind == "sqlite":
        raise UsageError(
            "SQLite is for one process, and several that share a file lose trials: use "
            f"gclip study run --workers on one machine, and a storage such as {EXAMPLE} on many"
        )
    if not colon or kind not in ("postgresql", "postgres"):
        what = f"{kind!r}" if colon else f"{_masked(text)!r}"
        near = suggestion(kind, ["postgresql"]) if colon else ""
        raise UsageError(f"a storage is a URL such as {EXAMPLE}, but got {what}{near}")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UsageError(
            f"a storage is a URL such as {EXAMPLE}, but this does not read: {_masked(text)!r}"
        ) from None
    if driver and driver not in DRIVERS:
        raise UsageError(
            f"unknown driver {driver!r}{suggestion(driver, DRIVERS)} "
            f"(choices: {', '.join(DRIVERS)}, or none to use the one that is installed)"
        )
    installed = [each for each in DRIVERS if importlib.util.find_spec(each) is not None]
    if not installed or (driver and driver not in installed):
        missing = f" the driver {driver}" if driver else " a driver"
        how = "" if driver == "psycopg2" else ': pip install "gclip[postgres]"'
        how = how or ": pip install psycopg2-binary"
        raise UsageError(f"a PostgreSQL storage needs{missing}, which is not installed{how}")
    return url.set(drivername=f"postgresql+{driver or installed[0]}")


def shown(url: URL) -> str:
    """The URL as it may be printed, and typed again where the password is known otherwise."""
    query = {key: value for key, value in url.query.items() if key not in _SECRETS}
    return url.set(drivername="postgresql", query=query)._replace(password=None).render_as_string()


def has_password(url: URL) -> bool:
    """Whether `shown` leaves something out."""
    return url.password is not None or any(key in url.query for key in _SECRETS)


@contextmanager
def connect(url: URL, *, create: bool = False, grace: int | None = None) -> Iterator[RDBStorage]:
    """The storage at `url`.

    Args:
        create: make Optuna's tables in a database that has none.
        grace: a trial whose worker was silent for so many seconds is stale.

    Raises:
        UsageError: the database cannot be reached or used, or (without `create`) has no studies.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    # Every session in UTC: Optuna compares heartbeats as local times, which jump in spring.
    usual: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "options": "-c timezone=UTC",
        "client_encoding": "utf8",
    }
    arguments = {key: value for key, value in usual.items() if key not in url.query}
    opened = None
    try:
        first = create_engine(url, connect_args=arguments, poolclass=NullPool)
        with _lock(first, "gclip") if create else contextlib.nullcontext():
            if not create and not inspect(first).has_table("studies"):
                raise UsageError(
                    f"there are no studies in {shown(url)}; gclip study create begins one"
                )
            with quiet(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                opened = RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs={"connect_args": arguments, "pool_pre_ping": True},
                    heartbeat_interval=None if grace is None else max(1, grace // 2),
                    grace_period=grace,
                    skip_table_creation=not create,
                )
    except SQLAlchemyError as error:
        raise Unreachable(f"cannot use the storage {shown(url)}: {cause(error)}") from error
    except RuntimeError as error:  # another Optuna's tables
        raise UsageError(f"cannot use the storage {shown(url)}: {error}") from error
    try:
        with quiet():
            yield opened
    finally:
        with contextlib.suppress(SQLAlchemyError):  # a server that has gone
            opened.remove_session()
        opened.engine.dispose()


@contextmanager
def study_lock(storage: RDBStorage, name: str) -> Iterator[None]:
    """Among all processes of the study `name`, one at a time is inside the ``with`` block."""
    with _lock(storage.engine, f"gclip/{name}"):
        yield


def find(storage: RDBStorage, url: URL, name: str) -> Study:
    """A study that exists; `UsageError` with a suggestion if there is none of this name."""
    import optuna

    known = sorted(optuna.get_all_study_names(storage))
    if name not in known:
        valid = f" (choices: {', '.join(known)})" if known else ": it holds none"
        raise UsageError(
            f"there is no study {name!r} in {shown(url)}{suggestion(name, known)}{valid}"
        )
    return optuna.load_study(study_name=name, storage=storage)


def cause(error: BaseException) -> str:
    """What went wrong in a database, in one line."""
    said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    lines = said.splitlines()
    several = [line for line in lines if line.startswith("- ")]  # one for each address of a host
    line = (several or lines)[-1 if several else 0].rpartition("failed: ")[2]
    return " ".join(line.removeprefix("FATAL:").split())


@contextmanager
def _lock(engine: Engine, name: str) -> Iterator[None]:
    """Hold one of PostgreSQL's advisory locks; it ends with its transaction, however that ends."""
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    limit = f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_SECONDS}s'"
    connection = engine.connect()
    try:
        connection.execute(text(limit))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
        yield
    finally:
        # The server has perhaps ended the session; what was done is done elsewhere, and stands.
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _masked(text: str) -> str:
    """Without what stands where a password would."""
    return re.sub(r":[^:@/]*@", ":***@", text)
