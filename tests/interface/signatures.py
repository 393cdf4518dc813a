"""What users call, as text: every public name with its parameters, for the test that holds them.

``python -m tests.interface.signatures`` writes the file again, after a change that is meant.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import gclip

FILE = Path(__file__).with_name("signatures.json")


def current() -> dict[str, Any]:
    """Of every public name: a function's signature, or those of a class and its public methods."""
    return {name: _described(getattr(gclip, name)) for name in gclip.__all__}


def _described(thing: Any) -> Any:
    if inspect.ismodule(thing):
        own = getattr(thing, "__all__", None) or [
            name
            for name, value in vars(thing).items()
            if name[0] != "_" and getattr(value, "__module__", None) == thing.__name__
        ]
        return {name: _described(getattr(thing, name)) for name in sorted(own)}
    if inspect.isclass(thing):
        members = {name: _member(thing, name) for name in sorted(dir(thing)) if name[0] != "_"}
        own = {name: text for name, text in members.items() if text is not None}
        return {"": _signature(thing), **own}
    return _signature(thing)


def _member(cls: type, name: str) -> str | None:
    """A method's signature, or what kind of attribute it is; nothing for what torch brings."""
    home = next(base for base in cls.__mro__ if name in vars(base))
    if not home.__module__.startswith("gclip"):
        return None
    found = inspect.getattr_static(cls, name)
    return _signature(getattr(cls, name)) if callable(getattr(cls, name)) else type(found).__name__


def _signature(thing: Any) -> str:
    """The parameters: names, kinds, and whether each has a default."""
    if not callable(thing):
        return re.sub(r"gclip\.[\w.]*\.", "", str(thing))  # wherever it lives
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return ""
    return ", ".join(
        f"{parameter.kind.description} {parameter.name}"
        + ("" if parameter.default is inspect.Parameter.empty else " = …")
        for parameter in parameters
    )


if __name__ == "__main__":
    FILE.write_text(json.dumps(current(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
