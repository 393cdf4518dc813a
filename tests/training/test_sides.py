"""Runs whose strategy works on single examples, on the update, on elements, or by a schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import gclip
from gclip.training import RunConfig, models, train

CONFIG = RunConfig(fraction=0.05, epochs=3, lr=0.05, batch_size=16)
SPECS = (
    "per_sample(max_norm=0.5)",
    "chain(per_sample(max_norm=linear(2, 0.5)), norm(max_norm=0.2))",
    "quantile_tracking(side=sample, scope=layer)",
    "norm(max_norm=0.02, side=update)",
    "chain(percentile(p=50), percentile(p=50, side=update))",
    "acclip",
    "spam(threshold=20, warmup=3)",
    "norm(max_norm=cosine(1, 0.1), warmup=4)",
    "percentile(p=linear(90, 20), scope=layer)",
    "zclip(warmup=4)",
)


def bits(result):
    curve = [{**row, "seconds": 0} for row in result.curve]
    return result.status, result.accuracy, result.loss, curve, result.clipping


def by_step(result):
    return {name: values.tolist() for name, values in result.steps.items()}


@pytest.mark.parametrize("spec", SPECS)
def test_a_resumed_run_ends_in_the_same_bits(spec, digits, tmp_path):
    config = CONFIG.replace(strategy=spec)
    whole = train(config, dataset=digits)
    assert whole.status == "finished"
    assert whole.clipping["clip_rate"] > 0
    path = tmp_path / "run.ckpt"
    cut = train(config, dataset=digits, checkpoint=path, on_progress=lambda p: p.epoch < 1)
    assert cut.status == "pruned"
    resumed = train(config, dataset=digits, checkpoint=path)
    assert bits(resumed) == bits(whole)
    np.testing.assert_equal(by_step(resumed), by_step(whole))


def test_the_schedule_spans_the_run(digits):
    config = CONFIG.replace(strategy="norm(max_norm=linear(1, 0.1))")
    limits = train(config, dataset=digits).steps["limit"]
    np.testing.assert_allclose(limits, np.linspace(1, 0.1, len(limits)), rtol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_single_examples_by_hand(accumulate, digits):
    """The first step of a run: the mean over all examples of its batches."""
    config = CONFIG.replace(strategy="per_sample(max_norm=0.5)", accumulate=accumulate, epochs=1)
    found = train(config, dataset=digits)
    from gclip.training import seeds
    from gclip.training.data_split import select

    data = select(digits, fraction=config.fraction, split=config.split)
    model = models.build(config.model, seed=config.seed)
    order = torch.randperm(len(data.train_labels), generator=seeds.generator(config.seed, "order"))[
        : 16 * accumulate
    ]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (data.mean, data.std))
    images = (data.train_images[order] / 255 - mean) / std
    total = torch.zeros(sum(p.numel() for p in model.parameters()))
    plain = total.clone()
    for image, label in zip(images, data.train_labels[order], strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        grad = torch.cat([p.grad.flatten() for p in model.parameters()])
        plain += grad / len(images)
        total += grad * min(1.0, 0.5 / grad.norm().item()) / len(images)
    assert found.steps["norm"][0] == pytest.approx(plain.norm().item(), rel=1e-4)
    assert found.steps["clipped_norm"][0] == pytest.approx(total.norm().item(), rel=1e-4)


def test_no_update_is_larger_than_its_limit(digits):
    config = CONFIG.replace(strategy="norm(max_norm=0.02, side=update)", optimizer="adam", lr=0.01)
    result = train(config, dataset=digits)
    assert (result.steps["clipped_norm"] <= 0.02 * (1 + 1e-5)).all()
    assert (result.steps["norm"] > 0.02).any()


def test_batch_norm_and_single_examples(digits):
    config = CONFIG.replace(strategy="per_sample", model="resnet9")
    with pytest.raises(gclip.UsageError, match="is a batch norm in training mode"):
        train(config, dataset=digits)
