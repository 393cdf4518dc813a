"""Every class keeps its share wherever images are chosen, and what is held out is never seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gclip.errors import UsageError
from gclip.training import Dataset, RunConfig, train
from gclip.training.data_split import VERSION, by_class, held_out_mask, matters, select
from gclip.training.fleet.run import FleetRun
from gclip.training.run import Run

CPU = torch.device("cpu")
FRACTIONS = (0.02, 0.05, 0.1, 0.5, 1.0)


def made(counts, shade=None):
    """A data set with so many training images of each class, every image of its own brightness."""
    labels = torch.cat([torch.full((n,), label) for label, n in enumerate(counts)])
    labels = labels[torch.from_numpy(np.random.RandomState(5).permutation(len(labels)))]
    shades = torch.arange(len(labels)) if shade is None else torch.full((len(labels),), shade)
    images = shades.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32)
    return Dataset(
        name="cifar10", classes=tuple("abcdefgh"[: len(counts)]), train_images=images,
        train_labels=labels, test_images=images[:1], test_labels=labels[:1],
    )  # fmt: skip


def counts(labels, classes):
    return torch.bincount(labels, minlength=classes).tolist()


def test_fractions_keep_every_class_and_nest(digits):
    labels = digits.train_labels.numpy()
    parts = {f: np.concatenate(list(by_class(labels, f).values())) for f in (0.01, 0.1, 0.5, 1.0)}
    for fraction, part in parts.items():
        chosen, every = np.bincount(labels[part]), np.bincount(labels)
        assert np.abs(chosen - fraction * every).max() <= 0.5 + 1e-9
    assert set(parts[0.01]) < set(parts[0.1]) < set(parts[0.5]) < set(range(len(labels)))
    assert sorted(parts[1.0]) == list(range(len(labels)))
    assert len(select(digits, fraction=1e-6).train_labels) == 10


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_validation_has_a_tenth_of_every_class(digits, fraction):
    chosen = counts(select(digits, fraction=fraction).train_labels, 10)
    found = select(digits, fraction=fraction, split="validation")
    kept, out = counts(found.train_labels, 10), counts(found.test_labels, 10)
    # Half of a tenth is rounded up, as in 5 of 50 and 2 of 15.
    assert out == [max(1, (n + 5) // 10) for n in chosen]
    assert kept == [n - m for n, m in zip(chosen, out, strict=True)]


def test_the_digits_counts(digits):
    found = select(digits, split="validation")
    assert counts(found.train_labels, 10) == [129, 131, 128, 132, 130, 131, 130, 130, 126, 130]
    assert counts(found.test_labels, 10) == [14, 15, 14, 15, 15, 15, 15, 14, 14, 14]
    few = select(digits, fraction=0.05, split="validation")
    assert counts(few.train_labels, 10) == [6] * 10
    assert counts(few.test_labels, 10) == [1] * 10


@pytest.mark.parametrize(
    ("every", "out"),
    [
        ([2, 2], [1, 1]),
        ([2, 3, 4], [1, 1, 1]),
        ([5, 14, 15, 100], [1, 1, 2, 10]),
        ([1000, 2, 24, 25], [100, 1, 2, 3]),
    ],
)
def test_very_small_classes_are_in_both_parts(every, out):
    found = select(made(every), split="validation")
    assert counts(found.test_labels, len(every)) == out
    assert counts(found.train_labels, len(every)) == [
        n - m for n, m in zip(every, out, strict=True)
    ]


def test_a_single_image_cannot_be_in_both_parts():
    for data, fraction, first, number in (
        (made([5, 1, 1, 5]), 1, "b", 2),
        (made([9] * 3), 0.1, "a", 3),
    ):
        with pytest.raises(
            UsageError, match=rf"at fraction {fraction} {number} of \d .* \(the first: {first}\)"
        ) as caught:
            select(data, fraction=fraction, split="validation")
        assert "\n" not in str(caught.value)


def test_both_parts_of_a_smaller_fraction_lie_in_those_of_a_larger():
    data = made([200, 40, 12])
    before = None
    for fraction in (0.5, 0.75, 1.0):
        found = select(data, fraction=fraction, split="validation")
        shades = [
            {int(v) + 256 * int(label) for v, label in zip(images[:, 0, 0, 0], labels, strict=True)}
            for images, labels in (
                (found.train_images, found.train_labels), (found.test_images, found.test_labels)
            )
        ]  # fmt: skip
        if before is not None:
            assert before[0] < shades[0]
            assert before[1] <= shades[1]
        before = shades


def test_which_are_held_out_is_spread_and_never_all():
    for count in range(2, 300):
        out = held_out_mask(count)
        assert 0 < out.sum() < count
        assert out.sum() == max(1, (count + 5) // 10)
    assert np.flatnonzero(held_out_mask(24)).tolist() == [4, 14]


def test_validation_never_touches_the_test_images(digits):
    assert select(digits).train_images is digits.train_images
    found = select(digits, split="validation")
    together = torch.cat([found.train_images, found.test_images]).flatten(1)
    assert len(together) == len(digits.train_labels)
    assert torch.equal(
        torch.unique(together, dim=0), torch.unique(digits.train_images.flatten(1), dim=0)
    )
    again = select(digits, split="validation")
    assert torch.equal(again.test_images, found.test_images)
    assert torch.equal(again.train_labels, found.train_labels)


@pytest.mark.parametrize("where", [{"split": "validation"}, {"fraction": 0.3}])
def test_mean_and_deviation_are_those_of_the_images_learned_from(digits, where):
    found = select(digits, **where)
    exact = found.train_images.double() / 255
    assert found.mean == pytest.approx(exact.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert found.std == pytest.approx(exact.std((0, 2, 3), correction=0).tolist(), rel=1e-9)
    assert found.mean != digits.mean
    assert (select(digits).mean, select(digits).std) == (digits.mean, digits.std)


def test_held_out_images_leave_no_trace_in_a_run(digits):
    """Other pixels in the held-out images change no bit of what is learned."""
    config = RunConfig(split="validation", fraction=0.1, epochs=1, strategy="norm")
    labels = digits.train_labels.numpy()
    out = np.concatenate([m[held_out_mask(len(m))] for m in by_class(labels, 0.1).values()])
    images = digits.train_images.clone()
    images[torch.from_numpy(out)] = 255 - images[torch.from_numpy(out)]
    other = Dataset(
        name="digits", classes=digits.classes, train_images=images, embedded=True,
        train_labels=digits.train_labels, test_images=digits.test_images,
        test_labels=digits.test_labels,
    )  # fmt: skip
    first, second = (train(config, dataset=data, device="cpu") for data in (digits, other))
    assert np.array_equal(first.steps["loss"], second.steps["loss"])
    assert first.loss != second.loss


def test_runs_and_fleets_normalise_by_it(digits):
    for more in ({"split": "validation"}, {"fraction": 0.2}, {"normalize": "half"}, {}):
        config = RunConfig(epochs=1, **more)
        selected = config.select_from(digits)
        expected = (0.5, 0.5) if more == {"normalize": "half"} else (
            selected.train_images.double().mean().item() / 255,
            selected.train_images.double().std(correction=0).item() / 255,
        )  # fmt: skip
        for run in (Run(config, digits, CPU), FleetRun([config], digits, CPU)):
            scale = run._normalizer.scale[0].item()
            assert 1 / (255 * scale) == pytest.approx(expected[1], rel=1e-6)
            assert -run._normalizer.shift[0].item() / (255 * scale) == pytest.approx(
                expected[0], rel=1e-6
            )


def test_only_runs_whose_values_changed_have_another_identity():
    code = {"code": "0123456789ab"}
    same = [{}, {"normalize": "half"}, {"normalize": "half", "fraction": 0.5}]
    for more in same:
        config = RunConfig(**code, **more)
        assert config.selection == 0
        assert "selection" not in config.to_json()
    assert RunConfig(**code, normalize="half", fraction=0.5).key == (
        "8925e6ea278794e2add906f173226163d324a01fcfd43cad012156838e3c9dc3"
    )
    changed = [
        {"fraction": 0.5},
        {"split": "validation"},
        {"split": "validation", "normalize": "half"},
    ]
    for more in changed:
        config = RunConfig(**code, **more)
        assert config.selection == VERSION
        assert f'"selection":{VERSION}' in config.to_json()
        stored = config.to_json().replace(f'"selection":{VERSION},', "")
        before = RunConfig.from_json(stored)
        assert before.selection == 0
        assert before.to_json() == stored
        assert before.key != config.key
        assert before.replace(selection=None) == config


def test_runs_stored_before_are_read_and_not_trained(digits):
    config = RunConfig(split="validation", fraction=0.1, epochs=1)
    before = RunConfig.from_json(config.to_json().replace(f'"selection":{VERSION},', ""))
    with pytest.raises(UsageError, match=r"made before .* config\.replace\(selection=None\)"):
        train(before, dataset=digits, device="cpu")
    assert before.replace(seed=3).selection == 0
    assert before.replace(split="test").selection == VERSION
    assert before.replace(split="test", fraction=1).selection == 0
    assert before.replace(fraction=0.2).selection == VERSION
    for wrong in (1, VERSION + 1, True, "2"):
        with pytest.raises(UsageError, match=rf"selection must be {VERSION}, or 0"):
            RunConfig(split="validation", selection=wrong)
    assert not matters(fraction=1, split="test", normalize="standard")
