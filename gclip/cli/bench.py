"""``gclip bench``: what clipping and loading cost, beside the usual ways of doing it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from gclip.cli.bench_progress import BenchProgress
from gclip.cli.interrupts import interruptible
from gclip.cli.options import Json, Plugins, load_plugins
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Which net; again for more.",
        show_default="lenet, and resnet9 where training alone is timed",
    ),
]
Batches = Annotated[
    list[int] | None,
    typer.Option(
        "--batch-size", help="Images a batch; again for more.", show_default="4, 32 and 128"
    ),
]
Optimizer = Annotated[
    str,
    typer.Option("--optimizer", metavar="NAME", help="sgd, adam, adamw, rmsprop, adagrad or muon."),
]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to measure each row, about.")]

NOTHING_KEPT = "nothing is kept; the same command begins again"


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``gclip bench``."""
    app.command("clip")(clip)
    app.command("data")(data)
    app.command("train")(train)
    app.command("fleet")(fleet)
    app.command("strategies")(strategies)


def clip(json: Json = False) -> None:
    """Time one clip call beside torch's and timm's, on LeNet's and ResNet-18's gradients.

    \b
    Examples:
      gclip bench clip
      gclip bench clip --json > clip.json
    """
    load("torch")
    from gclip.bench import clip as measured

    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        rows = measured.rows(progress=progress)
    report(
        "clip", rows, json,
        "roofline: our time over that of the memory traffic at the bandwidth measured here.",
    )  # fmt: skip


def data(
    data: Annotated[
        Path,
        typer.Option(
            "--data", metavar="DIR", help="Folder of the images: class folders in train/ and test/."
        ),
    ],
    json: Json = False,
) -> None:
    """Time the batches of an image folder beside torchvision's in a DataLoader of two workers.

    Both read and decode the files (as in a first epoch), or both have the images in memory.

    \b
    Examples:
      gclip bench data --data images
    """
    load("torch")
    from gclip.bench import data as measured

    with (
        interruptible(lambda: NOTHING_KEPT),
        BenchProgress(len(measured.CASES), before="reading data") as progress,
    ):
        rows = measured.rows(data, progress)
    report("data", rows, json, "ours_ms, peer_ms: milliseconds a batch.")


