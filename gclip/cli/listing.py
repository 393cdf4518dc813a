"""``gclip list``: what strategies, problems and models are there?"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

from gclip.cli.described import Descriptions
from gclip.cli.list_plugins import list_plugins
from gclip.cli.options import Json, Plugins
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.table import Column, TextTable

_Listed: TypeAlias = dict[str, Any]
"""A strategy as ``--json`` lists it."""
_COLUMNS = (
    Column(heading="strategy", words=True),
    Column(heading="parameters", words=True, least=23),
    Column(heading="scope", words=True),
    Column(heading="side", words=True),
    Column(heading="memory", words=True, leaves=2, least=12),
    Column(heading="paper", words=True, leaves=1, least=16),
)

_LEGEND = (
    "scope: by default. side: what it can clip, the default first; sample: each example's gradient."
    "\ngclip show NAME: ranges of the parameters, all choices, the paper, and an example."
)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list")(show_strategies)


def show_strategies(
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            metavar="NAME",
            help='Only these: "past norms", "skips steps", ….',
            show_default="all",
        ),
    ] = None,
    side: Annotated[
        str | None,
        typer.Option(
            "--side",
            metavar="NAME",
            help="Only those that can clip the gradient, the update, or each example (sample).",
            show_default="all",
        ),
    ] = None,
    problems: Annotated[
        bool, typer.Option("--problems", help="List the problems (for --task) instead.")
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="List the models (for --model) instead.")
    ] = False,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """List the strategies by family: parameters, scope, side, memory, paper.

    Or the problems, with their fields, metrics and defaults; or the models, with their settings
    and the inputs that they take. `gclip show NAME` says more about one of them.

    \b
    Examples:
      gclip list
      gclip list --family "past norms"
      gclip list --side update
      gclip list --problems
      gclip list --models --json
      gclip list --plugin my_strategies.py --json
    """
    described = Descriptions(plugin)
    if problems or models:
        if family is not None or side is not None:
            raise UsageError("--family and --side choose strategies; leave them out here")
        list_plugins(described, problems=problems, models=models, as_json=json)
        return
    grouped = _families(_chosen(described, family, side))
    if json:
        screen.echo_json({"strategies": [each for group in grouped.values() for each in group]})
        return
    table = TextTable(columns=_COLUMNS)
    for name, members in grouped.items():
        table.section(f"{name} ({len(members)})")
        for each in members:
            table.add(*_cells(each))
    screen.echo_table(table)
    screen.echo()
    screen.echo_wrapped(_LEGEND)


def _chosen(described: Descriptions, family: str | None, side: str | None) -> list[_Listed]:
    from gclip.core.choices import SIDES
    from gclip.errors import choose

    every = [each["listed"] for each in described.everything("strategy")]
    if side is not None:
        choose(side, SIDES, "side")
    if family is not None:
        choose(family, _families(every), "family")
    chosen = [
        each
        for each in every
        if family in (None, each["family"]) and (side is None or side in each["sides"])
    ]
    if not chosen:
        raise UsageError(f"no strategy of the family {family!r} has the side {side!r}")
    return chosen


def _families(listed: list[_Listed]) -> dict[str, list[_Listed]]:
    from gclip.describe.parameters import in_families

    return in_families(listed, lambda each: str(each["family"]))


def _cells(each: _Listed) -> tuple[str, ...]:
    return (
        "\n".join((each["name"], *(f"= {alias}" for alias in each["aliases"]))),
        _parameters(each) or "–",
        each["scope"],
        ", ".join(each["sides"]),
        each["memory"]["words"],
        "\n".join(filter(None, (each["reference"], each["arxiv"] and f"arXiv:{each['arxiv']}")))
        or "–",
    )


def _parameters(each: _Listed) -> str:
    """Names and defaults, those that studies search first, as they are spelled."""
    from gclip.describe.parameters import format_value

    own = [p for p in each["parameters"] if not p["shared"] or p["kind"] == "tunable"]
    ordered = sorted(own, key=lambda p: p["kind"] != "tunable")
    return ", ".join(f"{p['name']}={format_value(p['default'])}" for p in ordered)
