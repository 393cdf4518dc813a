"""``gclip bench store``: how long it takes to look into a store, and how that grows."""

from __future__ import annotations

from typing import Annotated

import typer

from gclip.cli.bench import NOTHING_KEPT, report
from gclip.cli.bench_progress import BenchProgress
from gclip.cli.interrupts import interruptible
from gclip.cli.options import Json
from gclip.text.progress import load


def add_to(app: typer.Typer) -> None:
    """Add the command to ``gclip bench``."""
    app.command("store")(store)


def store(
    runs: Annotated[
        list[int] | None,
        typer.Option(
            "--runs", help="Runs in a store; again for more.", show_default="10, 1000 and 10000"
        ),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Time a figure of the store, too.")
    ] = True,
    json: Json = False,
) -> None:
    """Time looking into stores of more and more runs, which are made for it.

    \b
    Examples:
      gclip bench store
      gclip bench store --runs 10 --runs 100000 --no-figures
    """
    load("torch")
    from gclip.bench import store as measured

    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        rows = measured.rows(tuple(runs or measured.RUNS), figures=figures, progress=progress)
    more = (
        "us_a_run: microseconds a run; of commands from their start. exponent: of the time's "
        "growth since the smaller store; 1: as the runs."
    )
    report("store", rows, json, more, speedup=False)
