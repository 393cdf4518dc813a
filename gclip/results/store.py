"""Where do finished runs live, and how do they survive crashes, full disks and each other?

A run is written to a temporary folder, forced to the disk and renamed, so it is there whole or not
at all. Any number of processes may share a store, and any of them may be killed at any moment::

    runs/<key>/            config.json  result.json  steps.npz  environment.json
    runs/.damaged/<key>    what no longer matches its checksums, set aside for you to look at
    runs/.tmp/             runs being written, and the locks
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.results.lock import hold
from gclip.results.reading import VERIFIED
from gclip.results.run_files import Damaged, StoredRun, pack, unpack

if TYPE_CHECKING:
    from gclip.training.result import RunResult

_KEY = re.compile(r"[0-9a-f]{64}")
_DAY = 24 * 3600.0
# A result may take the place of a stored one only if it says more.
_WORTH = {"failed": 0, "pruned": 1, "diverged": 2, "finished": 2}


class StoreWarning(UserWarning):
    """Something in the store was set aside or passed over; the sentence says what and why."""


class Store:
    """A folder of runs, each under its config's key.

    ``create=True`` makes the folder and proves that it can be written, so that a read-only disk is
    known before the first run trains, and sweeps what killed writers left. Without it the store is
    only read: nothing is created.

    Attributes:
        path: the folder.
        writable: whether it was proved that it can be written.

    Raises:
        UsageError: the folder is missing or unusable.

    Example:
        >>> import tempfile
        >>> from gclip.training import RunConfig, RunResult
        >>> config = RunConfig(strategy="norm", seed=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder, create=True)
        ...     _ = store.save(RunResult(config=config, accuracy=0.9))
        ...     store.has(config.key), store.load(config.key).accuracy
        (True, 0.9)
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        self.path = Path(path)
        self._temporary = self.path / ".tmp"
        self.writable = create
        if create:
            with self._reported("keep runs in"):
                self._probe()
            self.sweep()
        elif not os.path.isdir(self.path):
            found = "is a file" if os.path.exists(self.path) else "does not exist"
            raise UsageError(
                f"the store '{self.path}' {found}: name the folder that a comparison wrote, "
                "for example --store runs"
            )

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def keys(self) -> tuple[str, ...]:
        """The keys of all stored runs, sorted; their checksums are verified on reading.

        Raises:
            UsageError: the folder cannot be read.
        """
        try:
            names = os.listdir(self.path)
        except OSError as error:
            raise UsageError(_sentence("read", self.path, error)) from error
        return tuple(sorted(name for name in names if _KEY.fullmatch(name)))

    def has(self, key: str) -> bool:
        """Whether the run need not be trained again: stored, intact, and finished or diverged.

        Nor may it be one that would come out otherwise now: before optimizers left out the steps
        that are skipped, a step whose gradients were not finite moved the weights all the same.
        """
        stored = self.read(key)
        return stored is not None and _worth(stored) == _WORTH["finished"]

    def status(self, key: str) -> str | None:
        """The stored status (finished, diverged, pruned, failed); None if there is no such run."""
        stored = self.read(key)
        return None if stored is None else stored.status

    def load(self, key: str) -> RunResult:
        """The stored result.

        Raises:
            UsageError: there is none, or it was damaged.
        """
        from gclip.training.result import RunResult

        stored = self.read(key)
        if stored is None:
            raise UsageError(f"the store '{self.path}' has no run '{key}'")
        layers = stored.layers()
        return RunResult.from_dict(
            {
                **stored.result,
                "config": stored.config,
                "steps": {**stored.steps(), **(layers.arrays() if layers else {})},
                "environment": stored.environment,
            }
        )

    def read(self, key: str) -> StoredRun | None:
        """The verified contents of a run, or None: missing, or damaged (warns, sets it aside).

        Within `gclip.results.reading.reading_once` a run that need not be trained again is read
        once.
        """
        folder, verified = self.path / key, VERIFIED.get()
        stored = None if verified is None else verified.get(folder)
        if stored is not None:
            return stored
        try:
            stored = unpack(key, folder)
        except FileNotFoundError:
            return None
        except Damaged as damage:
            return self._recheck(key, damage)
        except OSError as error:
            _warn(f"{_sentence('read', folder, error)}; the run counts as missing")
            return None
        if verified is not None and _worth(stored) == _WORTH["finished"]:
            verified.add(folder, stored)
        return stored

    def save(self, result: RunResult) -> Path:
        """Store a result durably under ``result.config.key`` and return its folder.

        A finished run that is already there stays; a failed or pruned one is replaced by a result
        that is worth as much or more.

        Raises:
            UsageError: the disk is full or read-only; no run already stored is harmed.
        """
        key: str = result.config.key
        fields = dict(result.to_dict())
        for part in ("config", "steps", "environment"):
            fields.pop(part, None)
        config = json.loads(result.config.to_json())
        arrays = {} if result.layers is None else result.layers.arrays()
        files = pack(key, config, fields, result.environment, {**result.steps, **arrays})
        temporary = self._temporary / f"{key[:16]}-{uuid.uuid4().hex}"
        with self._reported(f"store run {key[:12]} in"):
            self._temporary.mkdir(parents=True, exist_ok=True)
            with hold(self._temporary / "writers.lock", exclusive=False):
                try:
                    _write_folder(temporary, files)
                    self._publish(temporary, key, result.status)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
        return self.path / key

    def sweep(self) -> int:
        """Remove what killed writers left behind; returns how many folders.

        Never touches the folder of a living writer: writers share a lock that the sweep must have
        for itself, and the kernel frees a dead writer's. If somebody is writing, nothing is done.
        """
        if not self._temporary.is_dir():
            return 0
        removed = 0
        try:
            with hold(self._temporary / "writers.lock", exclusive=True, patience=0.0) as held:
                if held == "no":
                    return 0
                for orphan in sorted(self._temporary.iterdir()):
                    if orphan.suffix == ".lock":
                        continue
                    # Without locks only age can tell; a save takes far less than a day.
                    if held == "unsupported" and time.time() - orphan.stat().st_mtime < _DAY:
                        continue
                    shutil.rmtree(orphan, ignore_errors=True)
                    removed += not orphan.exists()
        except OSError:
            return removed  # a store that is only readable keeps its orphans: they are never read
        return removed

    def _publish(self, temporary: Path, key: str, status: str) -> None:
        """Give the finished folder its name; decide who stays if the name is taken."""
        target = self.path / key
        if _rename(temporary, target):
            return
        with hold(self._temporary / "replace.lock", exclusive=True):
            while not _rename(temporary, target):
                try:
                    other = _worth(unpack(key, target))
                except FileNotFoundError:
                    continue
                except Damaged as damage:
                    self._set_aside(key, damage)
                    continue
                worth = _WORTH.get(status, 0)
                if other > worth or other == _WORTH["finished"]:
                    return  # the same config was finished by somebody else meanwhile
                old = self._temporary / f"old-{uuid.uuid4().hex}"
                target.rename(old)
                shutil.rmtree(old, ignore_errors=True)

    def _recheck(self, key: str, damage: Damaged) -> StoredRun | None:
        """Look again with replacements held off: was it damage, or a run being replaced?"""
        folder = self.path / key
        try:
            self._temporary.mkdir(exist_ok=True)
            with hold(self._temporary / "replace.lock", exclusive=True) as held:
                try:
                    return unpack(key, folder)
                except FileNotFoundError:
                    return None
                except Damaged as still:
                    if held != "no":
                        self._set_aside(key, still)
                        return None
        except OSError:
            pass  # a store that is only readable: leave it where it is
        _warn(f"run {key[:12]} in '{self.path}' is damaged ({damage}) and counts as missing")
        return None

    def _set_aside(self, key: str, damage: Damaged) -> None:
        damaged = self.path / ".damaged"
        damaged.mkdir(exist_ok=True)
        target, count = damaged / key, 0
        while target.exists():
            count += 1
            target = damaged / f"{key}.{count}"
        (self.path / key).rename(target)
        _warn(
            f"run {key[:12]} in '{self.path}' was damaged ({damage}): "
            f"moved to '{target}', and it counts as missing"
        )

    def _probe(self) -> None:
        """Do once, with an empty file, everything that saving a run does."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        probe = self._temporary / f"probe-{uuid.uuid4().hex}"
        # Under the writers' lock, or another process's sweep could take the probe away.
        with hold(self._temporary / "writers.lock", exclusive=False):
            try:
                _write_folder(probe, {"probe": b"gclip\n"})
            finally:
                shutil.rmtree(probe, ignore_errors=True)

    @contextmanager
    def _reported(self, doing: str) -> Iterator[None]:
        """Turn the operating system's refusals into one sentence for the user."""
        try:
            yield
        except OSError as error:
            raise UsageError(_sentence(doing, self.path, error)) from error


