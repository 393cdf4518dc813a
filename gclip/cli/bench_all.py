"""``gclip bench all``: every benchmark, in one answer with the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gclip.cli.bench import NOTHING_KEPT, machine, positive, report
from gclip.cli.bench_progress import BenchProgress
from gclip.cli.interrupts import interruptible
from gclip.cli.options import Json
from gclip.text import screen
from gclip.text.progress import load


def add_to(app: typer.Typer) -> None:
    """Add the command to ``gclip bench``."""
    app.command("all")(run_all)


def run_all(
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            help="How long to measure each row, about.",
            show_default="as each benchmark by itself",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the images, for bench data.",
            show_default="that one is left out",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Run every benchmark, on the GPU too where there is one. It takes half an hour.

    One that fails is told of and stops none of the others; then the exit code is 1.

    \b
    Examples:
      gclip bench all --json > bench.json
      gclip bench all --seconds 0.5 --data images
    """
    load("torch")
    import torch

    from gclip.bench.every import every

    if seconds is not None:
        positive(seconds)
    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        found = every(seconds=seconds, data=data, progress=progress)
    if json:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        about = {**machine(), "device": device, "threads": torch.get_num_threads()}
        screen.echo_json({"bench": "all", "machine": about, "benches": found})
    else:
        for place, each in enumerate(found):
            screen.echo(f"{'' if place == 0 else chr(10)}{each['bench']}, {each['seconds']:.0f} s")
            if "rows" in each:
                report(each["bench"], each["rows"], False, speedup=False)
            else:
                why = "skipped" if "skipped" in each else "failed"
                screen.echo_wrapped(f"{why}: {each[why]}")
    if any("failed" in each for each in found):
        raise typer.Exit(1)
