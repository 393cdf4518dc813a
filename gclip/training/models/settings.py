"""A model's settings: the keyword-only arguments of its function, spelled ``mlp(width=256)``."""

from __future__ import annotations

import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gclip.core.schedules import number_text
from gclip.core.spelling import WORDS, read
from gclip.errors import UsageError, suggestion
from gclip.training.models.registry import Builder, get, names

_WORD = re.compile(r"[A-Za-z_][\w.\-/]*")
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "none",
}


@dataclass(frozen=True)
class Setting:
    """One setting of a model.

    Attributes:
        default: its value where nothing is spelled.
        kinds: the types that it may have; those of the annotation, or the default's.
        choices: its values, where the annotation is a ``Literal``.
    """

    default: Any
    kinds: tuple[type, ...]
    choices: tuple[Any, ...] = ()

    def checked(self, value: Any) -> Any:
        """The value, whole numbers as floats where a float is meant.

        Raises:
            UsageError: a value that it cannot have; the sentence begins with "must be".
        """
        if self.choices:
            if not any(type(value) is type(each) and value == each for each in self.choices):
                raise UsageError(f"must be one of {', '.join(map(str, self.choices))}")
            return value
        if type(value) in self.kinds and not (isinstance(value, float) and math.isnan(value)):
            return value
        if type(value) is int and float in self.kinds:
            return float(value)
        allowed = " or ".join(_KINDS.get(kind, kind.__name__) for kind in self.kinds)
        raise UsageError(f"must be {allowed}")


@functools.lru_cache(maxsize=256)  # every config asks, and a store has thousands
def settings_of(builder: Builder) -> Mapping[str, Setting]:
    """The settings of the model that a function builds, by name."""
    try:
        hints = typing.get_type_hints(builder)
    except Exception:  # an annotation that means nothing here; the default says enough
        hints = {}
    return {
        each.name: _setting(each.default, hints.get(each.name))
        for each in inspect.signature(builder).parameters.values()
        if each.kind is each.KEYWORD_ONLY
    }


def parse(spelling: str) -> tuple[str, dict[str, Any]]:
    """The name of a spelled model, and those of its settings that are off their defaults.

    Raises:
        UsageError: the text cannot be read, or names a model, a setting or a value that there is
            not.
    """
    call = read(spelling, what="model", example="mlp(width=256)")
    if call.inner:
        raise UsageError(f"a model takes settings, not models, but got {spelling!r}")
    known = settings_of(get(call.name))
    given = {}
    for key, value in call.named.items():
        if key not in known:
            choices = f"choices: {', '.join(known)}" if known else "it has none"
            raise UsageError(
                f"unknown setting {key!r} of the model {call.name}{suggestion(key, known)} "
                f"({choices})"
            )
        try:
            checked = known[key].checked(value)
        except UsageError as rule:
            raise UsageError(f"{key} of the model {call.name} {rule}, but got {value!r}") from None
        if checked != known[key].default or type(checked) is not type(known[key].default):
            given[key] = checked
    return call.name, {key: given[key] for key in known if key in given}


def canonical(spelling: str) -> str:
    """The shortest spelling of the same model.

    Raises:
        UsageError: as `parse`.

    Example:
        >>> canonical("mlp(depth=2, width=256.0)")
        Traceback (most recent call last):
        ...
        gclip.errors.UsageError: width of the model mlp must be a whole number, but got 256.0
        >>> canonical("mlp( depth=2, width=256 )")
        'mlp(width=256)'
    """
    return spell(*parse(spelling))


def spelling_of(model: str | Builder) -> str:
    """The canonical spelling of a model, which may be given by the function that builds it.

    Raises:
        UsageError: as `parse`; or a function that is not registered.
    """
    if isinstance(model, str):
        return canonical(model)
    for name in names():
        if get(name) is model:
            return name
    raise UsageError(
        "a model is meant by its spelling or by the function that @gclip.register_model has "
        f"decorated, but got {model!r}"
    )


def spell(name: str, given: Mapping[str, Any]) -> str:
    """The spelling of a model with these settings."""
    shown = [f"{key}={_text(value)}" for key, value in given.items()]
    return f"{name}({', '.join(shown)})" if shown else name


def names_with(setting: str) -> tuple[str, ...]:
    """The models that have a setting of this name."""
    return tuple(name for name in names() if setting in settings_of(get(name)))


def _setting(default: Any, hint: Any) -> Setting:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return Setting(default, (), arguments)
    kinds = arguments if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if hint is None or not all(kind in _KINDS for kind in kinds):
        kinds = (type(default),)
    return Setting(default, kinds)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, str) and (not _WORD.fullmatch(value) or value.lower() in WORDS):
        return f'"{value}"' if "'" in value else f"'{value}'"
    return str(value)
