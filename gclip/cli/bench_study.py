"""``gclip bench study``: a whole study beside the scripts that users write."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gclip.cli.bench import NOTHING_KEPT, report
from gclip.cli.bench_progress import BenchProgress
from gclip.cli.interrupts import interruptible
from gclip.cli.options import Json
from gclip.text.progress import load


def add_to(app: typer.Typer) -> None:
    """Add the command to ``gclip bench``."""
    app.command("study")(study)


def study(
    trials: Annotated[int, typer.Option("--trials", help="Of each of the three strategies.")] = 25,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch-size", help="Images a batch; again for more.", show_default="32"),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the data.")] = 5,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the images, as class folders.",
            show_default="the digits",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Time a study from its start beside scripts with Optuna, a DataLoader and a plain loop.

    LeNet, tuned with none, norm and agc. The scripts train trial after trial, with n_jobs=2, and in
    two processes on one storage.

    \b
    Examples:
      gclip bench study
      gclip bench study --trials 100 --batch-size 4 --batch-size 32 --json
    """
    load("torch")
    from gclip.bench import study as measured

    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        rows = measured.rows(
            tuple(batch or (32,)), trials=trials, epochs=epochs, data=data, progress=progress
        )
    more = (
        "speedup: its seconds over those of gclip, starting included. outside: share of the "
        "workers' time that was no training. peak_mib: memory of the largest process."
    )
    report("study", rows, json, more, speedup=False)
