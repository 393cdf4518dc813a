"""The networks are the published ones: shapes, sizes, values and weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gclip.errors import UsageError
from gclip.training import models


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "size"), [("lenet", 62_006), ("resnet9", 6_573_130), ("resnet18", 11_173_962)]
)
def test_sizes_are_the_published_ones(name, size):
    model = models.build(name)
    assert count(model) == size
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", models.names())
def test_the_head_follows_the_number_of_classes(name):
    assert models.build(name, outputs=7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_lenet_computes_the_tutorials_net():
    model = models.build("lenet", seed=4)
    images = torch.randn(5, 3, 32, 32)
    labels = torch.arange(5)

    def tutorial(x):
        x = F.max_pool2d(F.relu(model.conv1(x)), 2)
        x = F.max_pool2d(F.relu(model.conv2(x)), 2)
        x = F.relu(model.fc2(F.relu(model.fc1(torch.flatten(x, 1)))))
        return model.fc3(x)

    params = list(model.parameters())
    ours, theirs = model(images), tutorial(images)
    assert torch.equal(ours, theirs)
    for got, expected in zip(
        torch.autograd.grad(F.cross_entropy(ours, labels), params),
        torch.autograd.grad(F.cross_entropy(theirs, labels), params),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)


def test_resnet18_is_torchvisions_with_the_small_stem():
    from torchvision.models import resnet18

    peer = resnet18(num_classes=10)
    peer.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    peer.maxpool = nn.Identity()
    model = models.build("resnet18", seed=1)
    peer.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images), peer(images), rtol=1e-5, atol=1e-5)


def test_weights_depend_on_the_seed_alone():
    first = models.build("lenet", seed=0).state_dict()
    torch.manual_seed(123)
    again = models.build("lenet", seed=0).state_dict()
    other = models.build("lenet", seed=1).state_dict()
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


def test_building_leaves_the_callers_random_state_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    models.build("lenet", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_model():
    with pytest.raises(UsageError, match=r"unknown model 'lenett'.*did you mean 'lenet'.*resnet18"):
        models.build("lenett")
