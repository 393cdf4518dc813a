"""What a user writes to tune a threshold with Optuna: run as a script, and without gclip.

``gclip bench study`` starts it beside ``gclip study run thresholds``: once with a loop over the
trials on all threads, once with ``n_jobs=2``, and in two processes that share a storage. It prints
one JSON line: trials, and the seconds spent in training them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from optuna.study import MaxTrialsCallback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Loaders = tuple[Iterable[Any], Iterable[Any]]


class LeNet(nn.Module):
    """The tutorial's net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        return torch.as_tensor(self.fc3(x))


def digits(batch: int) -> Loaders:
    """Scikit-learn's digits as 32×32 images in memory: as many as gclip trains and validates."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.tensor(raw.images, dtype=torch.float32)[:1442, None] / 16
    images = F.interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1)
    images = ((images - images.mean()) / images.std()).contiguous()
    data = TensorDataset(images, torch.tensor(raw.target)[:1442])
    train, validation = torch.utils.data.random_split(data, [1298, 144])
    return DataLoader(train, batch, shuffle=True), DataLoader(validation, 256)


def folder(path: str, batch: int) -> Loaders:
    """Class folders, as tutorials load them: two workers that decode the files."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    images = ImageFolder(f"{path}/train", transforms.Compose(steps))
    train, validation = torch.utils.data.random_split(images, [0.9, 0.1])
    return (
        DataLoader(train, batch, shuffle=True, num_workers=2),
        DataLoader(validation, 256, num_workers=2),
    )


def clip_units(parameters: Iterable[Tensor], clip_factor: float, eps: float = 1e-3) -> None:
    """Adaptive gradient clipping, as timm has it."""
    for p in parameters:
        if p.grad is None:
            continue
        inner = tuple(range(1, p.ndim)) or None
        weights, norms = (
            torch.linalg.vector_norm(each, dim=inner, keepdim=True) for each in (p.detach(), p.grad)
        )
        most = weights.clamp(min=eps) * clip_factor
        clipped = p.grad * (most / norms.clamp(min=1e-6))
        p.grad.copy_(torch.where(norms < most, p.grad, clipped))


def clipper(strategy: str, trial: optuna.Trial) -> Callable[[list[nn.Parameter]], object]:
    """What clips after each backward pass, with its threshold suggested."""
    if strategy == "norm":
        most = trial.suggest_float("max_norm", 1e-3, 100, log=True)
        return lambda parameters: nn.utils.clip_grad_norm_(parameters, most)
    if strategy == "agc":
        factor = trial.suggest_float("clip_factor", 1e-3, 1, log=True)
        return lambda parameters: clip_units(parameters, factor)
    return lambda _: None


def objective(
    strategy: str, loaders: Loaders, epochs: int, seconds: list[float]
) -> Callable[[optuna.Trial], float]:
    """Trains one net and returns its accuracy on the validation images; notes its `seconds`."""

    def train(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 0.005, 0.75, log=True)
        clip = clipper(strategy, trial)
        begun = time.perf_counter()
        net = LeNet()
        parameters = list(net.parameters())
        optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
        accuracy = 0.0
        for _ in range(epochs):
            net.train()
            for images, labels in loaders[0]:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(images), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                clip(parameters)
                optimizer.step()
            accuracy = evaluate(net, loaders[1])
        seconds.append(time.perf_counter() - begun)
        return accuracy

    return train


def evaluate(net: nn.Module, loader: Iterable[Any]) -> float:
    """Share of right answers."""
    net.eval()
    right = total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += int((net(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def main() -> None:
    """Tune each strategy in a study of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--strategies", nargs="+", required=True)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default=None)
    parser.add_argument("--data", default=None)
    given = parser.parse_args()
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loaders = folder(given.data, given.batch_size) if given.data else digits(given.batch_size)
    seconds: list[float] = []
    for strategy in given.strategies:
        study = optuna.create_study(
            study_name=strategy, storage=given.storage, load_if_exists=True, direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=given.seed),
        )  # fmt: skip
        train = objective(strategy, loaders, given.epochs, seconds)
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.RUNNING)
        enough = MaxTrialsCallback(given.trials, states=states)
        # With a storage others take trials from the same number.
        stop = [enough] if given.storage else []
        study.optimize(train, n_trials=given.trials, n_jobs=given.jobs, callbacks=stop)
    print(json.dumps({"trials": len(seconds), "seconds": sum(seconds)}))


if __name__ == "__main__":
    main()
