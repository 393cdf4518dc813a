"""Where in a user's file: of a function, and of what it raised."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def place_of(function: Callable[..., Any]) -> str:
    """``line 12 of mine.py``: where a function is defined; "" for one without Python source."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"line {code.co_firstlineno} of {Path(code.co_filename).name}"


def place_in(error: BaseException, file: str) -> str:
    """``line 30 of mine.py``: the last line of `file` that `error` passed; "" if it passed none."""
    lines = [frame.lineno for frame in _frames(error) if frame.filename == file]
    return f"line {lines[-1]} of {Path(file).name}" if lines else ""


def last_place(error: BaseException, *, outside: str) -> str:
    """The last line that `error` passed in a file not under the folder `outside`, nor Python's."""
    own = [
        frame
        for frame in _frames(error)
        if not frame.filename.startswith(("<", outside)) and "importlib" not in frame.filename
    ]
    return f"line {own[-1].lineno} of {Path(own[-1].filename).name}" if own else ""


def told(error: BaseException) -> str:
    """``KeyError: 'mean'``, in one line."""
    text = " ".join(str(error).split())
    short = text if len(text) <= 300 else text[:297] + "..."
    return f"{type(error).__name__}: {short}" if short else type(error).__name__


def _frames(error: BaseException) -> traceback.StackSummary:
    return traceback.extract_tb(error.__traceback__)
