"""``gclip list``: what strategies are there, and what can be set on each?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from gclip.cli import screen
from gclip.cli.options import Json, Plugins, load_plugins

if TYPE_CHECKING:
    from gclip import FieldInfo, Strategy

# "Brock, De, Smith, Simonyan (2021), arXiv:2102.06171." in a class's docstring.
_PAPER = re.compile(r"\(\d{4}[a-z]?\)|arXiv:|doi:|https?://", re.IGNORECASE)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(show_strategies)


def show_strategies(plugin: Plugins = None, json: Json = False) -> None:
    """List the strategies: names, parameters with defaults and ranges, scope, paper.

    \b
    Examples:
      gclip list
      gclip list --plugin my_strategies.py --json
    """
    load_plugins(plugin)
    rows = describe_all()
    if json:
        screen.say_json({"strategies": rows})
        return
    table = screen.plain_table("strategy", "parameters", "scope", "paper")
    for column, least in zip(table.columns, (11, 34, 9, 24), strict=True):
        column.overflow, column.min_width = "fold", least
    for row in rows:
        name = row["name"] + "".join(f"\n= {alias}" for alias in row["aliases"])
        parameters = "\n".join(_shown(each) for each in row["parameters"]) or "–"
        table.add_row(name, parameters, row["scope"] or "–", row["paper"] or "–")
        table.add_section()
    screen.show(table)


def describe_all() -> list[dict[str, Any]]:
    """One JSON-serialisable object a strategy."""
    import gclip

    return [_describe(gclip.get(name)) for name in gclip.names()]


def _describe(cls: type[Strategy]) -> dict[str, Any]:
    import gclip

    fields = gclip.fields_of(cls)
    scope = next((field.default for field in fields if field.name == "scope"), None)
    text = (cls.__doc__ or "").strip()
    return {
        "name": cls.name,
        "aliases": list(cls.aliases),
        "summary": " ".join(text.split("\n\n")[0].split()),
        "parameters": [_parameter(field) for field in fields if field.name != "scope"],
        "scope": scope,
        "paper": _paper(text),
    }


def _parameter(field: FieldInfo) -> dict[str, Any]:
    return {
        "name": field.name,
        "default": field.default,
        "kind": field.kind,
        "low": field.low,
        "high": field.high,
        "log": field.log,
        "choices": list(field.choices) if field.choices else None,
        "doc": field.doc,
    }


def _shown(parameter: dict[str, Any]) -> str:
    text = f"{parameter['name']}={_value(parameter['default'])}"
    if parameter["choices"]:
        return f"{text}  {' | '.join(_value(each) for each in parameter['choices'])}"
    if parameter["low"] is not None and parameter["high"] is not None:
        scale = ", log" if parameter["log"] else ""
        return f"{text}  {_value(parameter['low'])} … {_value(parameter['high'])}{scale}"
    return text


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _paper(docstring: str) -> str:
    """The paragraph of a docstring that gives a reference: a year in brackets, arXiv, a link."""
    for paragraph in docstring.split("\n\n")[1:]:
        if _PAPER.search(paragraph):
            return " ".join(paragraph.split()).replace("``", "").rstrip(".")
    return ""