def train(
    model: Models = None,
    batch: Batches = None,
    optimizer: Optimizer = "adam",
    seconds: Seconds = 6.0,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the images for the tutorial's loop.",
            show_default="random images",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Time training beside a minimal loop over tensors, and beside the loop of tutorials.

    \b
    Examples:
      gclip bench train
      gclip bench train --model lenet --batch-size 128 --data images
    """
    load("torch")
    from gclip.bench import train as measured

    models, batches = tuple(model or ("lenet", "resnet9")), tuple(batch or (4, 32, 128))
    with (
        interruptible(lambda: NOTHING_KEPT),
        BenchProgress(len(models) * len(batches)) as progress,
    ):
        rows = measured.rows(
            models, batches, optimizer=optimizer, seconds=positive(seconds), data=data,
            progress=progress,
        )  # fmt: skip
    report("train", rows, json, "ours, theirs: images a second.")


def fleet(
    model: Models = None,
    batch: Batches = None,
    runs: Annotated[
        list[int] | None,
        typer.Option(
            "--runs", help="Runs in a fleet; again for more.", show_default="some that suit both"
        ),
    ] = None,
    optimizer: Optimizer = "adam",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help="What the fleet's runs clip with; again for a mixed fleet.",
            show_default="norm",
        ),
    ] = None,
    seconds: Seconds = 4.0,
    tutorial: Annotated[
        bool, typer.Option("--tutorial/--no-tutorial", help="Beside the loop of tutorials, too.")
    ] = True,
    json: Json = False,
) -> None:
    """Time many runs as one program beside the same runs one after another.

    \b
    Examples:
      gclip bench fleet
      gclip bench fleet --model resnet9 --batch-size 32 --runs 4
      gclip bench fleet --batch-size 4 --runs 32 -s norm -s agc -s percentile -s zclip
    """
    load("torch")
    from gclip.bench import fleet as measured

    with interruptible(lambda: NOTHING_KEPT), BenchProgress() as progress:
        rows = [
            row
            for each in model or ("lenet",)
            for row in measured.rows(
                each, tuple(batch or (4, 32, 128)), tuple(runs or ()), optimizer=optimizer,
                strategies=tuple(strategy or ("norm",)), seconds=positive(seconds),
                tutorial=tutorial, progress=progress,
            )
        ]  # fmt: skip
    report("fleet", rows, json, "ours, theirs: images · models a second.")


def strategies(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help="The name of one to time; again for more.",
            show_default="all",
        ),
    ] = None,
    seconds: Seconds = 2.0,
    write: Annotated[
        bool,
        typer.Option("--write", help="Write strategies/costs.json, for the page of strategies."),
    ] = False,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Time one call of each strategy beside norm of the same scope, on ResNet-18's gradients.

    \b
    Examples:
      gclip bench strategies
      gclip bench strategies -s zclip -s agc
      gclip bench strategies --write && make page
    """
    load("torch")
    import gclip
    from gclip.bench import strategies as measured

    positive(seconds)
    if write and plugin:
        raise UsageError("--write is for the strategies that ship with gclip: leave --plugin out")
    load_plugins(plugin)
    this_machine = machine()
    kept_costs = _costs_to_keep(this_machine, bool(strategy)) if write else {}
    total = len(strategy or gclip.names())
    with interruptible(lambda: NOTHING_KEPT), BenchProgress(total) as progress:
        rows = measured.rows(tuple(strategy or ()), seconds=seconds, progress=progress)
    if write:
        from gclip.describe import write_costs

        path = write_costs({**kept_costs, **measured.summary(rows)}, this_machine)
        screen.note(f"written to {path}")
    if json:
        screen.echo_json({"bench": "strategies", "machine": this_machine, "rows": rows})
        return
    numbers = (Column(heading=name) for name in ("cost", "ours µs", "its µs", "clipped"))
    table = TextTable(
        columns=[
            Column(heading="strategy", words=True),
            Column(heading="beside", words=True),
            *numbers,
        ]
    )
    for row in rows:
        if "reason" in row:
            table.add(row["strategy"], row["reason"])
            continue
        table.add(
            row["strategy"], row["peer"], f"{row['cost']:.2f}×", f"{row['ours_us']:.0f}",
            f"{row['peer_us']:.0f}", f"{screen.percent(row['clipped'], 0)} %",
        )  # fmt: skip
    screen.echo_table(table)
    slow = measured.too_slow(rows)
    screen.echo()
    screen.echo_wrapped(
        "cost: our median time over that of what it is beside; below 1 we are faster. clipped: "
        "share of the steps in which anything was clipped."
    )
    screen.echo_wrapped(
        f"Above {measured.TARGET:g}×, of those that look at norms alone: {', '.join(slow) or '–'}."
    )


def _costs_to_keep(this_machine: dict[str, Any], is_partial: bool) -> dict[str, Any]:
    """The costs in the file that are not measured again: they must be of the same machine."""
    from gclip.describe import read_costs

    if not is_partial:
        return {}
    committed = read_costs()
    if committed and committed["machine"] != this_machine:
        raise UsageError(
            "costs.json was measured on another machine or torch, and costs of both cannot stand "
            "side by side: measure all, without --strategy"
        )
    return dict(committed.get("costs", {}))


def positive(seconds: float) -> float:
    """``--seconds``, checked."""
    if not seconds >= 0:
        raise UsageError(f"--seconds must be at least 0, but got {seconds:g}")
    return seconds


def report(
    name: str, rows: list[dict[str, Any]], json: bool, more: str = "", *, speedup: bool = True
) -> None:
    """Print the rows: a table, or JSON with the machine.

    Args:
        name: of the benchmark.
        more: what the columns are, below the table.
        speedup: whether one of them is a speedup.
    """
    if json:
        screen.echo_json({"bench": name, "machine": machine(), "rows": rows})
        return
    headings = list(dict.fromkeys(key for row in rows for key in row))
    table = TextTable(
        columns=[
            Column(heading=key, words=any(isinstance(row.get(key), str) for row in rows))
            for key in headings
        ]
    )
    for row in rows:
        table.add(*(_cell(key, row.get(key)) for key in headings))
    screen.echo_table(table)
    screen.echo()
    what = "speedup: the peer's median time over ours; above 1 we are faster. " if speedup else ""
    screen.echo_wrapped(f"{what}{more}".rstrip())


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    from gclip.execution import cores

    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": cores(),
        "cores_installed": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cell(key: str, value: Any) -> str:
    if isinstance(value, float):
        if key in ("overhead", "lower", "upper"):
            return f"{screen.percent(value, sign=True)} %"
        return f"{value:.2f}×" if key == "speedup" else f"{value:.4g}"
    return "–" if value is None else str(value)
