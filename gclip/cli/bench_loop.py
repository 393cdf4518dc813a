"""``gclip bench loop``: what clipping adds to a step of training, by hand and in frameworks."""

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
    app.command("loop")(loop)


def loop(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Which net; of inputs of 3 × 32 × 32.")
    ] = "lenet",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images a batch.")] = 128,
    seconds: Seconds = 10.0,
    json: Json = False,
) -> None:
    """Time a step of training with our clipping beside torch's: by hand and in frameworks.

    \b
    Examples:
      gclip bench loop
      gclip bench loop --model mlp --batch-size 32 --json
    """
    load("torch")
    from gclip.bench import loop as measured
    from gclip.bench.rates import check_counts

    check_counts("batch sizes", [batch_size])
    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        rows = measured.rows(
            seconds=positive(seconds), batch=batch_size, model=model, progress=progress
        )
    what = "overhead: median of our time over the peer's in turns, less 1; lower, upper: quartiles."
    report("loop", rows, json, what, speedup=False)
