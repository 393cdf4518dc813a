"""What a class or function computes, where there is no file to read: in a notebook, or a console.

The bytecode of its functions, its fields and constants, and of the functions and plain values of
the same module that these name, and so on. A docstring counts here; a comment does not, and
neither do the class's equation and paper. Of a function, the classes of the module that it names
count, too.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any

from gclip.core.strategy import DOCUMENTATION

_GENERATED = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")
_PLAIN = (bool, int, float, str, bytes, type(None))


def compiled(cls: type) -> str:
    """The class as text that changes when what it computes may have changed."""
    seen: dict[int, str] = {}
    lines = _members(cls, seen)
    return "\n".join([*lines, *sorted(seen.values())])


def compiled_function(function: types.FunctionType) -> str:
    """The function as text that changes when what it computes may have changed."""
    seen: dict[int, str] = {}
    classes: dict[type, list[str]] = {}
    _function(function, seen, classes)
    while waiting := [cls for cls, lines in classes.items() if not lines]:
        for cls in waiting:
            classes[cls] = _members(cls, seen, classes)
            for base in cls.__mro__[1:]:
                if base.__module__ == cls.__module__:
                    classes.setdefault(base, [])
    own = seen.pop(id(function))
    texts = [*seen.values(), *("\n".join(lines) for lines in classes.values())]
    return "\n".join([own, *sorted(texts)])


def _members(
    cls: type, seen: dict[int, str], classes: dict[type, list[str]] | None = None
) -> list[str]:
    """A class's lines; the text of its functions goes into `seen`."""
    lines = [f"class {cls.__qualname__}"]
    for name, value in sorted(vars(cls).items()):
        if name in DOCUMENTATION and isinstance(value, str):
            continue
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            value = value.fget
        if isinstance(value, types.FunctionType):
            _function(value, seen, classes)
            lines.append(f"{name} {seen[id(value)]}" if not _is_generated(value) else name)
        elif not name.startswith("__") and _is_plain(value):
            lines.append(f"{name} = {value!r}")
    if dataclasses.is_dataclass(cls):
        lines += [f"field {f.name} = {f.default!r}" for f in dataclasses.fields(cls)]
    return lines


def _function(
    function: types.FunctionType,
    seen: dict[int, str],
    classes: dict[type, list[str]] | None = None,
) -> None:
    """Put the text of a function into `seen`, and of all in its module that it names; the classes
    of the module that are named into `classes`, where there is that."""
    if id(function) in seen or _is_generated(function):
        return
    code = function.__code__
    text = [f"{function.__qualname__} {function.__defaults__!r} {function.__kwdefaults__!r}"]
    seen[id(function)] = "\n".join([*text, *_instructions(code)])
    for name in sorted(_names(code)):
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
            _function(value, seen, classes)
        elif isinstance(value, type) and value.__module__ == function.__module__:
            if classes is not None:
                classes.setdefault(value, [])
        elif name in function.__globals__ and _is_plain(value):
            seen[id(function)] += f"\n{name} = {value!r}"


def _instructions(code: types.CodeType) -> list[str]:
    names = " ".join(f".{name}" for name in code.co_names)  # as attributes stand in source text
    lines = [f"{code.co_code.hex()} {names} {code.co_varnames} {code.co_freevars}"]
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            lines += _instructions(value)
        elif isinstance(value, frozenset):  # whose order is another in every process
            lines.append(f"{sorted(map(repr, value))}")
        else:
            lines.append(repr(value))
    return lines


def _names(code: types.CodeType) -> set[str]:
    """All names that a function's code uses, and those of the functions inside it."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*inner)


def _is_generated(function: types.FunctionType) -> bool:
    """Whether a dataclass wrote it: what it does follows from the fields."""
    return function.__code__.co_filename == "<string>" and function.__name__ in _GENERATED


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(each) for each in value)
    return isinstance(value, _PLAIN)
