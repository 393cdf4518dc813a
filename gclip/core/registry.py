"""The registry of strategies: one name, one class, found without anybody importing it.

Strategies come from three places: the modules of ``gclip.strategies`` (one file, one method),
installed packages that declare an entry point in the group ``gclip.strategies``, and files or
modules given to `load_plugins`. The first two are read when a name is first asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from typing import Any, TypeVar

from gclip.core.entry_points import load_installed
from gclip.core.fields import field_names
from gclip.core.players import Players
from gclip.core.registered_class import check_dataclass, check_defaults
from gclip.core.spelling import Call, read
from gclip.core.strategy import Chain, Strategy
from gclip.errors import UsageError, suggestion, unknown

S = TypeVar("S", bound=type[Strategy])

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_OWN = "gclip.strategies"
_RESERVED = ("chain", "players", "true", "false", "inf", "nan")
_classes: dict[str, type[Strategy]] = {}
_aliases: dict[str, str] = {}
_loaded = False


def register(name: str, *aliases: str) -> Callable[[S], S]:
    """Class decorator: make a strategy known under `name` (and `aliases`).

    >>> from dataclasses import dataclass
    >>> import gclip
    >>> @gclip.register("example_limit")
    ... @dataclass(frozen=True, kw_only=True)
    ... class ExampleLimit(gclip.Strategy):
    ...     most: float = gclip.tunable(1.0, low=0.1, high=10.0, log=True)
    ...
    ...     def limit(self, seen, memory):
    ...         return self.most
    >>> str(gclip.parse("example_limit(most=2)"))
    'example_limit(most=2)'

    Raises:
        UsageError: a name with bad characters, a name already taken, or a class that is not a
            frozen, keyword-only dataclass deriving from `Strategy` with its own `limit`.
    """

    def decorate(cls: S) -> S:
        check_dataclass(cls, Strategy, f"@register({name!r})")
        check_defaults(cls)
        for each in (name, *aliases):
            _check_name(each, cls)
        cls.name, cls.aliases = name, tuple(aliases)
        _classes[name] = cls
        _aliases.update(dict.fromkeys(aliases, name))
        return cls

    if not isinstance(name, str):
        raise UsageError('write @register("name") with the name in quotes and brackets')
    return decorate


def names() -> tuple[str, ...]:
    """The names of all registered strategies, sorted; ``none`` comes first."""
    _load_all()
    return tuple(sorted(_classes, key=lambda n: (n != "none", n)))


def get(name: str) -> type[Strategy]:
    """The class registered under `name` or an alias; `UsageError` with a suggestion if none is."""
    _load_all()
    found = _classes.get(_aliases.get(name, name))
    if found is None:
        unknown("strategy", name, names())
    return found


def ships_with_gclip(cls: type[Strategy]) -> bool:
    """Whether `cls` is one of gclip's own strategies, and no plugin's."""
    return cls.__module__.startswith(f"{_OWN}.")


def create(name: str, **settings: Any) -> Strategy:
    """The strategy `name` with its fields set.

    >>> import gclip
    >>> str(gclip.create("agc", clip_factor=0.02))
    'agc(clip_factor=0.02)'

    Raises:
        UsageError: for an unknown name or field, or a value that a field refuses.
    """
    cls = get(name)
    valid = field_names(cls)
    for key in settings:
        if key not in valid:
            raise UsageError(
                f"{cls.name}: unknown field {key!r}{suggestion(key, valid)} "
                f"(choices: {', '.join(valid)})"
            )
    return cls(**settings)


def parse(text: str) -> Strategy | Chain:
    """Read the spelling of a strategy.

    >>> import gclip
    >>> gclip.parse("agc(clip_factor=0.02, scope=tensor)").scope
    'tensor'

    Raises:
        UsageError: where the text cannot be read, or `create` refuses what it says.
    """
    return _build(read(text), text)


def parse_for_run(text: str) -> Strategy | Chain | Players:
    """Read the spelling of a run's strategy: one for all its players, or one for each.

    Raises:
        UsageError: as `parse`; or ``players(…)`` names none.
    """
    call = read(text)
    if call.name != "players":
        return _build(call, text)
    if not call.named or call.inner:
        raise UsageError(
            f"players takes a strategy for each player, as in 'players(generator=agc, "
            f"discriminator=norm)', but got {text!r}"
        )
    return Players(tuple((name, _build(each, text)) for name, each in call.named.items()))


def chain(*strategies: Strategy | Chain | str) -> Chain:
    """Apply `strategies` in order; usable wherever one strategy is.

    >>> import gclip
    >>> str(gclip.chain("value(clip_value=1)", "norm(max_norm=2)"))
    'chain(value, norm(max_norm=2))'

    Raises:
        UsageError: no strategy given, or one whose spelling cannot be read.
    """
    flat: list[Strategy] = []
    for each in strategies:
        strategy = parse(each) if isinstance(each, str) else each
        if not isinstance(strategy, Strategy | Chain):
            raise UsageError(f"chain takes strategies or their spellings, but got {each!r}")
        flat.extend(strategy.strategies if isinstance(strategy, Chain) else (strategy,))
    if not flat:
        raise UsageError("chain needs at least one strategy: chain('value', 'norm')")
    return Chain(tuple(flat))


def _build(call: Call, text: str) -> Strategy | Chain:
    if call.name == "players":
        raise UsageError(
            f"{text!r} gives each player of a run a strategy of its own; here one strategy is meant"
        )
    if call.name != "chain":
        return create(call.name, **call.named)
    if call.named:
        raise UsageError(f"chain takes strategies, not fields, but got {text!r}")
    return chain(*(_build(inner, text) for inner in call.inner))


def _load_all() -> None:
    """Import every built-in and every installed plugin, once; of a broken plugin it warns."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    try:
        package = importlib.import_module(_OWN)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        load_installed(_OWN)
    except BaseException:
        _loaded = False
        raise


def _check_name(name: str, cls: type) -> None:
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise UsageError(
            f"a strategy's name is lower-case letters, digits, '-' and '_' starting with a letter, "
            f"and none of {', '.join(_RESERVED)}; got {name!r}"
        )
    taken = _classes.get(_aliases.get(name, name))
    if taken is not None and not _same_source(taken, cls):
        raise UsageError(
            f"the strategy name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; "
            f"choose another for {cls.__module__}.{cls.__qualname__}"
        )


def _same_source(old: type, new: type) -> bool:
    """True when `new` is `old` imported again (a reload, or a notebook cell run twice)."""
    return (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)
