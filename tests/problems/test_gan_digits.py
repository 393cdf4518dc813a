"""The GAN on digits: the Fréchet distance in closed form, the losses by hand, the classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import nn

from gclip.errors import UsageError
from gclip.problems.gan_digits import (
    PIXELS,
    GanDigits,
    features_of,
    frechet_distance,
    moments,
    train_classifier,
)
from gclip.training import RunConfig, digits, train
from gclip.training.problem import Source
from gclip.training.run_state import RunState


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return GanDigits(latent=4).data(Source())


def diagonal(*values: float) -> torch.Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))


def test_the_distance_of_two_normal_distributions_in_closed_form() -> None:
    # In one dimension it is (m − m')² + (s − s')², and dimensions apart add up.
    found = frechet_distance(
        torch.tensor([1.0, 2.0]).double(), diagonal(4.0, 9.0),
        torch.tensor([4.0, 2.0]).double(), diagonal(1.0, 25.0),
    )  # fmt: skip
    assert found == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_the_distance_is_that_of_scipys_matrix_root() -> None:
    random = np.random.RandomState(0)
    one, other = (random.randn(50, 6) @ random.randn(6, 6) for _ in range(2))
    root = scipy.linalg.sqrtm(np.cov(one.T) @ np.cov(other.T)).real
    expected = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(
        np.cov(one.T) + np.cov(other.T) - 2 * root
    )
    actual = frechet_distance(*moments(torch.from_numpy(one)), *moments(torch.from_numpy(other)))
    assert actual == pytest.approx(expected, rel=1e-6)


def test_the_distance_of_features_that_never_vary() -> None:
    mean, nothing = torch.zeros(2).double(), diagonal(0.0, 0.0)
    assert frechet_distance(mean, nothing, mean, nothing) == 0
    assert frechet_distance(mean, nothing, mean, diagonal(4.0, 0.0)) == pytest.approx(4)


def test_the_classifier_is_the_same_at_every_call_and_knows_the_digits() -> None:
    table = torch.from_numpy(digits.table())
    images, labels = table[:, :PIXELS].float() / 8 - 1, table[:, PIXELS]
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = train_classifier(images, labels)
    assert torch.equal(before, torch.random.get_rng_state())
    for first, second in zip(one, train_classifier(images, labels), strict=True):
        assert torch.equal(first, second)
    # Its features tell the digits apart: a linear layer of least squares on top of them.
    features = torch.cat((features_of(images, *one), torch.ones(len(images), 1)), 1)
    answers = features @ torch.linalg.lstsq(features, F.one_hot(labels, 10).float()).solution
    assert float((answers.argmax(1) == labels).float().mean()) > 0.97


def test_images_are_split_and_none_is_in_two_parts(data: dict[str, Any]) -> None:
    parts = [data["train"], data["test"]["images"], data["validation"]["images"]]
    assert sum(map(len, parts)) == 1797
    assert [round(len(each) / 1797, 2) for each in parts] == [0.6, 0.2, 0.2]
    assert min(float(each.min()) for each in parts) == -1
    assert max(float(each.max()) for each in parts) == 1


class Always(nn.Module):
    """Answers so many images, over and over."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.images[torch.arange(len(noise)) % len(self.images)]


def distance_of(images: torch.Tensor, data: dict[str, Any]) -> float:
    task = GanDigits(latent=4)
    state = RunState(RunConfig(task=str(task)), data, torch.device("cpu"))
    return task.evaluate({"generator": Always(images)}, state, "test")["Fréchet distance"]


def test_digits_are_close_and_noise_is_far(data: dict[str, Any]) -> None:
    noise = torch.rand(2000, PIXELS, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = torch.zeros(1, PIXELS)
    own = distance_of(data["test"]["images"], data)
    others = distance_of(data["train"], data)
    assert own < others < 20
    assert distance_of(noise, data) == pytest.approx(GanDigits.metric.worst, rel=0.1)
    assert distance_of(grey, data) > 10 * others


def test_losses_by_hand() -> None:
    task = GanDigits(latent=1)
    generator, discriminator = nn.Linear(1, PIXELS), nn.Sequential(nn.Linear(PIXELS, 1))
    discriminator.append(nn.Flatten(0))
    real, noise = torch.randn(3, PIXELS), torch.randn(3, 1)
    players = {"generator": generator, "discriminator": discriminator}
    found = dict(task.losses(players, (real, noise)))
    right = torch.sigmoid(discriminator(real))
    taken = torch.sigmoid(discriminator(generator(noise)))
    torch.testing.assert_close(
        found["discriminator"], -(right.log().mean() + (1 - taken).log().mean())
    )
    torch.testing.assert_close(found["generator"], -taken.log().mean())


def test_the_generator_is_left_alone_by_the_discriminators_loss() -> None:
    task = GanDigits(latent=1, hidden=4)
    players = task.players(RunConfig(task=str(task)))
    name, loss = next(iter(task.losses(players, (torch.randn(3, PIXELS), torch.randn(3, 1)))))
    loss.backward()
    assert name == "discriminator"
    assert all(parameter.grad is None for parameter in players["generator"].parameters())


def test_each_player_is_clipped_by_its_own_strategy() -> None:
    task = "gan-digits(hidden=8, latent=2)"
    strategy = "players(generator=agc, discriminator=norm(max_norm=0.01))"
    result = train(RunConfig(task=task, strategy=strategy, batch_size=256, epochs=1), device="cpu")
    own = result.clipping["players"]
    assert own["discriminator"]["clip_rate"] == 1.0
    assert result.steps["player"].tolist() == [1, 0] * 4
    with pytest.raises(UsageError, match="critic"):
        train(RunConfig(task=task, strategy="players(generator=agc, critic=norm)"), device="cpu")
