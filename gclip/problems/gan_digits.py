"""A generator and a discriminator trained against each other, on images of digits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.training import digits
from gclip.training.config import RunConfig
from gclip.training.device import reproducible
from gclip.training.metric import Metric
from gclip.training.problem import Losses, Problem, Source
from gclip.training.run_state import RunState
from gclip.training.tasks import register_problem

PIXELS = 64
_DRAWN = 2000  # images that the generator is measured by
_FEATURES = 16
_SEEDS = {"classifier": 1, "test": 2, "validation": 3}


def frechet_distance(mean: Tensor, covariance: Tensor, other: Tensor, others: Tensor) -> float:
    """Of two normal distributions, ‖m − m'‖² + tr(C + C' − 2·(C·C')^½) (Dowson & Landau, 1982).

    Args:
        mean, covariance: of the one, float64 ``(d,)`` and ``(d, d)``.
        other, others: of the other.
    """
    # tr (C·C')^½ is the sum of the roots of the eigenvalues of C^½·C'·C^½, which is symmetric.
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    inner = torch.linalg.eigvalsh(root @ others @ root).clamp(min=0).sqrt().sum()
    apart = (mean - other).square().sum()
    return max(0.0, float(apart + covariance.trace() + others.trace() - 2 * inner))


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(d,)`` and covariance ``(d, d)`` of features ``(N, d)``, float64."""
    values = features.double()
    return values.mean(0), values.T.cov()


def train_classifier(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What turns images into features: weights of a small classifier, the same at every call.

    A layer of 32 units and one of 16, which are the features, and a linear one on top; trained by
    100 steps of Adam on all of the images, on one thread.

    Args:
        images: float32 ``(N, 64)``.
        labels: int64 ``(N,)``.

    Returns:
        The matrices and the bias that `features_of` takes.
    """
    generator = torch.Generator().manual_seed(_SEEDS["classifier"])

    def matrix(rows: int, columns: int) -> Tensor:
        values = torch.randn(rows, columns, generator=generator) * math.sqrt(2 / rows)
        return values.requires_grad_()

    first, second, last = matrix(PIXELS, 32), matrix(32, _FEATURES), matrix(_FEATURES, 10)
    bias = torch.zeros(32, requires_grad=True)
    weights = (first, bias, second)
    with reproducible(torch.device("cpu"), 1), torch.enable_grad():
        optimizer = torch.optim.Adam((*weights, last), lr=0.02)
        for _ in range(100):
            loss = F.cross_entropy(features_of(images, *weights) @ last, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return first.detach(), bias.detach(), second.detach()


def features_of(images: Tensor, first: Tensor, bias: Tensor, second: Tensor) -> Tensor:
    """``(N, 64)`` → ``(N, 16)``."""
    return ((images @ first + bias).relu() @ second).relu()


class Perceptron(nn.Sequential):
    """Two hidden layers with leaky ReLUs; `squash` is what comes at the end."""

    def __init__(self, inputs: int, hidden: int, outputs: int, squash: nn.Module) -> None:
        super().__init__(
            nn.Linear(inputs, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, outputs),
            squash,
        )


@register_problem("gan-digits")
@dataclass(frozen=True, kw_only=True)
class GanDigits(Problem):
    """Draw handwritten digits with a GAN (Goodfellow et al., 2014), 8 × 8 pixels.

    Two players, generator and discriminator, each with an optimizer and a strategy of its own:
    ``-s "players(generator=agc, discriminator=norm)"``. The images drawn are measured by their
    Fréchet distance to real ones (Heusel et al., 2017), in the features of a small classifier that
    is the same in every run. Real images that were learned from are 3 away from those held out;
    uniform noise is 305 away, which is what a diverged run scores.

    The defaults are found by a short search over the rate of gradient descent for one at which
    clipping matters: at half of it runs with and without clipping end alike, at ``--lr 0.4``
    without clipping most seeds diverge, and with ``norm`` none does.
    """

    latent: int = setting(16, at_least=1, doc="numbers that an image is drawn from")
    hidden: int = setting(128, at_least=1, doc="units of each hidden layer")

    metric = Metric("Fréchet distance", better="lower", worst=305.0, low=0.0, decimals=1)
    defaults = {"optimizer": "sgd", "lr": 0.4, "momentum": 0.5, "batch_size": 64, "epochs": 20}
    small = {"epochs": 2, "hidden": 16}

    def data(self, source: Source) -> dict[str, Any]:
        """Images in ±1, float32 ``(N, 64)``; and what the generator is measured by.

        Of every five images one is for testing and one for validation; the rest is learned from.
        """
        table = torch.from_numpy(digits.table())
        images, labels = table[:, :PIXELS].float() / 8 - 1, table[:, PIXELS]
        weights = train_classifier(images, labels)
        part = torch.arange(len(images)) % 5
        found: dict[str, Any] = {"train": images[part < 3], "weights": weights}
        for split, own in (("test", 3), ("validation", 4)):
            generator = torch.Generator().manual_seed(_SEEDS[split])
            found[split] = {
                "noise": torch.randn(_DRAWN, self.latent, generator=generator),
                "images": images[part == own],
            }
        return found

    def players(self, config: RunConfig) -> Mapping[str, nn.Module]:
        """Generator and discriminator."""
        return {
            "generator": Perceptron(self.latent, self.hidden, PIXELS, nn.Tanh()),
            "discriminator": Perceptron(PIXELS, self.hidden, 1, nn.Flatten(0)),
        }

    def batches_per_epoch(self, state: RunState) -> int:
        """The last batch of an epoch is left out where it would be smaller."""
        return max(1, len(state.data["train"]) // state.config.batch_size)

    def batches(self, state: RunState, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in a new order, each batch with noise to draw as many from."""
        images, size = state.data["train"], state.config.batch_size
        generator = state.generator("batches")
        order = torch.randperm(len(images), generator=generator).to(state.device)
        for number in range(self.batches_per_epoch(state)):
            real = images[order[number * size : (number + 1) * size]]
            noise = torch.randn(len(real), self.latent, generator=generator)
            yield real, noise.to(state.device)

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """First the discriminator's, then the generator's non-saturating one, −log D(G(z))."""
        real, noise = batch
        generator, discriminator = players["generator"], players["discriminator"]
        drawn = generator(noise)
        on_real = F.softplus(-discriminator(real)).mean()
        yield "discriminator", on_real + F.softplus(discriminator(drawn.detach())).mean()
        yield "generator", F.softplus(-discriminator(drawn)).mean()

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """How far 2,000 drawn images are from the split's, by the classifier's features."""
        weights, own = state.data["weights"], state.data[split]
        drawn = players["generator"](own["noise"])
        two = [moments(features_of(each, *weights).cpu()) for each in (own["images"], drawn)]
        return {self.metric.name: frechet_distance(*two[0], *two[1])}
