"""Where gclip keeps what it can make again: decoded images, descriptions."""

from __future__ import annotations

import os
from pathlib import Path

from gclip.errors import UsageError


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
