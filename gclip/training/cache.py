"""The cache folder: where it is, and decoded images in it.

Decoding tens of thousands of files takes seconds to minutes, so it happens once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gclip.errors import UsageError

Arrays = dict[str, NDArray[Any]]
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def cache_folder() -> Path:
    """Where decoded and downloaded data is kept: ``$GCLIP_CACHE``, or the user's cache folder.

    Raises:
        UsageError: the user has no home folder, and nothing else is set.
    """
    if chosen := os.environ.get("GCLIP_CACHE"):
        return without_tilde(chosen, "GCLIP_CACHE")
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "gclip"
    try:
        return Path.home() / ".cache" / "gclip"
    except RuntimeError as error:
        raise UsageError(
            "there is no cache folder, because this user has no home folder; set GCLIP_CACHE to a "
            "folder for downloaded and decoded images"
        ) from error


def without_tilde(path: str | Path, what: str) -> Path:
    """`path` with a user's home folder for ``~``.

    Raises:
        UsageError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{what} is {str(path)!r}, but there is no such home folder; give the path without ~"
        ) from error


def read(folder: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """The arrays and facts that `write` left in `folder`; None where they are not, or damaged."""
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = {key: np.load(folder / f"{key}.npy", allow_pickle=False) for key in _ARRAYS}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, MemoryError, RecursionError):
        drop(folder)
        return None
    return arrays, facts


def drop(folder: Path) -> None:
    """Remove a damaged copy, as far as that is possible."""
    shutil.rmtree(folder, ignore_errors=True)


def write(folder: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    """Keep arrays and facts: whole or not at all, whoever else is writing the same."""
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        for key, value in arrays.items():
            np.save(temporary / f"{key}.npy", value, allow_pickle=False)
        (temporary / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            warn_not_cached("decoded images", error)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def warn_not_cached(what: str, reason: object) -> None:
    """Warn that the next start has to make them again."""
    warnings.warn(
        f"the {what} are not kept, and the next start makes them again: {reason}", stacklevel=3
    )
