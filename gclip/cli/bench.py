"""``gclip bench``: what clipping and loading cost, beside the usual ways of doing it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from gclip.cli import screen
from gclip.cli.options import Json, Plugins, load_plugins
from gclip.errors import UsageError

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="Which net; again for more.", show_default=False),
]
Batches = Annotated[
    list[int] | None,
    typer.Option("--batch", help="Batch size; again for more. 4, 32, 128.", show_default=False),
]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to measure each row, about.")]

app = typer.Typer(
    no_args_is_help=True, help="Measure gclip beside its peers on this machine, in a minute or so."
)


@app.command("clip")
def clip(json: Json = False) -> None:
    """Time one clip call beside torch's and timm's, on LeNet's and ResNet-18's gradients.

    \b
    Examples:
      gclip bench clip
      gclip bench clip --json > clip.json
    """
    from gclip.bench import clip as measured

    _report(
        "clip", measured.rows(), json,
        "roofline: our time over that of the memory traffic at the bandwidth measured here.",
    )  # fmt: skip


@app.command("data")
def data(
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="Class folders of images: train/CLASS/*.png."),
    ],
    json: Json = False,
) -> None:
    """Time the batches of an image folder beside torchvision's ImageFolder and DataLoader.

    \b
    Examples:
      gclip bench data --data images
    """
    from gclip.bench import data as measured

    _report("data", measured.rows(data), json)


@app.command("train")
def train(
    model: Models = None,
    batch: Batches = None,
    optimizer: Annotated[str, typer.Option("--optimizer", metavar="NAME", help="Of all.")] = "adam",
    seconds: Seconds = 6.0,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Images for the tutorial loop; else random."),
    ] = None,
    json: Json = False,
) -> None:
    """Time training beside a minimal loop over tensors, and beside the loop of tutorials.

    \b
    Examples:
      gclip bench train
      gclip bench train --model lenet --batch 128 --data images
    """
    from gclip.bench import train as measured

    found = measured.rows(
        tuple(model or ("lenet", "resnet9")), tuple(batch or (4, 32, 128)), optimizer=optimizer,
        seconds=_positive(seconds), data=data, progress=_progress,
    )  # fmt: skip
    _report("train", found, json, "ours, theirs: images a second.")


@app.command("fleet")
def fleet(
    model: Models = None,
    batch: Batches = None,
    runs: Annotated[
        list[int] | None,
        typer.Option("--runs", help="Runs in a fleet; again for more.", show_default=False),
    ] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", metavar="NAME", help="Of all.")] = "adam",
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="NAME",
            help="norm; again for a mixed fleet.",
            show_default=False,
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
      gclip bench fleet --model resnet9 --batch 32 --runs 4
      gclip bench fleet --batch 4 --runs 32 -s norm -s agc -s percentile -s zclip
    """
    from gclip.bench import fleet as measured

    found = [
        row
        for each in model or ("lenet",)
        for row in measured.rows(
            each, tuple(batch or (4, 32, 128)), tuple(runs or ()), optimizer=optimizer,
            strategies=tuple(strategy or ("norm",)), seconds=_positive(seconds),
            tutorial=tutorial, progress=_progress,
        )
    ]  # fmt: skip
    _report("fleet", found, json, "ours, theirs: images · models a second.")


@app.command("strategies")
def strategies(
    strategy: Annotated[
        list[str] | None,
        typer.Option("--strategy", "-s", metavar="NAME", help="Only this one; again for more."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long to measure each, about.")
    ] = 2.0,
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
      gclip bench strategies --write && gclip list --page > strategies/README.md
    """
    from gclip.bench import strategies as measured

    _positive(seconds)
    if write and plugin:
        raise UsageError("--write is for the strategies that ship with gclip: leave --plugin out")
    load_plugins(plugin)
    here = machine()
    kept = _costs_to_keep(here, bool(strategy)) if write else {}
    found = measured.rows(tuple(strategy or ()), seconds=seconds, progress=_progress)
    if write:
        from gclip.describe import write_costs

        path = write_costs({**kept, **measured.summary(found)}, here)
        screen.note(f"written to {path}")
    if json:
        screen.say_json({"bench": "strategies", "machine": here, "rows": found})
        return
    table = screen.plain_table("strategy", "beside", "cost", "ours µs", "its µs", "clipped")
    for row in found:
        if "reason" in row:
            table.add_row(row["strategy"], row["reason"])
            continue
        table.add_row(
            row["strategy"], row["peer"], f"{row['cost']:.2f}×", f"{row['ours_us']:.0f}",
            f"{row['peer_us']:.0f}", f"{screen.percent(row['clipped'], 0)} %",
        )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    screen.show(table)
    slow = measured.too_slow(found)
    screen.say("\ncost: our median time over that of what it is beside; below 1 we are faster.")
    screen.say(
        f"Above {measured.TARGET:g}×, of those that look at norms alone: {', '.join(slow) or '–'}."
    )


def _progress(name: str) -> None:
    import sys

    if sys.stderr.isatty():
        screen.note(f"measuring {name}")


def _costs_to_keep(here: dict[str, Any], some: bool) -> dict[str, Any]:
    """The costs in the file that are not measured again: they must be of the same machine."""
    from gclip.describe import read_costs

    if not some:
        return {}
    old = read_costs()
    if old and old["machine"] != here:
        raise UsageError(
            "costs.json was measured on another machine or torch, and costs of both cannot stand "
            "side by side: measure all, without --strategy"
        )
    return dict(old.get("costs", {}))


def _positive(seconds: float) -> float:
    if not seconds >= 0:
        raise UsageError(f"--seconds must be at least 0, but got {seconds:g}")
    return seconds


def _report(name: str, rows: list[dict[str, Any]], json: bool, more: str = "") -> None:
    if json:
        screen.say_json({"bench": name, "machine": machine(), "rows": rows})
        return
    headings = list(dict.fromkeys(key for row in rows for key in row))
    table = screen.plain_table(*headings)
    for row in rows:
        table.add_row(*(_cell(key, row.get(key)) for key in headings))
    screen.show(table)
    screen.say(
        f"\nspeedup: the peer's median time over ours; above 1 we are faster. {more}".rstrip()
    )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    from gclip.running import cores

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
        return f"{value:.2f}×" if key == "speedup" else f"{value:.4g}"
    return "–" if value is None else str(value)
