"""``gclip bench all``: every benchmark in turn; one that fails stops none of the others."""

from __future__ import annotations

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

    cuda: Bench | str = _growth("cuda")
    if not torch.cuda.is_available():
        cuda = "there is no GPU here"
    images: Bench | str = _data(data) if data is not None else "it needs a folder of images: --data"
    return {
        "clip": _clip,
        "strategies": _strategies,
        "growth": _growth("cpu"),
        "growth on a GPU": cuda,
        "loop": _loop,
        "train": _train,
        "fleet": _fleet,
        "data": images,
        "store": _store,
        "study": _study,
    }


def _clip(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import clip

    return clip.rows(**_given(seconds), progress=progress)


def _strategies(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import strategies

    return strategies.rows(**_given(seconds), progress=progress)


def _growth(device: str) -> Bench:
    def run(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
        from gclip.bench import growth

        return growth.rows(**_given(seconds), device=device, progress=progress)

    return run


def _loop(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import loop

    return loop.rows(**_given(seconds), progress=progress)


def _train(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import train

    return train.rows(("lenet",), **_given(seconds), progress=progress)


def _fleet(seconds: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import fleet

    return fleet.rows(**_given(seconds), progress=progress)


def _data(folder: Path) -> Bench:
    def run(_: float | None, progress: Progress) -> list[dict[str, Any]]:
        from gclip.bench import data

        return data.rows(folder, progress)

    return run


def _store(_: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import store

    return store.rows((10, 1000), progress=progress)


def _study(_: float | None, progress: Progress) -> list[dict[str, Any]]:
    from gclip.bench import study

    return study.rows(progress=progress)


def _given(seconds: float | None) -> dict[str, Any]:
    return {} if seconds is None else {"seconds": seconds}
