"""``gclip check``: does a strategy, a problem or a model keep the promises that all make?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.interrupts import interruptible
from gclip.cli.named import chosen_of
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
            help="A Python file or module of a plugin; names of strategies, tasks and models, or "
            "spellings of tasks and models; or both.",
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
        int, typer.Option("--seed", help="Of the gradients, the settings and the runs.")
    ] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the data that a task needs.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check that strategies, problems and models keep their contracts: promises, kept or broken.

    With a file alone, all that it registers; with names as well, only those. A name that a
    strategy, a task and a model share is told apart by its kind, as in model:NAME. It takes
    about ten seconds a strategy. Exit code 1 where a promise is broken.

    \b
    Examples:
      gclip check my_strategies.py
      gclip check my_strategies.py mine --only saved --only batched
      gclip check norm agc --json
      gclip check my_problem.py
      gclip check "digits" model:mlp
    """
    load("torch")
    chosen = chosen_of(what)
    wanted = _wanted(only, {kind for kind, _ in chosen})
    checked: dict[str, dict[str, list[Result]]] = {}
    message = "nothing is kept; the same command begins again"
    with interruptible(lambda: message), StepsDisplay(len(chosen)) as display:
        for kind, name in chosen:
            display.begin(f"checking the contract of {name}")
            names = None if wanted is None else wanted[kind]
            checked.setdefault(f"{kind}s" if kind != "strategy" else "strategies", {})[name] = (
                _examine(kind, name, names, seed, data)
            )
        display.end()
    results = [(name, found) for group in checked.values() for name, found in group.items()]
    if json:
        screen.echo_json(
            {k: {n: _as_json(found) for n, found in v.items()} for k, v in checked.items()}
        )
    else:
        for name, found in results:
            _print(name, found)
    if any(result.state == "broken" for _, found in results for result in found):
        raise typer.Exit(1)


def _examine(
    kind: str, name: str, only: list[str] | None, seed: int, data: Path | None
) -> list[Result]:
    import gclip
    from gclip.testing import examine
    from gclip.training import examine_model, examine_problem

    if kind == "strategy":
        return examine(gclip.get(name), only=only, seed=seed)
    if kind == "problem":
        return examine_problem(name, only=only, seed=seed, data=data)
    return examine_model(name, only=only, seed=seed)


def _wanted(only: list[str] | None, kinds: set[str]) -> dict[str, list[str]] | None:
    """The promises asked for that each kind has; None for all.

    Raises:
        UsageError: a promise that none of them has.
    """
    from gclip.errors import unknown
    from gclip.testing import promises
    from gclip.training import model_promises, problem_promises

    if only is None:
        return None
    every: dict[str, list[str]] = {
        "strategy": [each.name for each in promises()],
        "problem": [each.name for each in problem_promises()],
        "model": [each.name for each in model_promises()],
    }
    known = dict.fromkeys(name for kind, names in every.items() if kind in kinds for name in names)
    for name in only:
        if name not in known:
            unknown("promise", name, known)
    return {kind: [name for name in only if name in names] for kind, names in every.items()}


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
