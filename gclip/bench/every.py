"""``gclip bench all``: every benchmark in turn; one that fails stops none of the others."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Progress = Callable[[str], None]
Bench = Callable[[float | None, Progress], list[dict[str, Any]]]


def every(
    *,
    seconds: float | None = None,
    data: Path | None = None,
    progress: Progress = lambda _: None,
) -> list[dict[str, Any]]:
    """Of each benchmark ``bench``, ``seconds`` (that it took) and its ``rows``.

    One that cannot be run here has ``skipped``, one that failed ``failed``, and the reason.

    Args:
        seconds: for about how long each row is measured; each benchmark's own default by default.
        data: class folders of images, for what reads files.
        progress: told what is measured next.
    """
    found = []
    for name, bench in benches(data).items():
        start = time.perf_counter()
        entry: dict[str, Any] = {"bench": name}
        try:
            if isinstance(bench, str):
                entry["skipped"] = bench
            else:
                entry["rows"] = bench(seconds, _named(name, progress))
        except Exception as error:  # whatever one of them meets, the others are measured
            entry["failed"] = " ".join(f"{type(error).__name__}: {error}".split())
        entry["seconds"] = round(time.perf_counter() - start, 3)
        found.append(entry)
    return found


def _named(name: str, progress: Progress) -> Progress:
    return lambda what: progress(f"{name}: {what}")


def benches(data: Path | None) -> dict[str, Bench | str]:
    """All of them by name, in their order; a reason in place of one that cannot be run."""
    import torch

    cuda: Bench | str = _bench("growth", device="cuda")
    if not torch.cuda.is_available():
        cuda = "there is no GPU here"
    images: Bench | str = "it needs a folder of images: --data"
    if data is not None:
        images = _bench("data", data, timed=False)
    return {
        "clip": _bench("clip"),
        "strategies": _bench("strategies"),
        "growth": _bench("growth"),
        "growth on a GPU": cuda,
        "loop": _bench("loop"),
        "train": _bench("train", ("lenet",)),
        "fleet": _bench("fleet"),
        "data": images,
        "store": _bench("store", (10, 1000), timed=False),
        "study": _bench("study", timed=False),
    }


def _bench(module: str, *arguments: Any, timed: bool = True, **more: Any) -> Bench:
    """A benchmark of this package, loaded when it is run.

    Args:
        module: whose ``rows`` it is.
        arguments, more: that it is called with.
        timed: whether it can be told for how long a row is measured.
    """

    def run(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
        rows = importlib.import_module(f"gclip.bench.{module}").rows
        told = {"seconds": seconds} if timed and seconds is not None else {}
        found: list[dict[str, Any]] = rows(*arguments, **told, **more, progress=progress)
        return found

    return run
