"""Where does a store keep the runs that are under way, and which of them can go on together?

A run's checkpoint is named for its key, a fleet's for the keys of all its runs in their order: so
the same fleet finds it again, and another one does not::

    runs/checkpoints/<key>           of one run
    runs/checkpoints/fleet-<digest>  of a fleet
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gclip.results.store import Store
    from gclip.training import RunConfig
    from gclip.training.checkpointer import Checkpointer

FOLDER = "checkpoints"
_NAME = re.compile(r"[0-9a-f]{64}|fleet-[0-9a-f]{40}")


@dataclass(frozen=True)
class SavedRuns:
    """A checkpoint, by what it says of itself (which is not verified before it is loaded).

    Attributes:
        path: of the file.
        configs: of all its runs, as JSON.
        present: the places of those that had not ended.
        epoch, step, steps: how far they were.
    """

    path: Path
    configs: tuple[str, ...]
    present: tuple[int, ...]
    epoch: int
    step: int
    steps: int

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The keys of all its runs."""
        return tuple(hashlib.sha256(config.encode()).hexdigest() for config in self.configs)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of those that had not ended."""
        every = self.all_keys
        return tuple(every[place] for place in self.present)

    @classmethod
    def read(cls, path: Path) -> SavedRuns | None:
        """What a file says of itself; None where it is none of a run's that is named for it."""
        from gclip.training.checkpoint import read_about

        about = read_about(path)
        try:
            found = cls._of(path, about or {})
        except (KeyError, TypeError, ValueError, IndexError):
            return None
        return found if path.name == file_name(found.all_keys) else None

    @classmethod
    def _of(cls, path: Path, about: dict[str, Any]) -> SavedRuns:
        configs, present = tuple(about["configs"]), tuple(about["present"])
        if not all(0 <= place < len(configs) for place in present):
            raise ValueError("it has other runs present than it has")
        numbers = (int(about[name]) for name in ("epoch", "step", "steps"))
        return cls(path, configs, present, *numbers)


def file_name(keys: Sequence[str]) -> str:
    """What the checkpoint of these runs, in this order, is called."""
    if len(keys) == 1:
        return keys[0]
    return f"fleet-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:40]}"


def checkpoint_files(store: Path) -> list[Path]:
    """All files in a store's folder that have the name of a checkpoint, the latest first."""
    found: list[tuple[float, str, Path]] = []
    with contextlib.suppress(OSError), os.scandir(store / FOLDER) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found.append((-entry.stat().st_mtime, entry.name, Path(entry.path)))
    return [path for _, _, path in sorted(found)]


class Checkpoints:
    """The checkpoints of a store.

    Args:
        store: whose runs they are of.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.folder = store.path / FOLDER

    def files(self) -> list[Path]:
        """All files that have the name of a checkpoint, the latest first."""
        return checkpoint_files(self._store.path)

    def keeper(
        self, configs: Sequence[RunConfig], every: float | None, tell: Callable[[str], None]
    ) -> Checkpointer | None:
        """What keeps the state of a run, or of a fleet, beside the store; None for nothing.

        Args:
            configs: of the runs, in their order.
            every: seconds of training between two checkpoints; None for none at all.
            tell: is given a sentence about what cannot be used or written.
        """
        from gclip.training.checkpointer import Checkpointer

        if every is None:
            return None
        path = self.folder / file_name([config.key for config in configs])
        return Checkpointer(path, every=every, tell=tell, aside=self._store.path / ".damaged")

    def of_run(self, key: str) -> SavedRuns | None:
        """How far a run is that is under way, and trained by itself; None where it is not."""
        return SavedRuns.read(self.folder / key)

    def fleet_of(self, keys: Sequence[str]) -> SavedRuns | None:
        """The checkpoint of a fleet that has these runs and, beside them, only such that have
        ended since it was written; None where there is none."""
        for path in self.files():
            saved = SavedRuns.read(path) if path.name.startswith("fleet-") else None
            if saved is not None and self._can_go_on(saved, keys) == list(keys):
                return saved
        return None

    def saved_steps(self, keys: Collection[str]) -> int:
        """How far the latest checkpoint of one of these runs is; 0 where there is none."""
        wanted = set(keys)
        for path in self.files():
            saved = SavedRuns.read(path)
            if saved is not None and wanted.intersection(saved.keys):
                return saved.step
        return 0

    def resumable(self, keys: Collection[str]) -> list[list[str]]:
        """Of the runs with these `keys`, those that have to train together, or alone, to go on
        from checkpoints; each at most once, those of the latest checkpoints first."""
        found: list[list[str]] = []
        left = set(keys)
        for path in self.files() if left else ():
            saved = SavedRuns.read(path)
            together = None if saved is None else self._can_go_on(saved, left)
            if together:
                found.append(together)
                left -= set(together)
        return found

    def drop(self, configs: Iterable[RunConfig]) -> None:
        """Remove the checkpoint of a run, or of a fleet: its runs have ended."""
        name = file_name([config.key for config in configs])
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()

    def drop_ended(self, keys: Iterable[str]) -> None:
        """Remove what nobody goes on from: checkpoints of runs with these `keys`, which are known
        to have ended, and of fleets all of whose runs have."""
        ended = set(keys)
        for path in self.files():
            saved = None if path.name in ended else SavedRuns.read(path)
            if path.name in ended or (
                saved is not None and saved.keys and ended >= set(saved.keys)
            ):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _can_go_on(self, saved: SavedRuns, keys: Collection[str]) -> list[str]:
        """Of the runs in a checkpoint those of `keys`, if all others have ended; else none."""
        wanted = set(keys)
        others = [key for key in saved.keys if key not in wanted]
        if any(self._store.status(key) is None for key in others):
            return []
        return [key for key in saved.keys if key in wanted]
