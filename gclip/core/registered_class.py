"""What a class must be that a decorator registers: a strategy, a problem."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from gclip.errors import UsageError


def check_dataclass(cls: Any, base: type, decorator: str) -> None:
    """Check that a class is what `decorator` takes, before anything is created of it.

    Args:
        cls: the class, or whatever was decorated.
        base: what it must derive from.
        decorator: as it was written: ``@register('agc')``.

    Raises:
        UsageError: another base, no frozen dataclass of its own, or methods that are missing.
    """
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UsageError(f"{decorator} decorates a subclass of gclip.{base.__name__}, not {cls!r}")
    params: Any = cls.__dict__.get("__dataclass_params__")
    if not is_dataclass(cls) or params is None or not params.frozen:
        raise UsageError(
            f"{cls.__name__} must be a dataclass: write @dataclass(frozen=True, kw_only=True) "
            f"between {decorator} and the class"
        )
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise UsageError(f"{cls.__name__} must define {', '.join(missing)}()")


def check_defaults(cls: type) -> None:
    """Check that a class can be created without arguments, as comparisons and lists do.

    Raises:
        UsageError: a field without a default, or a default that a field refuses.
    """
    try:
        cls()
    except UsageError:
        raise
    except TypeError as error:
        raise UsageError(
            f"every field of {cls.__name__} needs a default, so that comparisons can create it: "
            f"{error}"
        ) from error
