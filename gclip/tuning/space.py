"""What does a study search? The tunable fields of a strategy's class, and the learning rate.

The ranges come with the fields, so a new strategy can be tuned the moment it is registered. Each
may be changed by a line of text::

    clip_factor=1e-4..1:log     a range, on a log scale (`:linear` for the other; else the field's)
    window=10|100|1000          one of these
    max_norm=0.5                this value in every trial
    lr=1e-3..1:log              the learning rate goes by the name lr
    agc.clip_factor=0.01..0.1   for one of several strategies
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.core import registry
from gclip.core.fields import check, fields_of
from gclip.core.strategy import Strategy
from gclip.errors import UsageError, suggestion
from gclip.tuning.dimension import Dimension, read_dimension, rounded, word

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

    from gclip.core.fields import FieldInfo
    from gclip.training import RunConfig

LR = "lr"
_LR_BELOW, _LR_ABOVE = 30.0, 5.0


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a study of one strategy searches, and what it holds.

    Attributes:
        strategy: with the values that are held.
        dimensions: what is searched, by field; the learning rate, if it is searched, under `LR`.
        lr: where a space holds the learning rate; None leaves that of the runs alone.
    """

    strategy: Strategy
    dimensions: Mapping[str, Dimension]
    lr: float | None = None

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """The search space in Optuna's words."""
        return {name: dimension.distribution for name, dimension in self.dimensions.items()}

    def config(self, trial: Trial, base: RunConfig) -> RunConfig:
        """The run that a trial asks for, otherwise like `base`.

        Raises:
            UsageError: the strategy refuses these values together.
        """
        # All of it is suggested before any of it is used: a trial that fails keeps its parameters.
        values = {name: d.suggest(trial, name) for name, d in self.dimensions.items()}
        lr = values.pop(LR, base.lr if self.lr is None else self.lr)
        return base.replace(strategy=str(dataclasses.replace(self.strategy, **values)), lr=lr)

    def grid(self, points: int) -> dict[str, tuple[Any, ...]]:
        """The values of each dimension in a grid; see `Dimension.grid`."""
        return {name: d.grid(points) for name, d in self.dimensions.items()}


