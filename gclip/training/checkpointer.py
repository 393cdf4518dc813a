"""When is a run's state saved, and may it go on from what was saved?

A run goes on only to the same bits as if it had never stopped. So a checkpoint names what made it,
and one of another version of gclip or torch, or of another number of threads, is not gone on from.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gclip.errors import UsageError
from gclip.training import checkpoint
from gclip.training.device import device_name
from gclip.version import __version__

if TYPE_CHECKING:
    from gclip.training.config import RunConfig

_SHARE = 50
"""Saving takes at most this part of the time: where it takes long, there are fewer checkpoints."""
_LEAST_HELD = 1.0  # seconds between two states that are kept in memory only

State = Callable[[], dict[str, Any]]


class CheckpointWarning(UserWarning):
    """A checkpoint cannot be used or written; the sentence says what becomes of the run."""


def made_by(device: torch.device, threads: int, processes: int = 1) -> dict[str, str | int]:
    """What, beside a config, the bits of a run depend on.

    Args:
        device: it trains on.
        threads: of its computations.
        processes: that share its batches.
    """
    return {
        "gclip": __version__,
        "torch": str(torch.__version__),
        "device": device.type,
        "threads": threads,
        "processes": processes,
        "processor": device_name(device),
    }


class Checkpointer:
    """Saves the state of a run, or of a fleet, while it trains, and gives it back.

    Args:
        path: the file.
        every: seconds of training between two checkpoints; 0 for one at every epoch's end.
        tell: is given a sentence where a checkpoint cannot be used or written: the run goes on
            without. None: that is an error, as the user has named the file.
        aside: folder for checkpoints that are damaged.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: float = 0.0,
        tell: Callable[[str], None] | None = None,
        aside: Path | None = None,
    ) -> None:
        self.path = Path(path)
        self._every, self._tell, self._aside = every, tell, aside
        self._configs: list[str] = []
        self._maker: Mapping[str, Any] = {}
        self._last = self._held_at = time.perf_counter()
        self._cost = 0.0  # seconds that the last save took
        self._held: bytes | None = None  # an epoch's end that is not on the disk
        self._cannot = False  # be held by a checkpoint

    @property
    def is_own(self) -> bool:
        """Whether the file is the program's own, and none that the user has named."""
        return self._tell is not None

    # -- before training ---------------------------------------------------------------------

    def load(self, configs: Sequence[RunConfig]) -> dict[str, Any] | None:
        """What was saved of these runs; None where there is nothing to go on from.

        Raises:
            UsageError: the file that the user has named cannot be used.
        """
        self._configs = [config.to_json() for config in configs]
        if not self.path.exists():
            if not self.is_own:
                with contextlib.suppress(OSError):
                    self.path.parent.mkdir(parents=True, exist_ok=True)
            return None
        try:
            found = checkpoint.load(self.path)
            if _configs_of(found) != self._configs:
                raise checkpoint.DamagedCheckpoint(
                    f"the checkpoint {self.path} belongs to another config; name another file, or "
                    "delete it to begin again"
                )
        except UsageError as error:
            self._refuse(error)
            return None
        return found

    def accept(self, saved: dict[str, Any] | None, maker: Mapping[str, Any]) -> bool:
        """Whether to go on from what `load` gave, and from now on save in the name of `maker`.

        Args:
            saved: what was loaded.
            maker: what `made_by` says here and now.
        """
        self._maker = maker
        self._last = self._held_at = time.perf_counter()
        if saved is None:
            return False
        before = saved.get("made_by") or maker  # earlier versions did not say
        differing = [name for name in maker if before.get(name) != maker[name]]
        if not differing:
            return True
        was, now = (
            ", ".join(f"{name} {made.get(name)}" for name in differing) for made in (before, maker)
        )
        said = f"the checkpoint {self.path} was made with {was}, and here is {now}"
        if self._tell is None or differing == ["processor"]:
            warn = self._tell or _warn
            warn(f"{said}: the run goes on, and its last bits are those of neither")
            return True
        self._tell(f"{said}: going on would not give the bits of one run, so it begins anew")
        return False

    def misfit(self, error: Exception) -> None:
        """What was loaded is no state of its run, however well it is sealed: as `load`, put it
        aside and say so; the run begins anew.

        Raises:
            UsageError: the user has named the file.
        """
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        said = f"the checkpoint {self.path} does not fit its run ({why})"
        if self._tell is None:
            raise UsageError(f"{said}; delete it to begin again") from error
        self._tell(f"{said}{self._moved()}; its run begins anew")

    def _refuse(self, error: UsageError) -> None:
        if self._tell is None:
            raise error
        said = "cannot be read"
        if isinstance(error, checkpoint.DamagedCheckpoint):
            said = f"is damaged{self._moved()}"
        self._tell(f"the checkpoint {self.path} {said}; its run begins anew")

    def _moved(self) -> str:
        if self._aside is None:
            return ""
        target, count = self._aside / f"{self.path.name}.checkpoint", 0
        try:
            self._aside.mkdir(parents=True, exist_ok=True)
            while target.exists():
                count += 1
                target = self._aside / f"{self.path.name}.checkpoint.{count}"
            self.path.rename(target)
        except OSError:  # a folder that is only readable: it is replaced, or stays
            return ""
        return f": moved to {target}"

    # -- while training ----------------------------------------------------------------------

    def is_due(self) -> bool:
        """Whether it is time to save within an epoch, where a run can go on from there."""
        return self._every > 0 and self._time_has_come()

    def _time_has_come(self) -> bool:
        wait = max(self._every, _SHARE * self._cost) if self._every else 0.0
        return time.perf_counter() - self._last >= wait

    def end_epoch(self, state: State, *, is_last: bool, hold: bool) -> None:
        """An epoch has ended: save if it is time.

        Args:
            state: gives all that is needed to go on.
            is_last: nothing follows but the result.
            hold: the run can go on from the ends of epochs alone: keep this one in memory, for
                `stop`.
        """
        if is_last and self.is_own:
            return
        if self._time_has_come():
            self.save(state)
            return
        began = time.perf_counter()
        if hold and began - self._held_at >= max(_LEAST_HELD, _SHARE * self._cost):
            self._held = self._packed(state)
            self._held_at = time.perf_counter()
            self._cost = self._held_at - began

    def stop(self, state: State | None) -> None:
        """The run ends here, for now: save this state, or the latest that is held in memory."""
        if state is not None:
            self.save(state)
        elif self._held is not None:
            self._write(self._held)

    def save(self, state: State) -> None:
        """Save now.

        Raises:
            UsageError: the file that the user has named cannot be written.
        """
        began = time.perf_counter()
        packed = self._packed(state)
        if packed is not None:
            self._write(packed)
        self._last = self._held_at = time.perf_counter()
        self._cost = self._last - began
        self._held = None

    def _packed(self, state: State) -> bytes | None:
        """The bytes to write; None for a state that no checkpoint can hold."""
        if self._cannot:
            return None
        try:
            found = state()
            progress = {name: found.pop(name) for name in ("present", "epoch", "step", "steps")}
            head = {"configs": self._configs, "made_by": dict(self._maker), **progress}
            return checkpoint.pack({**head, "threads": self._maker["threads"], **found}, head)
        except Exception as error:  # whatever a plugin keeps, and says of itself
            if self._tell is None:
                raise
            self._cannot = True
            self._tell(f"{_short(error)}; training goes on without checkpoints")
            return None

    def _write(self, packed: bytes) -> None:
        try:
            checkpoint.write(self.path, packed)
        except UsageError as error:
            if self._tell is None:
                raise
            self._tell(f"{error}; training goes on without")


def _configs_of(saved: Mapping[str, Any]) -> list[str]:
    """The configs of the runs in a checkpoint; earlier versions had that of one."""
    found = saved.get("configs", [saved.get("config")])
    return list(found) if isinstance(found, list) else []


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if isinstance(error, UsageError) else f"{type(error).__name__}: {text}"


def _warn(sentence: str) -> None:
    warnings.warn(sentence, CheckpointWarning, stacklevel=4)
