"""What ``gclip show`` says about a problem or a model."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from gclip.text import screen
from gclip.text.table import Column, TextTable, fill


def show_plugin(kind: str, text: str, *, as_json: bool) -> None:
    """Print all that there is to say about one.

    Raises:
        UsageError: a spelling that means nothing.
    """
    about = _Problem(text) if kind == "problem" else _Model(text)
    if as_json:
        description = about.description
        screen.echo_json(
            {
                "kind": kind,
                **description.as_dict(),
                "doc": description.doc,
                "spelling": about.spelling,
                "example": about.example,
            }
        )
        return
    screen.echo(f"{about.description.name} · {kind}")
    if about.spelling != about.description.name:
        screen.echo(f"here: {about.spelling}")
    screen.echo()
    for line in wrapped(about.description.doc):
        screen.echo(line)
    screen.echo()
    for name, fact in about.facts().items():
        if fact:
            for line in fill(f"{name}: {fact}", screen.prose_width()):
                screen.echo(line)
    screen.echo()
    table = about.table()
    if table is not None:
        screen.echo_table(table)
        screen.echo()
    screen.echo(about.example)


class _Problem:
    def __init__(self, text: str) -> None:
        from gclip.describe import describe_problem
        from gclip.training.tasks import problem_of

        self.problem = problem_of(text)
        self.spelling = str(self.problem)
        self.description = describe_problem(self.problem.name)
        self.example = f"gclip compare --task {_quoted(self.spelling)} -s none -s norm"

    def facts(self) -> dict[str, str]:
        """What is said in a line each."""
        metric, cls = self.description.metric, self.description.cls
        ends = (("from", metric.low), ("to", metric.high))
        ranged = " ".join(f"{word} {metric.text(end)}" for word, end in ends if math.isfinite(end))
        worst = "that of guessing" if metric.name == "accuracy" else metric.text(metric.worst)
        network = "of its own" if cls.own_models else "any that takes its inputs (--model)"
        return {
            "metric": ", ".join(
                filter(None, (self.description.direction, ranged, f"diverged: {worst}"))
            ),
            "defaults": self.description.settings,
            "networks": network,
            "steps of a batch": ", ".join(f"{name} {n}" for name, n in cls.updates.items()),
            "paper": cls.paper,
        }

    def table(self) -> TextTable | None:
        """The fields."""
        from gclip.describe import format_value

        rows = []
        for parameter in self.description.parameters:
            info, value = parameter.info, getattr(self.problem, parameter.info.name)
            text = format_value(value)
            if value != info.default:
                text += f"\n(not {format_value(info.default)})"
            allowed = " | ".join(map(format_value, info.choices)) if info.choices else ""
            rows.append(
                (info.name, text, allowed or parameter.allowed or "–", parameter.doc or "–")
            )
        return _table(("field", "value", "allowed", "meaning"), rows)


class _Model:
    def __init__(self, text: str) -> None:
        from gclip.describe import describe_model
        from gclip.training import models

        name, self.given = models.parse(text)
        self.spelling, self.description = models.canonical(text), describe_model(name)
        self.example = f"gclip compare --model {_quoted(self.spelling)} -s none -s norm"

    def facts(self) -> dict[str, str]:
        """What is said in a line each."""
        return {"inputs": ", ".join(self.description.inputs) or "none of those that are tried"}

    def table(self) -> TextTable | None:
        """The settings."""
        from gclip.describe import format_value

        rows = []
        for name, setting in self.description.settings.items():
            text = format_value(self.given.get(name, setting.default))
            if name in self.given:
                text += f"\n(not {format_value(setting.default)})"
            kinds = " | ".join(map(format_value, setting.choices)) or " or ".join(
                kind.__name__ for kind in setting.kinds
            )
            rows.append((name, text, kinds))
        return _table(("setting", "value", "allowed"), rows)


def _table(headings: tuple[str, ...], rows: list[Any]) -> TextTable | None:
    if not rows:
        return None
    table = TextTable(columns=[Column(heading=each, words=True) for each in headings])
    for row in rows:
        table.add(*row)
    return table


def _quoted(spelling: str) -> str:
    return f'"{spelling}"' if "(" in spelling else spelling


def wrapped(body: str, width: int | None = None) -> Iterator[str]:
    """A docstring for the terminal: paragraphs filled, blocks and lists as they are."""
    width = screen.prose_width() if width is None else width
    for place, paragraph in enumerate(re.split(r"\n\s*\n", body.replace("``", "`"))):
        if place:
            yield ""
        lines = paragraph.splitlines()
        if any(line.startswith((" ", "\t", "- ", "* ", "1. ")) for line in lines):
            yield from (line.rstrip() for line in lines)
        else:
            yield from textwrap.wrap(
                " ".join(paragraph.split()), width, break_long_words=False, break_on_hyphens=False
            )
