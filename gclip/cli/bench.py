"""``gclip bench``: what clipping and loading cost, beside the usual ways of doing it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from gclip.cli import screen
from gclip.cli.options import Json

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

    _report("clip", measured.rows(), json)


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


def _report(name: str, rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        screen.say_json({"bench": name, "machine": machine(), "rows": rows})
        return
    headings = list(dict.fromkeys(key for row in rows for key in row))
    table = screen.plain_table(*headings)
    for row in rows:
        table.add_row(*(_cell(key, row.get(key)) for key in headings))
    screen.show(table)
    screen.say("\nspeedup: the peer's median time over ours; above 1 we are faster.")


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