def space_of(
    strategy: str | Strategy,
    *,
    lr_range: tuple[float, float] | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Space:
    """The space of one strategy: its tunable fields, and the learning rate in `lr_range`.

    Args:
        strategy: a name, or a spelling with settings to hold, ``"agc(scope=tensor)"``.
        lr_range: lowest and highest learning rate; None leaves it alone, unless `overrides` name
            ``lr``.
        overrides: changes to it, as in this module's first lines: field to text.

    Raises:
        UsageError: an unknown field, a range or a value that makes no sense, nothing left to
            tune, or a spelling that gives a value to a field that is searched.
    """
    fixed = single(strategy)
    fields = {field.name: field for field in fields_of(type(fixed))}
    plain = registry.create(fixed.name)
    dimensions: dict[str, Dimension] = {}
    for name, field in fields.items():
        own = _own(field)
        if own is not None:
            dimensions[name] = own
    if lr_range is not None:
        low, high = check_lr_range(*lr_range)
        dimensions[LR] = Dimension(low=low, high=high, log=True)
    lr: float | None = None
    changes: dict[str, Any] = {}
    for name, text in _for(fixed, overrides or {}).items():
        if name == LR:
            read_lr = read_dimension(LR, text, dimensions.get(LR, _ANY_LR), _number_lr)
            if isinstance(read_lr, Dimension):
                dimensions[LR] = read_lr
            else:
                dimensions.pop(LR, None)
                lr = read_lr
            continue
        if name not in fields:
            valid = [*fields, LR]
            raise UsageError(
                f"the space names {name!r}, but {fixed.name} has no such field"
                f"{suggestion(name, valid)} (choices: {', '.join(valid)})"
            )
        value = read_dimension(
            name, text, _kind(fields[name], dimensions.get(name)), _reader(fixed, name)
        )
        if isinstance(value, Dimension):
            dimensions[name] = value
        else:
            dimensions.pop(name, None)
            changes[name] = value
    for name in (*dimensions, *changes):
        if name == LR or getattr(fixed, name) == getattr(plain, name):
            continue
        value = word(getattr(fixed, name))
        raise UsageError(
            f"{name} is what this study searches; leave it out of --strategy {fixed}, or hold it "
            f"with --space {name}={value}"
            if name in dimensions
            else f"{name} is held by the space; leave it out of --strategy {fixed}"
        )
    if not dimensions:
        raise UsageError(
            f"{fixed} has no tunable field: with a fixed learning rate there is nothing to tune"
        )
    return Space(strategy=dataclasses.replace(fixed, **changes), dimensions=dimensions, lr=lr)


def check_overrides(strategies: Iterable[str], overrides: Mapping[str, str] | None) -> None:
    """An error for an override that fits none of `strategies`; see `space_of` for one of them."""
    chosen = [single(text) for text in strategies]
    known = [*(f.name for each in chosen for f in fields_of(type(each))), LR]
    for key in overrides or {}:
        owner, _, name = key.rpartition(".")
        if owner and all(owner != each.name for each in chosen):
            raise UsageError(
                f"the space names the strategy {owner!r}, which this study does not tune"
                f"{suggestion(owner, [each.name for each in chosen])}"
            )
        fits = [each for each in chosen if owner in ("", each.name)]
        if name != LR and not any(name in _names(each) for each in fits):
            valid = dict.fromkeys(known)
            raise UsageError(
                f"the space names {name!r}, but {' and '.join(each.name for each in fits)} "
                f"{'has' if len(fits) == 1 else 'have'} no such field{suggestion(name, valid)} "
                f"(choices: {', '.join(valid)})"
            )


def fitting(strategy: str, overrides: Mapping[str, str] | None) -> dict[str, str]:
    """The overrides that are for one of several strategies, for those `check_overrides` passed."""
    known = {*_names(single(strategy)), LR}
    own = _for(single(strategy), overrides or {})
    return {name: text for name, text in own.items() if name in known}


def parse_space(items: Iterable[str]) -> dict[str, str]:
    """``["clip_factor=1e-4..1:log"]`` as a mapping; each field once."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, text = item.partition("=")
        name, text = name.strip(), text.strip()
        if not (name and equals and text):
            raise UsageError(
                f"--space takes FIELD=RANGE such as clip_factor=1e-4..1:log, window=10|100 or "
                f"max_norm=0.5, but got {item!r}"
            )
        if name in found:
            raise UsageError(f"the space names {name} twice: {found[name]} and {text}")
        found[name] = text
    return found


def lr_range_around(lr: float) -> tuple[float, float]:
    """The learning rates searched by default: from a 30th of `lr` to five times it."""
    return rounded(lr / _LR_BELOW, 2), rounded(lr * _LR_ABOVE, 2)


def check_lr_range(low: float, high: float) -> tuple[float, float]:
    """The ends of a range of learning rates; `UsageError` for what is none."""
    if not 0 < low < high < math.inf:
        raise UsageError(f"the learning rates must be 0 < low < high, but got {low} and {high}")
    return low, high


def single(strategy: str | Strategy) -> Strategy:
    """The strategy spelled; an error for a chain, which a study cannot tune."""
    parsed = registry.parse(strategy) if isinstance(strategy, str) else strategy
    if not isinstance(parsed, Strategy):
        raise UsageError(f"a study tunes one strategy, not a chain, but got {str(strategy)!r}")
    return parsed


def dimension(strategy: Strategy, name: str, text: str) -> Dimension:
    """Read what ``str`` of a dimension wrote, such as ``0.001..1:log``, for one field or ``lr``."""
    if name == LR:
        found = read_dimension(LR, text, _ANY_LR, _number_lr)
    else:
        fields = {field.name: field for field in fields_of(type(strategy))}
        found = read_dimension(name, text, _kind(fields[name], None), _reader(strategy, name))
    return found if isinstance(found, Dimension) else Dimension(choices=(found,))


_ANY_LR = Dimension(low=1e-5, high=1.0, log=True)


def _own(field: FieldInfo) -> Dimension | None:
    """What a study may try for a field, or None for one that it leaves alone."""
    if field.kind != "tunable":
        return None
    if field.choices:
        return Dimension(choices=tuple(field.choices))
    if field.low is None or field.high is None:
        return None
    return Dimension(low=field.low, high=field.high, log=field.log, whole=field.type is int)


def _kind(field: FieldInfo, own: Dimension | None) -> Dimension:
    """The scale and type that a range for `field` has where its text does not say."""
    log = own is not None and own.log
    return Dimension(low=0.0, high=1.0, log=log, whole=field.type is int)


def _for(strategy: Strategy, overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides that are for `strategy`; one that names it wins."""
    own = {key: text for key, text in overrides.items() if "." not in key}
    prefix = f"{strategy.name}."
    named = {k.removeprefix(prefix): t for k, t in overrides.items() if k.startswith(prefix)}
    return {**own, **named}


def _names(strategy: Strategy) -> set[str]:
    return {field.name for field in fields_of(type(strategy))}


def _reader(strategy: Strategy, name: str) -> Callable[[Any], Any]:
    """How a value of one field is checked: by its own rule, apart from the other fields."""
    valid: Sequence[str] | None = {
        "scope": strategy.scopes,
        "rule": strategy.rules,
        "side": strategy.sides,
    }.get(name)

    def value_of(value: Any) -> Any:
        coerced = check(strategy.name, type(strategy), name, value)
        if valid is not None and coerced not in valid:
            raise UsageError(
                f"{strategy.name}: {name} {coerced!r} makes no sense here"
                f"{suggestion(str(coerced), valid)} (choices: {', '.join(valid)})"
            )
        return coerced

    return value_of


def _number_lr(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UsageError(f"a learning rate is a number above 0, but got {value!r}")
    return float(value)
