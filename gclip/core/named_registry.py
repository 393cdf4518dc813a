"""A registry by name of anything that plugins may bring: problems and models.

Entries come from a package that ships with gclip (every module of it is imported), from installed
packages that declare an entry point in a group, and from files or modules given to
`gclip.load_plugins`. The first two are read when a name is first asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from gclip.core.entry_points import load_installed
from gclip.errors import UsageError, unknown

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_RESERVED = ("true", "false", "none", "inf", "nan")
_registries: list[NamedRegistry[Any]] = []


class NamedRegistry(Generic[T]):
    """What is registered of one kind, by name.

    Args:
        kind: what an entry is called in messages, ``problem``.
        package: whose modules register what ships with gclip.
        group: of installed packages' entry points.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self._package, self._group = kind, package, group
        self._entries: dict[str, T] = {}
        self._loaded = False
        _registries.append(self)

    def add(self, name: str, entry: T) -> None:
        """Make `entry` known under `name`.

        Raises:
            UsageError: a name with bad characters, or one that is taken.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
            raise UsageError(
                f"a {self.kind}'s name is lower-case letters, digits, '-' and '_' starting with a "
                f"letter, and none of {', '.join(_RESERVED)}; got {name!r}"
            )
        taken = self._entries.get(name)
        if taken is not None and _source(taken) != _source(entry):
            raise UsageError(
                f"the {self.kind} name {name!r} is taken by {'.'.join(_source(taken))}; choose "
                f"another for {'.'.join(_source(entry))}"
            )
        self._entries[name] = entry

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        self._load()
        return tuple(sorted(self._entries))

    def get(self, name: str) -> T:
        """The entry `name`.

        Raises:
            UsageError: there is none, with a suggestion.
        """
        self._load()
        if name not in self._entries:
            unknown(self.kind, name, self.names())
        return self._entries[name]

    def has(self, name: str) -> bool:
        """Whether there is an entry `name`."""
        self._load()
        return name in self._entries

    def of_module(self, module: str) -> tuple[str, ...]:
        """The names that a module has registered."""
        return tuple(name for name in self.names() if _source(self._entries[name])[0] == module)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            load_installed(self._group)
        except BaseException:
            self._loaded = False
            raise


def registries() -> Iterator[NamedRegistry[Any]]:
    """All registries that have been made: a plugin may bring entries of any of them."""
    return iter(tuple(_registries))


def _source(entry: object) -> tuple[str, str]:
    """The module and the name of a class or function: the same when it is imported again."""
    return entry.__module__, getattr(entry, "__qualname__", repr(entry))
