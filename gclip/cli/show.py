"""``gclip show``: one strategy, what can be set on it, and what it does to a few norms; or one
problem or model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gclip.cli.named import meant
from gclip.cli.options import Json, Plugins, load_plugins
from gclip.cli.show_plugin import show_plugin, wrapped
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable, fill

if TYPE_CHECKING:
    from gclip import Strategy
    from gclip.describe import Description, Example

_CELL = 9
_LABEL = 8


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("show")(show)


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help='A strategy, a task or a model, or a spelling such as "norm(max_norm=0.1)".',
            show_default=False,
        ),
    ],
    norms: Annotated[
        str | None,
        typer.Option(
            "--norms",
            metavar="LIST",
            help="Norms for the example, such as 1,2,5.",
            show_default="such as show what it does",
        ),
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Show one strategy: what it does, its parameters, and an example; or one problem or model.

    \b
    Examples:
      gclip show agc
      gclip show "norm(max_norm=0.1)" --norms 1,2,0.05
      gclip show mine --plugin my_strategies.py
      gclip show digits
      gclip show model:mlp
    """
    load("torch")
    import gclip
    from gclip.describe import describe, example

    load_plugins(plugin)
    kind, text = meant(name)
    example_norms = _norms(norms)
    if kind != "strategy":
        if example_norms is not None:
            raise UsageError(f"--norms is for strategies, and {text} is a {kind}; leave it out")
        show_plugin(kind, text, as_json=json)
        return
    parsed = gclip.parse(text)
    if not isinstance(parsed, gclip.Strategy):
        raise UsageError(f"show takes one strategy, not the chain {text!r}; show each by itself")
    description, shown = describe(type(parsed)), example(parsed, example_norms)
    if json:
        settings = {p.info.name: getattr(parsed, p.info.name) for p in description.parameters}
        screen.echo_json(
            {
                **description.as_dict(),
                "doc": description.doc,
                "spelling": str(parsed),
                "settings": settings,
                "example": shown.as_dict(),
            }
        )
        return
    for line in _about(description, parsed):
        screen.echo(line)
    screen.echo_table(_parameters(description, parsed))
    screen.echo()
    for line in _example(shown):
        screen.echo(line)


def _about(each: Description, strategy: Strategy) -> Iterator[str]:
    names = " = ".join((each.name, *each.cls.aliases))
    yield f"{names} · {each.family}"
    if str(strategy) != each.name:
        yield f"here: {strategy}"
    yield ""
    yield from wrapped(each.doc)
    yield ""
    memory = each.memory
    if memory.on_lenet:
        when = " after 64 steps" if memory.grows else ""
        size = f" ({screen.plural(memory.on_lenet, 'number')} on LeNet{when})"
    else:
        size = ""
    facts = {"equation": each.equation, "memory": f"{memory.words}{size}", "paper": each.cls.paper}
    for name, fact in facts.items():
        if fact:
            yield from fill(f"{name}: {fact}", screen.prose_width())
    yield ""


def _parameters(each: Description, strategy: Strategy) -> TextTable:
    from gclip.describe import format_value

    table = TextTable(
        columns=[
            Column(heading="setting", words=True),
            Column(heading="value", words=True),
            Column(heading="search or choices", words=True, least=16),
            Column(heading="allowed", words=True, least=12),
            Column(heading="meaning", words=True, least=24),
        ]
    )
    for parameter in each.parameters:
        info = parameter.info
        value = getattr(strategy, info.name)
        text = format_value(value)
        if value != info.default:
            text += f"\n(not {format_value(info.default)})"
        ranged = parameter.range or ("not searched" if info.kind == "setting" else "")
        table.add(info.name, text, ranged, parameter.allowed or "–", parameter.doc or "–")
    return table


def _example(shown: Example) -> Iterator[str]:
    from gclip.describe import number

    yield from fill(f"What {shown.strategy} does to these norms, one a step:", screen.prose_width())
    rows: list[tuple[str, Sequence[str]]] = [("norm", [number(n) for n in shown.norms])]
    if shown.limits is not None:
        rows.append(("limit", [number(n) for n in shown.limits]))
    rows.append(("left", [number(n) for n in shown.left]))
    skips = shown.strategy.rule == "skip"
    rows.append(("factor", [_factor(f, skips) for f in shown.factors]))
    per_line = max(1, (screen.prose_width() - _LABEL) // _CELL)
    for start in range(0, len(shown.norms), per_line):
        yield ""
        end = min(start + per_line, len(shown.norms))
        yield _cells("step", [str(shown.first + place) for place in range(start, end)])
        for name, cells in rows:
            yield _cells(name, cells[start:end])
    yield ""
    if shown.shortened:
        changes = [f"{name}={is_} instead of {was}" for name, (was, is_) in shown.shortened.items()]
        yield f"Warm-up shortened for the example: {', '.join(changes)}."
    if shown.first:
        yield f"The {shown.first} steps before these saw the same norms over and over."
    yield from textwrap.wrap(
        _NOTE.get(shown.strategy.side, _NOTE["gradient"]), screen.prose_width()
    )


_NOTE = {
    "gradient": "Of one gradient of one element, whose weight is 1, at learning rate 1.",
    "update": "Of the update of one element, whose weight was 1, at learning rate 1.",
    "sample": "Each is an example's gradient of one element, whose weight is 1.",
}


def _cells(name: str, cells: Sequence[str]) -> str:
    return f"{name:<{_LABEL}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _factor(factor: float, skips: bool) -> str:
    from gclip.describe import number

    return "–" if factor == 1 else "skip" if skips else number(factor)


def _norms(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        norms = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--norms takes numbers with commas between them, such as 1,2,5, but got {text!r}"
        ) from None
    below = next((norm for norm in norms if norm < 0), None)
    if below is not None:
        raise UsageError(f"a norm is at least 0, but --norms has {below:g}")
    return norms
