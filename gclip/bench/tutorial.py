"""The loops that gclip's trainer is measured beside: the tutorials', and the best plain one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.bench.torchvision_images import ArrayImages, image_folder
from gclip.training import Dataset, models, optimizers
from gclip.training.dataset import SIZE

WORKERS = 2
TUTORIAL = f"tutorial loop with DataLoader(num_workers={WORKERS})"
IMAGES = 1920


def tutorial_rate(
    model: str, batch: int, optimizer: str, seconds: float, folder: Path | None = None
) -> float:
    """Images a second of the loop that tutorials show: a `DataLoader` of two workers that decode
    and normalise image by image, the model, torch's default optimizer, `clip_grad_norm_`.

    Args:
        model: the net, by its name.
        batch: how many images a batch has.
        optimizer: by its name.
        seconds: how long to measure, about.
        folder: class folders of images; without it, random images that lie in memory as PIL's.
    """
    from torch.utils.data import DataLoader

    images = _images(folder)
    net = models.build(model)
    step = _steps(net, _plain(optimizer, net))
    loader: DataLoader[Any] = DataLoader(images, batch, shuffle=True, num_workers=WORKERS)
    rates: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(rates) < 2:
        stream = iter(loader)
        step(*next(stream))  # the workers have started
        count, start = 0, time.perf_counter()
        for inputs, labels in stream:
            step(inputs, labels)
            count += len(labels)
            if time.perf_counter() - start > max(seconds / 3, 0.2):
                break
        rates.append(count / (time.perf_counter() - start))
        del stream
    return statistics.median(rates)


def minimal_epoch(
    model: str, batch: int, optimizer: str, dataset: Dataset, count: int, lr: float
) -> Callable[[], None]:
    """The best plain loop: images normalised once and kept in memory, ``channels_last``, a fused
    optimizer, `clip_grad_norm_`, and nothing that looks at a number.

    Args:
        model: the net, by its name.
        batch: how many images a batch has.
        optimizer: by its name.
        dataset: the images.
        count: how many of them an epoch has.
        lr: the learning rate.

    Returns:
        An epoch of `count` images.
    """
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (dataset.mean, dataset.std))
    images = (dataset.train_images[:count].float() / 255 - mean) / std
    images = images.contiguous(memory_format=torch.channels_last)
    labels = dataset.train_labels[:count]
    net = models.build(model).to(memory_format=torch.channels_last)
    step = _steps(net, optimizers.build(optimizer, net.parameters(), lr=lr, momentum=0.9))

    def epoch() -> None:
        net.train()
        order = torch.randperm(count)
        for start in range(0, count, batch):
            chosen = order[start : start + batch]
            step(images[chosen], labels[chosen])

    return epoch


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor, Tensor], None]:
    parameters = list(net.parameters())

    def step(inputs: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(inputs), labels))
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def _plain(name: str, net: nn.Module) -> torch.optim.Optimizer:
    """torch's own defaults, as tutorials leave them."""
    facts = optimizers.spec(name)
    more = {} if facts.momentum is None else {"momentum": facts.momentum}
    return facts.make(net.parameters(), lr=1e-4, **more)


def _images(folder: Path | None) -> Any:
    """Files, or random images in one array."""
    if folder is not None:
        return image_folder(folder)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return ArrayImages(pixels.numpy(), [index % 10 for index in range(IMAGES)])
