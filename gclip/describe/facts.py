"""Everything that ``gclip list`` and ``gclip show`` print of something, as plain values.

They are worked out by running it, which takes torch and seconds, and are kept (`gclip.core.kept`):
both commands print from these values, whether they were kept or have just been made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from gclip.describe.parameters import format_value, value_text

if TYPE_CHECKING:
    from gclip.core.strategy import Strategy


KINDS = ("strategy", "problem", "model")


class Facts(TypedDict):
    """What is printed of one thing: JSON values throughout.

    Attributes:
        listed: what ``list --json`` says of it.
        shown: what ``show --json`` says.
        aside: of a problem or a model what ``show`` says in lines of their own, by name.
        cells: and its row in the list; a strategy's is made of `listed`.
        table: and its fields or settings, the headings first; empty where there are none.
    """

    listed: dict[str, Any]
    shown: dict[str, Any]
    aside: dict[str, str]
    cells: list[str]
    table: list[list[str]]


def facts_of(kind: str, text: str, norms: Sequence[float] | None = None) -> Facts:
    """What there is to say about a strategy, problem or model with its settings.

    Args:
        kind: which of the three.
        text: its spelling.
        norms: that a strategy's example is of.

    Raises:
        UsageError: a spelling that means nothing, or one of several strategies.
    """
    if kind == "problem":
        return _of_problem(text)
    return _of_model(text) if kind == "model" else _of_strategy(_one_strategy(text), norms)


def listed_of(kind: str, name: str) -> Facts:
    """As `facts_of`, without the example: a list runs no more of a plugin than it must."""
    if kind != "strategy":
        return facts_of(kind, name)
    from gclip.describe.strategies import describe

    listed = describe(type(_one_strategy(name))).as_dict()
    return {"listed": listed, "shown": {}, "aside": {}, "cells": [], "table": []}


def _one_strategy(text: str) -> Strategy:
    from gclip.core.registry import parse
    from gclip.core.strategy import Strategy
    from gclip.errors import UsageError

    parsed = parse(text)
    if not isinstance(parsed, Strategy):
        raise UsageError(f"show takes one strategy, not the chain {text!r}; show each by itself")
    return parsed


def _of_strategy(strategy: Strategy, norms: Sequence[float] | None) -> Facts:
    from gclip.describe.examples import example
    from gclip.describe.strategies import describe

    description = describe(type(strategy))
    listed = description.as_dict()
    names = [parameter.info.name for parameter in description.parameters]
    shown = {
        **listed,
        "doc": description.doc,
        "spelling": str(strategy),
        "settings": {name: getattr(strategy, name) for name in names},
        "example": example(strategy, norms).as_dict(),
    }
    return {"listed": listed, "shown": shown, "aside": {}, "cells": [], "table": []}


def _of_problem(text: str) -> Facts:
    from gclip.describe.problems import describe_problem
    from gclip.training.tasks import problem_of

    problem = problem_of(text)
    spelling, description = str(problem), describe_problem(problem.name)
    metric, cls = description.metric, description.cls
    ends = (("from", metric.low), ("to", metric.high))
    ranged = " ".join(f"{word} {metric.text(end)}" for word, end in ends if math.isfinite(end))
    worst = "that of guessing" if metric.name == "accuracy" else metric.text(metric.worst)
    said = filter(None, (description.direction, ranged, f"diverged: {worst}"))
    rows, fields = [], []
    for parameter in description.parameters:
        info, given = parameter.info, getattr(problem, parameter.info.name)
        choices = " | ".join(map(format_value, info.choices)) if info.choices else ""
        allowed = choices or parameter.allowed or "–"
        rows.append([info.name, value_text(given, info.default), allowed, parameter.doc or "–"])
        fields.append(f"{info.name}={format_value(info.default)}")
    summary = description.summary.replace("``", "`")
    example = f"gclip compare --task {_quoted(spelling)} -s none -s norm"
    listed = description.as_dict()
    return {
        "listed": listed,
        "shown": _shown("problem", listed, description.doc, spelling, example),
        "aside": {
            "metric": ", ".join(said),
            "defaults": description.settings,
            "networks": "of its own" if cls.own_models else "any that takes its inputs (--model)",
            "steps of a batch": ", ".join(f"{name} {n}" for name, n in cls.updates.items()),
            "paper": cls.paper,
        },
        "cells": [
            description.name, summary, ", ".join(fields) or "–", description.direction,
            description.settings,
        ],
        "table": [["field", "value", "allowed", "meaning"], *rows] if rows else [],
    }  # fmt: skip


def _of_model(text: str) -> Facts:
    from gclip.describe.models import describe_model
    from gclip.training import models

    name, given = models.parse(text)
    spelling, description = models.canonical(text), describe_model(name)
    rows, settings = [], []
    for each, setting in description.settings.items():
        kinds = " | ".join(map(format_value, setting.choices)) or " or ".join(
            kind.__name__ for kind in setting.kinds
        )
        value = value_text(given.get(each, setting.default), setting.default)
        rows.append([each, value, kinds])
        settings.append(f"{each}={format_value(setting.default)}")
    inputs, summary = ", ".join(description.inputs), description.summary.replace("``", "`")
    example = f"gclip compare --model {_quoted(spelling)} -s none -s norm"
    listed = description.as_dict()
    return {
        "listed": listed,
        "shown": _shown("model", listed, description.doc, spelling, example),
        "aside": {"inputs": inputs or "none of those that are tried"},
        "cells": [description.name, summary, ", ".join(settings) or "–", inputs or "–"],
        "table": [["setting", "value", "allowed"], *rows] if rows else [],
    }


def _shown(
    kind: str, listed: dict[str, Any], doc: str, spelling: str, example: str
) -> dict[str, Any]:
    return {"kind": kind, **listed, "doc": doc, "spelling": spelling, "example": example}


def _quoted(spelling: str) -> str:
    return f'"{spelling}"' if "(" in spelling else spelling
