"""The networks are the published ones: shapes, sizes, values and weights."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gclip
from gclip.errors import UsageError
from gclip.training import models
from gclip.training.models.layers import standardized


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "size"), [("lenet", 62_006), ("resnet9", 6_573_130), ("resnet18", 11_173_962)]
)
def test_sizes_are_the_published_ones(name, size):
    model = models.build(name)
    assert count(model) == size
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


FITTING = {
    "lenet": [(3, 32, 32), (1, 28, 28), (2, 17, 40)],
    "resnet9": [(1, 28, 28), (2, 9, 16)],
    "resnet18": [(1, 12, 12), (1, 3, 5)],
    "nfnet": [(3, 32, 32), (1, 28, 28), (2, 7, 5)],
    "plain": [(3, 32, 32), (1, 28, 28), (1, 1, 1), (5, 6), (7,)],
    "mlp": [(3, 32, 32), (1, 28, 28), (5, 6), (7,)],
    "lstm": [(3, 32, 32), (1, 28, 28), (5, 6)],
    "vit": [(3, 32, 32), (1, 28, 28), (5, 6)],
}


@pytest.mark.parametrize("name", models.names())
def test_a_model_follows_the_inputs_and_outputs(name):
    for inputs in FITTING[name]:
        model = models.build(name, inputs=inputs, outputs=4)
        found = model(torch.randn(3, *inputs))
        assert found.shape == (3, 4), inputs
        found.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "inputs", "said"),
    [
        ("lenet", (3, 15, 32), r"lenet .*shape \(3, 15, 32\): its images are at least 16×16"),
        ("resnet9", (3, 7, 7), "its images are at least 8×8"),
        *((n, (5, 6), "it takes images, ") for n in ("lenet", "resnet9", "resnet18", "nfnet")),
        *((n, (7,), r"it takes sequences, \(length, features\), or") for n in ("lstm", "vit")),
        ("vit", (3, 30, 32), "patch must divide the image's height and width, but got 4"),
        ("vit(heads=3)", (5, 6), "heads must divide dim 64, but got 3"),
        ("mlp(width=0)", (7,), "width must be a whole number ≥ 1, but got 0"),
        ("plain(gain=-1)", (7,), "gain must be > 0, but got -1"),
        ("lstm(dropout=1.5)", (5, 6), r"dropout must be in \[0, 1\), but got 1.5"),
    ],
)
def test_inputs_and_settings_that_do_not_fit_are_said(name, inputs, said):
    with pytest.raises(UsageError, match=said):
        models.build(name, inputs=inputs)


# SHA-256 of the names and bits of all that a model holds, for the seeds 0 and 3.
WEIGHTS = {
    "lenet": ("802b4b5f596953d2", "20cf22036126fa70"),
    "lstm": ("7de34d315a98078d", "d338477bdd246e3e"),
    "mlp": ("05615d1139e4dd01", "c35521adf384af5b"),
    "resnet9": ("2808efcdbe536834", "1c7cb56c410e9859"),
}
# The sum and the norm of all weights, where they are normal numbers, whose last bits are a CPU's.
NORMAL = {
    "nfnet": ((687.2625, 36.659), (676.2847, 36.67226)),
    "plain": ((16.39485, 30.02959), (-15.35541, 30.27939)),
    "resnet18": ((4724.65, 111.7508), (4882.449, 111.7758)),
    "vit": ((566.4497, 37.18687), (639.8085, 37.17243)),
}


@pytest.mark.parametrize("name", models.names())
def test_weights_are_for_ever(name):
    for place, seed in enumerate((0, 3)):
        model = models.build(name, seed=seed)
        if name in WEIGHTS:
            digest = hashlib.sha256()
            for key, value in model.state_dict().items():
                digest.update(key.encode() + value.numpy().tobytes())
            assert digest.hexdigest()[:16] == WEIGHTS[name][place]
        else:
            weights = torch.cat([p.detach().double().flatten() for p in model.parameters()])
            found = (weights.sum().item(), weights.norm().item())
            assert found == pytest.approx(NORMAL[name][place], rel=1e-5)


def test_an_image_is_a_sequence_of_rows():
    model = models.build("lstm(hidden=5)", inputs=(2, 4, 3), outputs=3)
    images = torch.randn(2, 2, 4, 3)
    rows = torch.stack([torch.cat([image[:, row].flatten() for image in [one]])
                        for one in images for row in range(4)]).view(2, 4, 6)  # fmt: skip
    assert torch.equal(model(images), model(rows))


def test_nfnet_keeps_the_signals_size():
    """In every stage the variance grows from block to block as the βs say."""
    model = models.build("nfnet(blocks=3)", seed=2)
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(
            lambda block, args: seen.append(args[0].var().item() / block.beta**2)
        )
    with torch.no_grad():
        for block in model.blocks:
            block.skip_gain.gain.fill_(1.0)
        model(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert len(seen) == 9
    for first in (1, 4, 7):  # where a stage begins, the pool takes from the variance as it likes
        assert seen[first : first + 2] == pytest.approx([seen[first]] * 2, rel=0.1)
    assert [block.beta**2 for block in model.blocks[2:5]] == pytest.approx([1.08, 1.12, 1.04])


def test_nfnets_branches_begin_as_nothing_and_its_filters_are_standardised():
    model = models.build("nfnet")
    conv = model.blocks[1].conv1
    used = standardized(conv.weight, conv.gain)
    torch.testing.assert_close(used.mean((1, 2, 3)), torch.zeros(64), rtol=0, atol=1e-6)
    deviation = used.flatten(1).std(1, correction=0)
    torch.testing.assert_close(deviation, torch.full((64,), 1 / math.sqrt(9 * 32)))
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(model.blocks[2].shortcut(
        model.blocks[2].pool(model.blocks[2].activation(x / model.blocks[2].beta))
    ), model.blocks[2](x))  # fmt: skip


def test_plain_nets_gradients_explode_or_vanish():
    def norm(gain):
        model = models.build(f"plain(gain={gain})", seed=1)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(16, 3, 32, 32, generator=generator)
        F.cross_entropy(model(images), torch.arange(16) % 10).backward()
        return model[0].weight.grad.norm().item()

    vanishing, exploding = norm(0.41), norm(1.5)
    assert vanishing < 1e-5
    assert exploding > 1e2


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


def test_the_form_of_earlier_versions_builds_the_same() -> None:
    new = gclip.build_model("lenet", (3, 32, 32), 7, seed=10).state_dict()
    for earlier in (
        models.build("lenet", 7, 10),
        models.build("lenet", 7, seed=10),
        models.build("lenet", classes=7, seed=10),
        models.build("lenet", (3, 32, 32), 7, 10),
    ):
        assert all(torch.equal(new[name], each) for name, each in earlier.state_dict().items())
