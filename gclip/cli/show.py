"""``gclip show``: one strategy, what can be set on it, and what it does to a few norms; or one
problem or model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from gclip.cli.described import Descriptions
from gclip.cli.options import Json, Plugins
from gclip.cli.show_plugin import show_plugin, wrapped
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.table import Column, TextTable, fill

if TYPE_CHECKING:
    from gclip.describe.facts import Facts

_Shown: TypeAlias = dict[str, Any]
"""A strategy as ``--json`` shows it."""
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
    described = Descriptions(plugin)
    found = described.recalled(name) if norms is None else None
    kind, facts = _worked_out(described, name, norms) if found is None else found
    if kind != "strategy":
        show_plugin(kind, facts, as_json=json)
        return
    shown = facts["shown"]
    if json:
        screen.echo_json(shown)
        return
    for line in _about(shown):
        screen.echo(line)
    screen.echo_table(_parameters(shown))
    screen.echo()
    for line in _example(shown):
        screen.echo(line)


def _worked_out(described: Descriptions, name: str, norms: str | None) -> tuple[str, Facts]:
    described.load()
    from gclip.cli.named import meant
    from gclip.describe.facts import facts_of

    kind, text = meant(name)
    example_norms = _norms(norms)
    if kind != "strategy" and example_norms is not None:
        raise UsageError(f"--norms is for strategies, and {text} is a {kind}; leave it out")
    facts = facts_of(kind, text, example_norms)
    described.keep_for_next_time(kind)
    return kind, facts


def _about(shown: _Shown) -> Iterator[str]:
    names = " = ".join((shown["name"], *shown["aliases"]))
    yield f"{names} · {shown['family']}"
    if shown["spelling"] != shown["name"]:
        yield f"here: {shown['spelling']}"
    yield ""
    yield from wrapped(shown["doc"])
    yield ""
    memory = shown["memory"]
    if memory["numbers_on_lenet"]:
        when = " after 64 steps" if memory["grows"] else ""
        size = f" ({screen.plural(memory['numbers_on_lenet'], 'number')} on LeNet{when})"
    else:
        size = ""
    facts = {
        "equation": shown["equation"],
        "memory": f"{memory['words']}{size}",
        "paper": shown["paper"],
    }
    for name, fact in facts.items():
        if fact:
            yield from fill(f"{name}: {fact}", screen.prose_width())
    yield ""


def _parameters(shown: _Shown) -> TextTable:
    from gclip.describe.parameters import allowed_of, range_of, value_text

    table = TextTable(
        columns=[
            Column(heading="setting", words=True),
            Column(heading="value", words=True),
            Column(heading="search or choices", words=True, least=16),
            Column(heading="allowed", words=True, least=12),
            Column(heading="meaning", words=True, least=24),
        ]
    )
    for each in shown["parameters"]:
        text = value_text(shown["settings"][each["name"]], each["default"])
        ranged = range_of(each) or ("not searched" if each["kind"] == "setting" else "")
        table.add(each["name"], text, ranged, allowed_of(each) or "–", each["doc"] or "–")
    return table


def _example(shown: _Shown) -> Iterator[str]:
    from gclip.describe.parameters import number

    example, settings = shown["example"], shown["settings"]
    yield from fill(
        f"What {example['strategy']} does to these norms, one a step:", screen.prose_width()
    )
    norms, left, first = example["norms"], example["left"], example["first_step"]
    rows: list[tuple[str, Sequence[str]]] = [("norm", [number(n) for n in norms])]
    if example["limits"] is not None:
        rows.append(("limit", [number(n) for n in example["limits"]]))
    rows.append(("left", [number(n) for n in left]))
    skips = settings["rule"] == "skip"
    factors = [now / was if was else 1.0 for was, now in zip(norms, left, strict=True)]
    rows.append(("factor", [_factor(f, skips) for f in factors]))
    per_line = max(1, (screen.prose_width() - _LABEL) // _CELL)
    for start in range(0, len(norms), per_line):
        yield ""
        end = min(start + per_line, len(norms))
        yield _cells("step", [str(first + place) for place in range(start, end)])
        for name, cells in rows:
            yield _cells(name, cells[start:end])
    yield ""
    if example["shortened"]:
        changes = [
            f"{name}={change['is']} instead of {change['was']}"
            for name, change in example["shortened"].items()
        ]
        yield f"Warm-up shortened for the example: {', '.join(changes)}."
    if first:
        yield f"The {first} steps before these saw the same norms over and over."
    yield from textwrap.wrap(_NOTE.get(settings["side"], _NOTE["gradient"]), screen.prose_width())


_NOTE = {
    "gradient": "Of one gradient of one element, whose weight is 1, at learning rate 1.",
    "update": "Of the update of one element, whose weight was 1, at learning rate 1.",
    "sample": "Each is an example's gradient of one element, whose weight is 1.",
}


def _cells(name: str, cells: Sequence[str]) -> str:
    return f"{name:<{_LABEL}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)


def _factor(factor: float, skips: bool) -> str:
    from gclip.describe.parameters import number

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
