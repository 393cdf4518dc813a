"""Wrong labels, heavy-tailed noise and spikes: the same ones for every strategy."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from gclip import UsageError
from gclip.training import RunConfig, train
from gclip.training.disturbances import SPIKE, Disturbance, wrong_labels

LABELS = torch.arange(20_000) % 10


def test_wrong_labels_are_as_many_as_asked_and_never_the_right_ones():
    noisy = wrong_labels(LABELS, 0.2, 10, seed=3)
    changed = noisy != LABELS
    low, high = stats.binom(len(LABELS), 0.2).interval(0.9999)
    assert low <= int(changed.sum()) <= high
    assert set(((noisy - LABELS) % 10)[changed].tolist()) == set(range(1, 10))
    assert torch.equal(noisy, wrong_labels(LABELS, 0.2, 10, seed=3))
    assert not torch.equal(noisy, wrong_labels(LABELS, 0.2, 10, seed=4))
    assert wrong_labels(LABELS, 0.0, 10, seed=3) is LABELS


def test_noise_is_students_t_times_the_root_mean_square():
    grad = torch.cat((torch.full((10_000,), 3.0), torch.full((10_000,), -3.0)))
    parameter = torch.nn.Parameter(torch.zeros(20_000))
    parameter.grad = grad.clone()
    Disturbance(0.5, 0.0, seed=0).apply([parameter])
    draws = ((parameter.grad - grad) / (0.5 * 3.0)).double().numpy()
    assert stats.kstest(draws, stats.t(df=2).cdf).pvalue > 0.001


def test_spikes_come_as_often_as_asked_and_are_a_thousandfold():
    parameter = torch.nn.Parameter(torch.zeros(2))
    disturbance = Disturbance(0.0, 0.1, seed=0)
    sizes = []
    for _ in range(2000):
        parameter.grad = torch.tensor([1.0, -2.0])
        disturbance.apply([parameter, torch.nn.Parameter(torch.zeros(1))])
        sizes.append(parameter.grad[0].item())
    assert set(sizes) == {1.0, SPIKE}
    low, high = stats.binom(2000, 0.1).interval(0.9999)
    assert low <= sizes.count(SPIKE) <= high


def test_none_asked_for_is_nothing():
    assert not Disturbance(0.0, 0.0, seed=0)
    assert Disturbance(0.0, 0.1, seed=0)


def test_every_strategy_meets_the_same_spikes_at_the_same_steps():
    runs = [
        train(RunConfig(spikes=0.05, epochs=1, lr=1e-4, strategy=strategy))
        for strategy in ("norm(max_norm=0.001)", "norm(max_norm=0.0001)")
    ]
    spiked = [run.steps["norm"] > 100 for run in runs]
    assert 0 < spiked[0].sum() < 10
    assert (spiked[0] == spiked[1]).all()


def test_a_disturbed_run_resumes_exactly(tmp_path):
    config = RunConfig(
        spikes=0.02, gradient_noise=0.1, label_noise=0.1, epochs=2, fraction=0.2, strategy="norm"
    )
    whole = train(config)
    file = tmp_path / "run.ckpt"
    train(config, checkpoint=file, on_progress=lambda p: p.epoch < 1)
    resumed = train(config, checkpoint=file)
    assert (resumed.steps["norm"] == whole.steps["norm"]).all()
    assert resumed.accuracy == whole.accuracy


@pytest.mark.parametrize(
    ("field", "value"), [("label_noise", 1.0), ("gradient_noise", -1.0), ("spikes", 1.5)]
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(UsageError, match=field):
        RunConfig(**{field: value})
