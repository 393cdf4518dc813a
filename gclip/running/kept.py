"""Where studies are kept on one machine: a SQLite file each, beside the runs, for one process.

Opening a study to run it makes its file; looking at one never does, as a mistyped path otherwise
would.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError, suggestion
from gclip.running.objectives import directions
from gclip.running.places import place_of
from gclip.running.trials import config_of, counted, summary_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial

SUFFIX = ".db"
_VARIED = {"strategy", "code", "lr", "seed"}  # from trial to trial
_NOT_OURS = "it holds a study that gclip did not make"
LONGEST_NAME = 200
"""Bytes of a study's name: file systems take 255, and figures and others are named after it."""


class UnreadableStudy(UsageError):
    """A study file that this gclip cannot use; the message names it."""


def study_file(store: Path, name: str) -> Path:
    """Where the study `name` is kept: beside the runs of `store`."""
    return store / "studies" / f"{name}{SUFFIX}"


@contextmanager
def open_study(
    store: Path,
    name: str,
    settings: dict[str, Any],
    objectives: Sequence[str] = ("accuracy",),
) -> Iterator[Study]:
    """The study `name` of `store`, new or as it was left, for this process alone.

    Args:
        settings: what makes trials comparable, JSON-serialisable. A study goes on only under the
            settings it was begun with.
        objectives: what it seeks; one of the settings, too.

    Raises:
        UsageError: another process runs the study, or it was begun with other settings.
    """
    from gclip.results.lock import hold

    check_name(name)
    path = study_file(store, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot keep a study in '{path.parent}': {error.strerror}") from error
    # Not with_suffix, for which a name may have a suffix of its own.
    with hold(path.parent / f"{name}.lock", exclusive=True, patience=0.0) as held:
        if held == "no":
            raise UsageError(f"the study {name!r} is being run by another process; wait for it")
        with quiet(), _storage(path, create=True) as storage:
            with _naming(path):
                _check_owner(storage, name)
            with _naming(path, but=UsageError):  # other settings than the file's
                study = begin(storage, name, settings, objectives)
            with _naming(path):
                _check_trials(study)
            yield study


def begin(
    storage: str | BaseStorage,
    name: str,
    settings: dict[str, Any],
    objectives: Sequence[str] = ("accuracy",),
) -> Study:
    """The study `name` of an Optuna storage, new or as it was left.

    Raises:
        UsageError: it was begun with other settings.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    study = optuna.create_study(
        storage=storage, study_name=name, directions=directions(objectives), load_if_exists=True
    )
    _check_settings(study, name, settings)
    if not study.metric_names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(objectives))
    return study


def check_name(name: str) -> None:
    """A study's name is a file's name, too, and is printed.

    Raises:
        UsageError: it would not stay in its folder, or has characters that cannot be printed, or
            is longer than `LONGEST_NAME`.
    """
    if not name or name.startswith(".") or any(c in '/\\\0:*?"<>|' for c in name):
        raise UsageError(
            f"a study's name is a file's name, such as norm-digits: no '/' or ':' in it, and no "
            f"'.' before it, but got {name!r}"
        )
    if not name.isprintable():
        raise UsageError(
            f"a study's name, such as norm-digits, has no control characters, but got {name!r}"
        )
    length = len(name.encode())
    if length > LONGEST_NAME:
        raise UsageError(
            f"a study's name is a file's name of at most {LONGEST_NAME} bytes, but {name[:40]!r}… "
            f"has {length}; give a shorter --name"
        )


def printable(text: str) -> str:
    """`text` with escapes for what a terminal would obey, such as ``\\x1b``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def studies_in(store: Path) -> dict[str, Path]:
    """The studies kept beside a store, by name; none where the folder does not exist."""
    folder = study_file(store, "").parent
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_study(store: Path, name: str) -> Path:
    """The file of a study that exists; `UsageError` with a suggestion if there is none."""
    known = studies_in(store)
    if name not in known:
        valid = f" (choices: {', '.join(known)})" if known else ": none was begun there"
        raise UsageError(f"there is no study {name!r} in '{store}'{suggestion(name, known)}{valid}")
    return known[name]


@contextmanager
def read_study(path: Path) -> Iterator[Study]:
    """A study that exists, to look at. Never creates a file, as a mistyped path otherwise would."""
    import optuna

    if not path.is_file():
        raise UnreadableStudy(f"there is no study in {_quoted(path)}")
    with quiet(), _naming(path), _storage(path) as storage:
        names = optuna.get_all_study_names(storage)
        if path.stem not in names:
            raise UsageError(f"it holds no {path.stem!r}")
        study = optuna.load_study(study_name=path.stem, storage=storage)
        if not isinstance(study.user_attrs.get("settings"), dict):
            raise UsageError(_NOT_OURS)
        _check_trials(study)
        yield study


def storage_url(path: Path) -> str:
    """The URL of a study file, for Optuna's own tools."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path)).render_as_string()


def summary(path: Path) -> dict[str, Any]:
    """A study at a glance: its name, how its trials ended, the best score and how.

    Raises:
        UnreadableStudy: the file cannot be used.
    """
    with read_study(path) as study:
        return summary_of(path.stem, counted(study))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own log lines, which would break the progress display."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.callback(optuna.logging.set_verbosity, before)
        yield


def _check_owner(storage: BaseStorage, name: str) -> None:
    """Raises `UsageError` for a file that somebody else keeps a study in."""
    import optuna

    names = optuna.get_all_study_names(storage)
    if not names:
        return
    if name not in names:
        raise UsageError(f"it holds no {name!r}")
    study = optuna.load_study(study_name=name, storage=storage)
    if "settings" not in study.user_attrs and study.get_trials(deepcopy=False):
        raise UsageError(_NOT_OURS)


def _check_trials(study: Study) -> None:
    """Raises an error of some kind for trials that do not read, or contradict themselves."""
    everything = study.get_trials(deepcopy=False)
    settings = study.user_attrs["settings"]
    for trial in everything:
        place_of(everything, trial)
        complete = trial.state.name == "COMPLETE"
        if complete or "config" in trial.user_attrs:
            config_of(trial)
            trained = trial.user_attrs["config"]
            for name in (settings.keys() & trained.keys()) - _VARIED:
                if settings[name] != trained[name]:
                    raise UsageError(
                        f"trial {trial.number} trained with {name} {trained[name]!r}, but the "
                        f"study is of {settings[name]!r}"
                    )
        if complete:
            _check_score(trial)
    summary_of(study.study_name, counted(study))


def _check_score(trial: FrozenTrial) -> None:
    """Raises `UsageError` for a complete trial whose accuracy cannot be."""
    score = float(trial.values[0])
    runs = trial.user_attrs.get("accuracies", [score])
    if not 0 <= score <= 1 or not math.isclose(sum(runs) / len(runs), score, abs_tol=1e-9):
        raise UsageError(f"trial {trial.number} has the accuracy {score:g}, and its runs {runs!r}")


def _check_settings(study: Study, name: str, settings: dict[str, Any]) -> None:
    begun = study.user_attrs.get("settings")
    wanted = json.loads(json.dumps(settings))
    if begun is None:
        study.set_user_attr("settings", wanted)
        return
    differing = sorted(k for k in begun.keys() | wanted.keys() if begun.get(k) != wanted.get(k))
    if differing:
        was, now = (
            ", ".join(f"{key} {each[key]!r}" if key in each else f"no {key}" for key in differing)
            for each in (begun, wanted)
        )
        raise UsageError(
            f"the study {name!r} was begun with {was}, not {now}; repeat it as it was, "
            "or give this one another --name"
        )


@contextmanager
def _storage(path: Path, *, create: bool = False) -> Iterator[RDBStorage]:
    """The storage in a file, which is made only if `create`."""
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy import QueuePool
    from sqlalchemy.exc import SQLAlchemyError

    def connect() -> sqlite3.Connection:
        return _connect(path, create=create)

    storage: RDBStorage | None = None
    try:
        with _naming(path):
            if create:
                _check_tables(path)
            # The file is opened here, and not by a URL, which would make something else of a path
            # with ? or % or { in it.
            storage = RDBStorage(
                "sqlite://",
                engine_kwargs={"creator": connect, "poolclass": QueuePool},
                skip_table_creation=not create,
            )
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
    left = path.with_name(f"{path.name}-journal").exists()
    mode = "rwc" if create else "rw" if left else "ro"
    file = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(file, uri=True, check_same_thread=False)


def _check_tables(path: Path) -> None:
    """Raises `UsageError` for a database of something else, before Optuna adds to it."""
    if not path.exists():
        return
    with contextlib.closing(_connect(path, create=False)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if tables and "studies" not in tables:
        raise UsageError("it is a database of something else")


@contextmanager
def _naming(path: Path, *, but: type[UsageError] = UnreadableStudy) -> Iterator[None]:
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
