"""Packages whose names are loaded when they are first used: nobody waits for what others need."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any


def lazy_attributes(
    package: str, homes: Mapping[str, str], modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    A name that is its module's, too (``batches`` of ``batches.py``), stays what `homes` says when
    that module is imported, which would otherwise take its place.

    Args:
        package: its ``__name__``.
        homes: of each name, the module within the package that defines it.
        modules: modules within the package that are names themselves.
    """
    if any(name == home for name, home in homes.items()):
        sys.modules[package].__class__ = _Face

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
            setattr(sys.modules[package], name, value)
            return value
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load


class _Face(ModuleType):
    """A package in which a module that has a name of its own name in it is that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = vars(value).get(name, value)
        super().__setattr__(name, value)
