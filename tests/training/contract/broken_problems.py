# mypy: ignore-errors
# Written as users write: without types.
"""Problems that each break one promise of the contract, and what they are otherwise: sound.

A plugin file: another process loads it to make the same runs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import gclip

BATCHES = 3
frozen = dataclass(frozen=True, kw_only=True)


@gclip.register_problem("sound")
@frozen
class Sound(gclip.Problem):
    """Fit a line by points that are fresh in every batch, scaled as the data says."""

    metric = gclip.Metric("error", better="lower", worst=20.0, low=0)
    defaults = {"optimizer": "sgd", "lr": 0.05, "batch_size": 8, "epochs": 40}
    small = {"epochs": 2, "points": 5}

    slope: float = gclip.setting(3.0, doc="of the line")
    points: int = gclip.setting(50, at_least=1, doc="that it is measured on")

    def data(self, source):
        return {"scale": torch.tensor([1.0, 2.0])}

    def players(self, config):
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Dropout(0.1), nn.Linear(4, 1))

    def setup(self, state):
        state.keep["seen"] = 0

    def batches_per_epoch(self, state):
        return BATCHES

    def batches(self, state, epoch):
        for _ in range(BATCHES):
            x = torch.randn(state.config.batch_size, 1, generator=state.generator("batches"))
            state.keep["seen"] += 1
            yield x, self.slope * x * state.data["scale"][0]

    def losses(self, players, batch):
        x, y = batch
        yield "model", (players["model"](x) - y).square().mean()

    def evaluate(self, players, state, split):
        x = torch.linspace(-1, 1, self.points)[:, None]
        return {"error": (players["model"](x) - self.slope * x).square().mean()}


@gclip.register_problem("undocumented")
@frozen
class Undocumented(Sound):
    """A field says nothing about itself."""

    other: float = gclip.setting(1.0)


@gclip.register_problem("rounds-its-spelling")
@frozen
class RoundsItsSpelling(Sound):
    """A spelling that loses digits."""

    def __str__(self):
        return f"{self.name}(slope={self.slope:.1f}, points={self.points})"


@gclip.register_problem("reads-the-world")
@frozen
class ReadsTheWorld(Sound):
    """Noise that depends on NumPy's global generator, which it leaves where it is."""

    def batches(self, state, epoch):
        noise = float(np.random.get_state()[1][5]) / 2**32
        for x, y in Sound.batches(self, state, epoch):
            yield x, y + noise


@gclip.register_problem("one-seed")
@frozen
class OneSeed(Sound):
    """Whatever the seed, the same batches and weights."""

    def players(self, config):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def setup(self, state):
        state.keep["seen"], state.keep["points"] = 0, torch.Generator().manual_seed(0)

    def batches(self, state, epoch):
        for _ in range(BATCHES):
            x = torch.randn(8, 1, generator=state.keep["points"])
            yield x, self.slope * x


@gclip.register_problem("forgets")
@frozen
class Forgets(Sound):
    """What changes while it trains is where no checkpoint keeps it."""

    def setup(self, state):
        state.keep["seen"], state.cache["level"] = 0, 0.0

    def batches(self, state, epoch):
        for x, y in Sound.batches(self, state, epoch):
            state.cache["level"] += 0.1
            yield x, y + state.cache["level"]


@gclip.register_problem("seeds-the-world")
@frozen
class SeedsTheWorld(Sound):
    """Sets Python's global generator, as scripts do."""

    def setup(self, state):
        random.seed(state.config.seed)
        Sound.setup(self, state)


@gclip.register_problem("writes-to-data")
@frozen
class WritesToData(Sound):
    """Changes what all runs share."""

    def setup(self, state):
        state.data["scale"][1] = 7.0
        Sound.setup(self, state)


@gclip.register_problem("draws-its-data")
@frozen
class DrawsItsData(Sound):
    """Other data each time, of which a run uses nothing."""

    def data(self, source):
        unseeded = torch.Generator()
        unseeded.seed()
        return {"scale": torch.tensor([1.0, torch.rand((), generator=unseeded)])}


