"""A store put in order: what is damaged is set aside, what nobody needs is removed.

No finished run is ever removed, and of what is damaged nothing: it is moved to ``.damaged``.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gclip.core.numbers import as_number, shown
from gclip.errors import UsageError
from gclip.results.inventory import Found, judged, look
from gclip.results.store import StoreWarning

if TYPE_CHECKING:
    from gclip.results.store import Store

DAYS = 30.0
"""What was set aside longer ago is removed by `collect`."""
_DAY = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Done:
    """One thing that was done, or would be.

    Attributes:
        action: what.
        found: to what.
        to: where it is now, if it was moved.
        failed: why it could not be done; "" where it was.
    """

    action: Literal["set aside", "remove"]
    found: Found
    to: Path | None = None
    failed: str = ""


def repair(store: Store, *, dry_run: bool = False, things: Sequence[Found] = ()) -> list[Done]:
    """Set damaged runs and checkpoints aside, and remove what killed processes left half written.

    Args:
        store: that is put in order.
        dry_run: only say what would be done.
        things: what `look` has found; it looks by default.

    Raises:
        UsageError: the store cannot be written to.
    """
    every = list(things) or look(store)
    planned: list[Done] = []
    for each in every:
        if each.kind in ("damaged run", "damaged checkpoint"):
            planned.append(Done(action="set aside", found=each))
        elif each.kind == "orphaned temporary":
            planned.append(Done(action="remove", found=each))
    if dry_run:
        return planned
    return [
        _set_aside(store, one) if one.action == "set aside" else _remove(one) for one in planned
    ]


def collect(
    store: Store, *, days: float = DAYS, dry_run: bool = False, things: Sequence[Found] = ()
) -> list[Done]:
    """Remove what is of no use: stale checkpoints, orphaned temporary files, and what was set aside
    more than `days` ago.

    Args:
        store: that is tidied.
        days: how long what is damaged is kept for you to look at.
        dry_run: only say what would be done.
        things: what `look` has found; it looks by default.

    Raises:
        UsageError: `days` is no number ≥ 0.
    """
    number = as_number(days)
    if number is None or not number >= 0:
        raise UsageError(f"days must be a number ≥ 0, but got {shown(days)}")
    planned = [
        Done(action="remove", found=each)
        for each in list(things) or look(store)
        if each.kind in ("stale checkpoint", "orphaned temporary")
        or (each.kind == "set aside" and each.age > number * _DAY)
    ]
    if dry_run:
        return planned
    return [_remove(one) for one in planned if _is_still_stale(store, one.found)]


def _is_still_stale(store: Store, thing: Found) -> bool:
    """Of a checkpoint: it was perhaps written anew since."""
    return thing.kind != "stale checkpoint" or judged(store, thing.path).kind == thing.kind


def _set_aside(store: Store, one: Done) -> Done:
    path = one.found.path
    before = set(_names(store.path / ".damaged"))
    if one.found.kind == "damaged run":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StoreWarning)
            store.read(path.name)  # which looks again, and moves it
    else:
        target, count = store.path / ".damaged" / f"{path.name}.checkpoint", 0
        with contextlib.suppress(OSError):
            target.parent.mkdir(exist_ok=True)
            while target.exists():
                count += 1
                target = target.with_name(f"{path.name}.checkpoint.{count}")
            path.rename(target)
    moved = sorted(set(_names(store.path / ".damaged")) - before)
    if path.exists() or not moved:
        failed = "the folder cannot be written to" if path.exists() else ""
        return Done(action=one.action, found=one.found, failed=failed)
    return Done(action=one.action, found=one.found, to=store.path / ".damaged" / moved[0])


def _remove(one: Done) -> Done:
    path = one.found.path
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
        return Done(action=one.action, found=one.found, failed=why)
    return one


def _names(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from (each.name for each in folder.iterdir())
