"""What is in a store, and is it whole? Everything is read and verified, and nothing is changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gclip.core.files import what_is_at
from gclip.errors import UsageError
from gclip.results.checkpoints import FOLDER, SavedRuns, checkpoint_files
from gclip.results.lock import hold
from gclip.results.run_files import Damaged, StoredRun, unpack

if TYPE_CHECKING:
    from gclip.results.store import Store

Kind = Literal[
    "run", "damaged run", "checkpoint", "stale checkpoint", "damaged checkpoint",
    "set aside", "temporary", "orphaned temporary",
]  # fmt: skip
DAMAGED: tuple[Kind, ...] = ("damaged run", "damaged checkpoint")

_DAY = 24 * 3600.0
_TEMPORARY = re.compile(r"\.fleet\.json\.[0-9a-f]{32}|\..+\.json\.[0-9]+")
_ENDED = ("finished", "diverged", "pruned")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One thing in a store.

    Attributes:
        kind: what it is.
        path: where.
        size: bytes of all its files.
        age: seconds since it was written.
        why: it is damaged, or stale; of a checkpoint how far its run is; of a run its status.
    """

    kind: Kind
    path: Path
    size: int
    age: float
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "bytes": self.size,
            "age_seconds": round(self.age, 1),
            "why": self.why,
        }


def look(store: Store) -> list[Found]:
    """Everything that gclip has put into a store but studies, their answers, and figures.

    Each run and each checkpoint is read and its seal verified.
    """
    return [*_runs(store), *_checkpoints(store), *_aside(store), *_temporaries(store)]


def read_run(store: Store, key: str) -> StoredRun | Damaged | None:
    """A run, or why it is damaged; None where it is gone by now."""
    for attempt in range(2):  # one that is replaced just now is read once more
        try:
            return unpack(key, store.path / key)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            if attempt:
                return damage
        except OSError as error:
            return Damaged(f"it cannot be read: {error.strerror}")
        time.sleep(0.02)
    return None


def _runs(store: Store) -> Iterator[Found]:
    keys = store.keys()
    for key in keys:
        read = read_run(store, key)
        if isinstance(read, Damaged):
            yield found("damaged run", store.path / key, str(read))
        elif read is not None:
            yield found("run", store.path / key, read.status)


def _checkpoints(store: Store) -> Iterator[Found]:
    from gclip.training import checkpoint

    for path in checkpoint_files(store.path):
        try:
            checkpoint.read(path)
        except checkpoint.DamagedCheckpoint:
            yield found("damaged checkpoint", path, "it is no whole checkpoint")
            continue
        except UsageError:
            if what_is_at(path) != "not there":
                yield found("damaged checkpoint", path, "it cannot be read")
            continue
        yield judged(store, path)


def judged(store: Store, path: Path) -> Found:
    """Whether a checkpoint that is whole is of any use: its runs have not ended."""
    saved = SavedRuns.read(path)
    if saved is None:
        return found("stale checkpoint", path, "it is not named for the runs that it is of")
    if all(_status(store, key) in _ENDED for key in saved.keys):
        return found("stale checkpoint", path, "its runs have ended")
    runs = "" if len(saved.configs) == 1 else f"a fleet of {len(saved.configs)}, "
    return found("checkpoint", path, f"{runs}step {saved.step} of {saved.steps}")


def _status(store: Store, key: str) -> str:
    """Of a stored run; "" where there is none that is whole."""
    read = read_run(store, key)
    return read.status if isinstance(read, StoredRun) else ""


def _aside(store: Store) -> Iterator[Found]:
    for path in _entries(store.path / ".damaged"):
        yield found("set aside", path)


def _temporaries(store: Store) -> Iterator[Found]:
    from gclip.training import checkpoint

    half_runs = [path for path in _entries(store.path / ".tmp") if path.suffix != ".lock"]
    written = _somebody_writes(store) if half_runs else False
    for path in half_runs:
        orphaned = not written if written is not None else _age(path) > _DAY
        yield found("orphaned temporary" if orphaned else "temporary", path)
    for path in _entries(store.path / FOLDER):
        if checkpoint.is_temporary(path.name):
            orphaned = checkpoint.is_orphaned(path)
            yield found("orphaned temporary" if orphaned else "temporary", path)
    for folder in (store.path, store.path / "studies" / "answers"):
        for path in _entries(folder):
            if _TEMPORARY.fullmatch(path.name):
                orphaned = _age(path) > _DAY
                yield found("orphaned temporary" if orphaned else "temporary", path)


def _somebody_writes(store: Store) -> bool | None:
    """Whether a process is writing a run just now; None where nobody can tell."""
    try:
        with hold(store.path / ".tmp" / "writers.lock", exclusive=True, patience=0.0) as held:
            return None if held == "unsupported" else held == "no"
    except OSError:
        return None


def found(kind: Kind, path: Path, why: str = "") -> Found:
    """What is at a path."""
    return Found(kind=kind, path=path, size=size_of(path), age=_age(path), why=why)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(size_of(each) for each in _entries(path))
        return path.lstat().st_size
    except OSError:
        return 0


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder))
    except OSError:
        return []


def _age(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.lstat().st_mtime)
    except OSError:
        return 0.0
