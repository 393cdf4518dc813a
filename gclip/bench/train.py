"""``gclip bench train``: the trainer's epochs beside a plain loop's and the tutorials'."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gclip.bench.rates import check_counts, rate_row
from gclip.bench.tutorial import TUTORIAL, minimal_epoch, tutorial_rate

MINIMAL = "minimal loop over tensors in memory"
IMAGES = {"lenet": {4: 240, 32: 1437}, "resnet9": {4: 16, 32: 64, 128: 256}}


def rows(
    models: Sequence[str] = ("lenet", "resnet9"),
    batches: Sequence[int] = (4, 32, 128),
    *,
    optimizer: str = "adam",
    seconds: float = 6.0,
    data: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """``case, peer, speedup, ours, theirs`` (images/s), of training alone, on all threads.

    The trainer and the minimal loop take turns, an epoch each; the tutorials' loop is measured
    after them.

    Args:
        models: nets, by their names.
        batches: how many images a batch has.
        optimizer: by its name.
        seconds: each row measures for about that long.
        data: class folders of images for the tutorials' loop; else random images in memory.
        progress: told what is measured next.

    Returns:
        A row a case and peer, as `gclip.bench.rates.rate_row` gives them.

    Raises:
        UsageError: a batch below 1; an unknown model or optimizer.
    """
    check_counts("batches", batches)
    measured: list[dict[str, Any]] = []
    for model in models:
        for batch in batches:
            case = f"{model} batch={batch}"
            progress(case)
            ours, theirs = _beside_minimal(model, batch, optimizer, seconds)
            measured.append(rate_row(case, MINIMAL, ours, theirs))
            theirs = tutorial_rate(model, batch, optimizer, seconds, data)
            measured.append(rate_row(case, TUTORIAL, ours, theirs))
    return measured


def _beside_minimal(model: str, batch: int, optimizer: str, seconds: float) -> tuple[float, float]:
    from gclip.training import RunConfig, load_dataset
    from gclip.training.device import reproducible
    from gclip.training.run import Run

    device, threads = torch.device("cpu"), torch.get_num_threads()
    digits = load_dataset("digits")
    total = len(digits.train_labels)
    images = IMAGES.get(model, {}).get(batch, total)
    config = RunConfig(
        model=model, batch_size=batch, optimizer=optimizer, epochs=1, strategy="norm",
        fraction=min(1.0, images / total), lr=1e-4,
    )  # fmt: skip
    with reproducible(device, threads):
        run = Run(config, digits, device)
    count = run.train_examples
    plain = minimal_epoch(model, batch, optimizer, digits, count, config.lr)

    def ours() -> None:
        run.train_epoch(lambda: True)

    rates: dict[Callable[[], None], list[float]] = {ours: [], plain: []}
    until = time.perf_counter() + seconds
    with reproducible(device, threads):
        ours()
        plain()
        while time.perf_counter() < until or len(rates[ours]) < 5:
            order = (ours, plain) if len(rates[ours]) % 2 else (plain, ours)
            for epoch in order:
                start = time.perf_counter()
                epoch()
                rates[epoch].append(count / (time.perf_counter() - start))
    return statistics.median(rates[ours]), statistics.median(rates[plain])
