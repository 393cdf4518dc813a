"""``gclip list``: what strategies, problems and models are there?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gclip.cli.list_plugins import list_plugins
from gclip.cli.options import Json, Plugins, load_plugins
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.describe import Description

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
    load("torch")
    from gclip.describe import families

    load_plugins(plugin)
    if problems or models:
        if family is not None or side is not None:
            raise UsageError("--family and --side choose strategies; leave them out here")
        list_plugins(problems=problems, models=models, as_json=json)
        return
    grouped = families(_chosen(family, side))
    if json:
        screen.echo_json({"strategies": [d.as_dict() for group in grouped.values() for d in group]})
        return
    table = TextTable(columns=_COLUMNS)
    for name, members in grouped.items():
        table.section(f"{name} ({len(members)})")
        for each in members:
            table.add(*_cells(each))
    screen.echo_table(table)
    screen.echo()
    screen.echo_wrapped(_LEGEND)


def _chosen(family: str | None, side: str | None) -> list[Description]:
    import gclip
    from gclip.core.strategy import SIDES
    from gclip.describe import describe, families
    from gclip.errors import choose

    every = [describe(gclip.get(name)) for name in gclip.names()]
    if side is not None:
        choose(side, SIDES, "side")
    if family is not None:
        choose(family, families(every), "family")
    chosen = [
        each
        for each in every
        if family in (None, each.family) and (side is None or side in each.sides)
    ]
    if not chosen:
        raise UsageError(f"no strategy of the family {family!r} has the side {side!r}")
    return chosen


def _cells(each: Description) -> tuple[str, ...]:
    return (
        "\n".join((each.name, *(f"= {alias}" for alias in each.cls.aliases))),
        _parameters(each) or "–",
        each.defaults.scope,
        ", ".join(each.sides),
        each.memory.words,
        "\n".join(filter(None, (each.reference, each.arxiv and f"arXiv:{each.arxiv}"))) or "–",
    )


def _parameters(each: Description) -> str:
    """Names and defaults, those that studies search first, as they are spelled."""
    from gclip.describe import format_value

    searched = [p for p in each.own if p.info.kind == "tunable"]
    others = [p for p in each.own if p.info.kind != "tunable"]
    return ", ".join(f"{p.info.name}={format_value(p.info.default)}" for p in (*searched, *others))
