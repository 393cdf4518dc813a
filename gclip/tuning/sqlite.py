"""Where studies are kept on one machine: a SQLite file each, beside the runs, for one process.

Opening a study to run it makes its file; looking at one never does, as a mistyped path otherwise
would.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.core.files import what_is_at
from gclip.errors import UsageError, suggestion
from gclip.text.streams import printable
from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.objectives import directions, metric_of_study, write_metric
from gclip.tuning.sqlite_file import UnreadableStudy, naming, storage_in
from gclip.tuning.trials import counted, summary_of
from gclip.tuning.verification import NOT_OURS, check_owner, check_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

SUFFIX = ".db"
LONGEST_NAME = 200
"""Bytes of a study's name: file systems take 255, and figures and others are named after it."""


def study_file(store: Path, name: str) -> Path:
    """Where the study `name` is kept: beside the runs of `store`."""
    return store / "studies" / f"{name}{SUFFIX}"


@contextmanager
def open_study(
    store: Path,
    name: str,
    settings: dict[str, Any],
    objectives: Sequence[str] = ("accuracy",),
    metric: Metric = ACCURACY,
) -> Iterator[Study]:
    """The study `name` of `store`, new or as it was left, for this process alone.

    Args:
        settings: what makes trials comparable, JSON-serialisable. A study goes on only under the
            settings it was begun with.
        objectives: what it seeks; one of the settings, too.
        metric: what the first of them is.

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
    with hold(path.with_suffix(".lock"), exclusive=True, patience=0.0) as held:
        if held == "no":
            raise UsageError(f"the study {name!r} is being run by another process; wait for it")
        with quiet(), storage_in(path, create=True) as storage:
            with naming(path):
                check_owner(storage, name)
            with naming(path, but=UsageError):  # other settings than the file's
                study = begin(storage, name, settings, objectives, metric)
            with naming(path):
                check_trials(study)
            yield study


def begin(
    storage: str | BaseStorage,
    name: str,
    settings: dict[str, Any],
    objectives: Sequence[str] = ("accuracy",),
    metric: Metric = ACCURACY,
) -> Study:
    """The study `name` of an Optuna storage, new or as it was left.

    Args:
        storage: Optuna's.
        name: of the study.
        settings: that decide what its trials are.
        objectives: that it seeks.
        metric: what the first of them is.

    Raises:
        UsageError: it was begun with other settings, or for a metric with another direction.
    """
    import optuna
    from optuna.exceptions import ExperimentalWarning

    wanted = directions(objectives, metric)
    study = optuna.create_study(
        storage=storage, study_name=name, directions=wanted, load_if_exists=True
    )
    _check_settings(study, name, settings)
    begun = [each.name.lower() for each in study.directions]
    if begun != wanted:
        raise UsageError(
            f"the study {name!r} was begun to {begun[0]} its score, but of {metric.name} "
            f"{metric.better} is better; give this one another --name"
        )
    write_metric(study, metric)
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

    if not os.path.isfile(path):
        found = what_is_at(path)
        but = "" if found == "not there" else f": it is {found}, not a file"
        raise UnreadableStudy(f"there is no study in '{printable(str(path))}'{but}")
    with quiet(), naming(path), storage_in(path) as storage:
        names = optuna.get_all_study_names(storage)
        if path.stem not in names:
            raise UsageError(f"it holds no {path.stem!r}")
        study = optuna.load_study(study_name=path.stem, storage=storage)
        if not isinstance(study.user_attrs.get("settings"), dict):
            raise UsageError(NOT_OURS)
        check_trials(study)
        yield study


def summary(path: Path) -> dict[str, Any]:
    """A study at a glance: its name, how its trials ended, the best score and how.

    Raises:
        UnreadableStudy: the file cannot be used.
    """
    with read_study(path) as study:
        return summary_of(path.stem, counted(study), metric_of_study(study))


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own log lines, which would break the progress display."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with contextlib.ExitStack() as stack:
        stack.callback(optuna.logging.set_verbosity, before)
        yield


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
