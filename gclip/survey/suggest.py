"""Which threshold would clip one step in ten? Searched for every strategy by replaying norms.

What is searched is a strategy's first tunable number, between the `low` and `high` of its field;
everything else stays as it is. Nothing here knows any strategy by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from gclip.core.fields import FieldInfo, fields_of
from gclip.core.strategy import Strategy, Transform
from gclip.errors import UsageError
from gclip.survey.norm_log import Watched
from gclip.survey.suggestions import Suggestion
from gclip.survey.threshold_search import ThresholdSearch

_GROUPS = {
    "global": "all gradients",
    "layer": "each layer",
    "tensor": "each tensor",
    "unit": "each unit",
    "element": "each tensor",
}

Find = Callable[[Strategy], "Sequence[Watched]"]


def suggest(
    strategies: Sequence[Strategy], find: Find, clip_rate: float = 0.1
) -> tuple[Suggestion, ...]:
    """A row for each strategy.

    Args:
        strategies: those that get a row, in this order.
        find: the watched runs that a strategy's limit is to be held against; a `UsageError` where
            there are none becomes the row's reason.
        clip_rate: the share of steps that is to be limited.

    Raises:
        UsageError: a `clip_rate` that is not between 0 and 1.
    """
    if not 0 < clip_rate < 1:
        raise UsageError(f"clip_rate must be above 0 and below 1, but got {clip_rate!r}")
    return tuple(_row(strategy, find, clip_rate) for strategy in strategies)


def main_tunable(strategy: Strategy) -> FieldInfo | None:
    """The field that is the strategy's threshold: its first tunable number."""
    for info in fields_of(type(strategy)):
        if info.kind == "tunable" and info.low is not None and info.high is not None:
            return info
    return None


def _row(strategy: Strategy, find: Find, clip_rate: float) -> Suggestion:
    row = Suggestion(strategy=strategy.name, spelling=str(strategy), scope=strategy.scope)
    info = main_tunable(strategy)
    reason = _reason(strategy, info)
    if info is None or reason:
        return dataclasses.replace(row, reason=reason)
    row = dataclasses.replace(row, field=info.name, compared_with=_compared(strategy))
    try:
        search = ThresholdSearch(strategy, info, find(strategy))
        return search.row(row, clip_rate)
    except UsageError as error:
        return dataclasses.replace(row, reason=str(error))
    except Exception as error:  # of a plugin, say: the others' rows are not lost for it
        return dataclasses.replace(row, reason=f"failed with {type(error).__name__}: {error}")


def _reason(strategy: Strategy, info: FieldInfo | None) -> str:
    """Why norms cannot tell a threshold, "" where they can."""
    if info is None:
        return "no threshold to tune"
    if isinstance(strategy, Transform):
        return "changes elements by a rule of its own, of which norms tell nothing"
    if strategy.side != "gradient":
        what = "the optimizer's update" if strategy.side == "update" else "single examples"
        return f"clips {what}, and only gradients are watched"
    if strategy.rule == "normalize":
        return "gives every gradient the same norm, so no step is left unclipped"
    return ""


def _compared(strategy: Strategy) -> str:
    if strategy.clamps:
        return f"largest element of {_GROUPS[strategy.scope]}"
    order = "" if strategy.order == 2 else f"{strategy.order:g}-"
    return f"{order}norm of {_GROUPS[strategy.scope]}"
