"""``gclip bench growth``: how the time of a clip call grows."""

from __future__ import annotations

from typing import Annotated

import typer

from gclip.cli.bench import NOTHING_KEPT, Seconds, positive, report
from gclip.cli.bench_progress import BenchProgress
from gclip.cli.interrupts import interruptible
from gclip.cli.options import Json
from gclip.text.progress import load


def add_to(app: typer.Typer) -> None:
    """Add the command to ``gclip bench``."""
    app.command("growth")(growth)


def growth(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help="The name of one to time; again for more.",
            show_default="norm, agc, percentile and zclip",
        ),
    ] = None,
    seconds: Seconds = 0.2,
    json: Json = False,
) -> None:
    """Time clip calls over more and more parameters, tensors, groups and steps.

    What a strategy remembers, and whether that grows: gclip list.

    \b
    Examples:
      gclip bench growth
      gclip bench growth -s past_quantile --json
    """
    load("torch")
    from gclip.bench import growth as measured

    chosen = tuple(strategy or measured.STRATEGIES)
    with interruptible(lambda: NOTHING_KEPT), BenchProgress(4 * len(chosen)) as progress:
        rows = measured.rows(chosen, seconds=positive(seconds), progress=progress)
    more = "exponent: the median call takes as long as the size to this power, fitted to all sizes."
    report("growth", rows, json, more, speedup=False)
