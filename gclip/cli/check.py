"""``gclip check``: does a strategy keep the promises that every strategy makes?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.options import Json
from gclip.cli.progress import StepsDisplay
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.testing import Result


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|MODULE|NAME...",
            help="A Python file or module that registers strategies, names of strategies, or both.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PROMISE",
            help="Check this promise only; again for more.",
            show_default="all",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Of the gradients and the settings that are drawn.")
    ] = 0,
    json: Json = False,
) -> None:
    """Check that a strategy keeps the contract: a table of promises, kept or broken.

    With a file alone, all strategies that it registers; with names as well, only those. It
    takes about ten seconds a strategy. Exit code 1 where a promise is broken.

    \b
    Examples:
      gclip check my_strategies.py
      gclip check my_strategies.py mine --only saved --only batched
      gclip check norm agc --json
    """
    load("torch")
    import gclip
    from gclip.testing import examine

    checked = {}
    names = _chosen(what)
    with StepsDisplay(len(names)) as display:
        for name in names:
            display.begin(f"checking the contract of {name}")
            checked[name] = examine(gclip.get(name), only=only, seed=seed)
        display.end()
    if not json:
        for name, results in checked.items():
            _print(name, results)
    if json:
        screen.echo_json({"strategies": {n: _as_json(results) for n, results in checked.items()}})
    if any(result.state == "broken" for results in checked.values() for result in results):
        raise typer.Exit(1)


def _chosen(what: list[str]) -> list[str]:
    """The strategies meant: the names given, else all that the plugins register."""
    import gclip

    plugins = [each for each in what if _is_plugin(each)]
    loaded = [name for plugin in plugins for name in gclip.load_plugins(plugin)]
    strategies = gclip.names()
    registered = [name for name in loaded if name in strategies]
    if loaded and not registered and plugins == what:
        raise gclip.UsageError(
            f"the contract is one of strategies, and {', '.join(plugins)} registers none"
        )
    named = [gclip.get(each).name for each in what if each not in plugins]
    return list(dict.fromkeys(named or registered))


def _is_plugin(text: str) -> bool:
    """Names of strategies have neither a dot nor a slash; files and modules inside packages do."""
    return any(mark in text for mark in "./\\")


def _print(name: str, results: list[Result]) -> None:
    table = TextTable(
        columns=[
            Column(heading="promise", words=True),
            Column(heading="", words=True),
            Column(heading="what it says, or how it is broken", words=True, least=30),
        ]
    )
    for result in results:
        word = "–" if result.state == "does not apply" else result.state
        table.add(result.promise, word, _text(result))
    counts = {s: sum(r.state == s for r in results) for s in ("ok", "broken", "does not apply")}
    screen.echo(name)
    screen.echo_table(table)
    exempt = counts["does not apply"]
    rest = f", {exempt} {'does' if exempt == 1 else 'do'} not apply" if exempt else ""
    screen.echo(f"{name}: {counts['ok']} kept, {counts['broken']} broken{rest}\n")


def _text(result: Result) -> str:
    if result.state == "broken":
        return "\n".join(result.said)
    if result.state == "does not apply":
        return f"does not apply: {result.said[0]}"
    return result.sentence


def _as_json(results: list[Result]) -> list[dict[str, Any]]:
    return [
        {
            "promise": result.promise,
            "sentence": result.sentence,
            "state": result.state,
            "said": list(result.said),
        }
        for result in results
    ]