def _worth(stored: StoredRun) -> int:
    """What a stored run is worth beside another of the same key; nothing if it is to be made again.

    Results tell by which rules of stepping they were made, from the second version on. Under the
    first one, what was skipped was what was not finite.
    """
    first = "stepping" not in stored.environment and stored.config.get("nonfinite") == "skip"
    if first and (stored.result.get("clipping") or {}).get("skipped"):
        return 0
    return _WORTH.get(stored.status, 0)


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Create ``folder`` with ``files`` and return only when all of it is on the disk."""
    folder.mkdir()
    for name, content in files.items():
        with open(folder / name, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync_directory(folder)


def _rename(source: Path, target: Path) -> bool:
    """Rename durably; False when a folder of that name is already there."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or (os.name == "nt" and target.is_dir()):
            return False
        raise
    _sync_directory(target.parent)
    return True


def _sync_directory(folder: Path) -> None:
    if os.name == "nt":  # no handle on a folder there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sentence(doing: str, path: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).rstrip(".")
    advice = {
        errno.ENOSPC: "free some space and repeat the command, finished runs are kept",
        errno.EDQUOT: "free some quota and repeat the command, finished runs are kept",
    }.get(error.errno or 0, "choose a folder that you may write, with --store FOLDER")
    if doing == "read":
        advice = "check the folder's permissions"
    return f"cannot {doing} '{path}': {reason}; {advice}"


def _warn(sentence: str) -> None:
    warnings.warn(sentence, StoreWarning, stacklevel=4)
