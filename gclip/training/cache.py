"""Decoded images in the cache folder.

Decoding tens of thousands of files takes seconds to minutes, so it happens once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gclip.core.cache_folder import cache_folder as cache_folder
from gclip.core.cache_folder import without_tilde as without_tilde

Arrays = dict[str, NDArray[Any]]
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


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