@gclip.register_problem("leaves-its-range")
@frozen
class LeavesItsRange(Sound):
    """An error below 0."""

    def evaluate(self, players, state, split):
        error = Sound.evaluate(self, players, state, split)["error"]
        return {"error": -1 - error if split == "validation" else error}


@gclip.register_problem("counts-evaluations")
@frozen
class CountsEvaluations(Sound):
    """Measuring moves a generator that batches are drawn from."""

    def evaluate(self, players, state, split):
        torch.rand(1, generator=state.generator("batches"))
        return Sound.evaluate(self, players, state, split)


@gclip.register_problem("hides-nan")
@frozen
class HidesNaN(Sound):
    """Losses that stay finite, whatever happens."""

    def losses(self, players, batch):
        for name, loss in Sound.losses(self, players, batch):
            yield name, torch.nan_to_num(loss, nan=1e3, posinf=1e3).clamp(max=1e3)

    def evaluate(self, players, state, split):
        return {"error": torch.nan_to_num(Sound.evaluate(self, players, state, split)["error"], 9)}


@gclip.register_problem("idle")
@frozen
class Idle(Sound):
    """A player that is never stepped."""

    def players(self, config):
        return {"model": Sound.players(self, config), "critic": nn.Linear(1, 1)}


@gclip.register_problem("decays")
@frozen
class Decays(Sound):
    """Changes weights by hand."""

    def losses(self, players, batch):
        yield from Sound.losses(self, players, batch)
        with torch.no_grad():
            for parameter in players["model"].parameters():
                parameter.mul_(0.99)


@gclip.register_problem("wants-momentum")
@frozen
class WantsMomentum(Sound):
    """Trains with SGD alone."""

    def setup(self, state):
        Sound.setup(self, state)
        state.cache["smooth"] = 1 - state.config.momentum


@gclip.register_problem("miscounts")
@frozen
class Miscounts(Sound):
    """Says one batch more than there are."""

    def batches_per_epoch(self, state):
        return BATCHES + 1


@gclip.register_problem("steps-twice")
@frozen
class StepsTwice(Sound):
    """Two steps a batch, of which it says nothing."""

    def losses(self, players, batch):
        yield from Sound.losses(self, players, batch)
        yield from Sound.losses(self, players, batch)


@gclip.register_problem("hashes-text")
@frozen
class HashesText(Sound):
    """A number that every process has for itself."""

    def batches(self, state, epoch):
        for x, y in Sound.batches(self, state, epoch):
            yield x, y + hash("gclip") / 2**64


@gclip.register_problem("sound-supervised")
@frozen
class SoundSupervised(gclip.Supervised):
    """Learn a sum of four numbers."""

    metric = gclip.Metric("error", better="lower", worst=20.0, low=0)
    defaults = {"model": "mlp(width=8)", "optimizer": "sgd", "lr": 0.05, "batch_size": 8}
    small = {"epochs": 2}

    def data(self, source):
        x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        return x[:30], x[:30].sum(1), x[30:], x[30:].sum(1)


@gclip.register_problem("smooths-at-random")
@frozen
class SmoothsAtRandom(SoundSupervised):
    """A loss that draws from torch's global generator, which strategies draw from, too."""

    def loss(self, outputs, targets, reduction="mean"):
        noise = torch.rand(()) if reduction == "mean" else 0.0
        return gclip.Supervised.loss(self, outputs, targets, reduction) * (1 + noise)


@gclip.register_problem("weighs-twice")
@frozen
class WeighsTwice(SoundSupervised):
    """Losses of single examples that are not those of the mean."""

    def loss(self, outputs, targets, reduction="mean"):
        errors = F.huber_loss(outputs.reshape(targets.shape), targets, reduction="none")
        if reduction == "mean":
            return errors.mean()
        return 2 * errors if reduction == "none" else errors.sum()

    def score(self, outputs, targets):
        return self.loss(outputs, targets, reduction="none")
