"""Which line of the user's code has called."""

from __future__ import annotations

import inspect
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

_OURS = f"{Path(__file__).parents[1]}{os.sep}"
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_STANDARD = f"{Path(sysconfig.get_paths()['stdlib'])}{os.sep}"
_PACKAGES = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Place:
    """A line of code, and the library through which it called, if there is one.

    Attributes:
        file: its path, as Python has it.
        line: counted from 1.
        library: the installed package (``"accelerate"``) that stands between that line and torch;
            "" where the line itself calls torch, or gclip.
    """

    file: str
    line: int
    library: str = ""

    def __str__(self) -> str:
        path = Path(self.file)
        if path.parent.name.startswith("ipykernel_"):  # a notebook's cell has no name of its own
            return f"line {self.line} of a cell"
        here = Path.cwd()
        shown = path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path
        return f"{shown}:{self.line}" + (f", through {self.library}" if self.library else "")


def calling_place() -> Place:
    """The innermost line outside of torch, gclip, Python and installed packages.

    Where all lines are of installed packages, the innermost of theirs.
    """
    frame: FrameType | None = inspect.currentframe()
    library, fallback = "", None
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_OURS, _TORCH, "<frozen")):
            package = _package_of(file)
            if package:
                library = library or package
                fallback = fallback or Place(file, frame.f_lineno, package)
            elif not file.startswith(_STANDARD):
                return Place(file, frame.f_lineno, library)
        frame = frame.f_back
    return fallback or Place("<unknown>", 0)


def called_within(file: str) -> bool:
    """Whether a file of this name, without ``.py``, is among the callers."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if Path(frame.f_code.co_filename).stem == file:
            return True
        frame = frame.f_back
    return False


def _package_of(file: str) -> str:
    """``"accelerate"`` for a file of an installed package; "" for any other."""
    parts = Path(file).parts
    for place, part in enumerate(parts[:-1]):
        if part in _PACKAGES:
            return parts[place + 1].removesuffix(".py")
    return ""
