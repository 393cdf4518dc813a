"""A training in a Python file: its model, its optimizer and one step, for the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gclip.core.plugins import import_file
from gclip.core.source_location import last_place, told
from gclip.errors import UsageError, suggestion

_NEEDED = ("model", "optimizer", "step")
_MODULE = "gclip_doctor_file"
_OURS = str(Path(__file__).parents[1])


@dataclass(frozen=True)
class Training:
    """What a file defines.

    Attributes:
        file: the file.
        model, optimizer: as `gclip.doctor` takes them.
        step: makes one step.
    """

    file: Path
    model: Any
    optimizer: Any
    step: Callable[[], Any]

    def run(self) -> None:
        """One step.

        Raises:
            UsageError: it fails; where, and of what.
        """
        try:
            self.step()
        except Exception as error:
            raise UsageError(
                f"step() of {self.file.name} fails: {told(error)}{_line(error)}"
            ) from error


@contextmanager
def training_of(source: str) -> Iterator[Training]:
    """The training in ``FILE``, or the one that a function returns, ``FILE:function``.

    Within the block the file's folder can be imported from, as when the file is run.

    Raises:
        UsageError: there is no such file or function, it fails, or a part is missing.
    """
    text, _, function = source.partition(":") if ".py:" in source else (source, "", "")
    file = Path(text)
    if file.suffix != ".py" or not os.path.isfile(file):
        raise UsageError(
            f"the doctor takes a Python file such as train.py, or train.py:function, but there is "
            f"no such file: {text!r}"
        )
    folder = str(file.resolve().parent)
    sys.path.insert(0, folder)
    try:
        module = _called(file, lambda: import_file(_MODULE, file.resolve()))
        found = vars(module)
        if function:
            made = found.get(function)
            if not callable(made):
                own = [n for n, each in found.items() if callable(each) and n[0] != "_"]
                raise UsageError(
                    f"{file.name} has no function {function!r}{suggestion(function, own)}"
                )
            found = _parts(_called(file, made), function)
        missing = [name for name in _NEEDED if name not in found]
        if missing:
            raise UsageError(
                f"{file.name} defines no {' and no '.join(missing)}: the doctor needs a model, an "
                "optimizer, and a function step() that makes one step; or FILE:function, which "
                "returns the three"
            )
        if not callable(found["step"]):
            raise UsageError(f"step in {file.name} is no function that makes one step")
        yield Training(file, *(found[name] for name in _NEEDED))
    finally:
        sys.path.remove(folder)
        sys.modules.pop(_MODULE, None)


def _called(file: Path, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except SystemExit as error:
        raise UsageError(
            f"{file.name} ends the program{_line(error)}; it is imported here, so keep what a "
            'script does under if __name__ == "__main__":'
        ) from error
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{file.name} fails: {told(error)}{_line(error)}") from error


def _parts(returned: Any, function: str) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        return dict(returned)
    if isinstance(returned, tuple | list) and len(returned) == len(_NEEDED):
        return dict(zip(_NEEDED, returned, strict=True))
    raise UsageError(
        f"{function}() must return model, optimizer and step, as three or as a mapping, but "
        f"returned {type(returned).__name__}"
    )


def _line(error: BaseException) -> str:
    place = last_place(error, outside=_OURS)
    return f" ({place})" if place else ""
