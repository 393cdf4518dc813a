"""Runs whose layers are watched: the same runs, with the norms beside; resumed to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from gclip.clipping.layer_record import COLUMNS
from gclip.training import RunConfig, RunResult, resolve_device, train
from gclip.training import problem_run as problem_runs
from gclip.training import run as runs
from gclip.training.batches import Epoch
from gclip.training.device import reproducible
from gclip.training.fleet.train import unsupported
from gclip.training.run import Run
from tests.training import toy_problem  # noqa: F401 - registers its problems

SMALL = RunConfig(fraction=0.1, epochs=3, lr=0.05, strategy="norm(max_norm=0.5)")
WATCHED = SMALL.replace(watch="layer")


def same_layers(first, second):
    assert first.layers.names == second.layers.names
    for name in ("step", *COLUMNS):
        np.testing.assert_array_equal(
            getattr(first.layers, name), getattr(second.layers, name), err_msg=name
        )


def test_watching_changes_no_bit_and_agrees_with_the_record(digits):
    plain, watched = (train(c, dataset=digits, device="cpu") for c in (SMALL, WATCHED))
    assert SMALL.key != WATCHED.key
    assert plain.layers is None
    assert "layers" not in plain.to_dict()
    assert plain.score == watched.score
    for name, values in plain.steps.items():
        np.testing.assert_array_equal(values, watched.steps[name], err_msg=name)
    record = watched.layers
    assert record.names == ("conv1", "conv2", "fc1", "fc2", "fc3")
    assert record.step.tolist() == list(range(15))
    for side, column in (("before", "norm"), ("after", "clipped_norm")):
        total = np.sqrt(np.square(getattr(record, side).astype(float)).sum(axis=1))
        np.testing.assert_allclose(total, watched.steps[column], rtol=1e-5)


class Calls(TorchDispatchMode):
    """Which of torch's kernels are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_run_that_is_not_watched_pays_nothing(digits, monkeypatch):
    def refuse(*_):
        raise AssertionError("nobody asked for norms of layers")

    monkeypatch.setattr(runs, "LayerNorms", refuse)
    monkeypatch.setattr(problem_runs, "LayerNorms", refuse)
    device = resolve_device("cpu")
    with reproducible(device, 1):
        run, twin = (Run(SMALL, digits, device) for _ in range(2))
        called = []
        for each in (run, twin):
            stream = each._train_batches(each._train_labels, Epoch.in_order(96, device))
            each._set_rates(0)
            for _ in range(2):  # the first steps fill what is kept for later ones
                each._accumulate(stream, 32)
                each._clip_and_step()
            each._accumulate(stream, 32)
            with Calls() as calls:
                if each is run:
                    each._clip_and_step()
                else:  # and that is all there is to a step
                    each._stepper.step(each.clipper.step().skipped)
            called.append(calls.names)
    assert len(called[0]) > 10
    assert called[0] == called[1]
    train(RunConfig(task="toy-pair"), device="cpu")


@pytest.mark.parametrize("task", ["digits", "toy-pair"])
def test_a_resumed_run_has_the_same_norms(task, digits, tmp_path):
    config = WATCHED if task == "digits" else RunConfig(task=task, watch="layer", epochs=3)
    more = {"dataset": digits if task == "digits" else None, "device": "cpu"}
    whole = train(config, **more)
    path = tmp_path / "run.ckpt"
    train(config, checkpoint=path, on_progress=lambda p: p.epoch < 1, **more)
    resumed = train(config, checkpoint=path, **more)
    assert resumed.score == whole.score
    same_layers(whole, resumed)


def test_each_player_has_its_own_layers_and_steps():
    result = train(RunConfig(task="toy-pair", watch="layer", strategy="norm"), device="cpu")
    record = result.layers
    assert (record.names, record.players) == (("a.weight", "b.weight"), ("a", "b"))
    order = result.steps["player"]
    assert np.isnan(record.before).tolist() == [[p != 0, p != 1] for p in order]
    np.testing.assert_allclose(np.nansum(record.before, axis=1), result.steps["norm"], rtol=1e-6)
    np.testing.assert_allclose(
        np.nansum(record.after, axis=1), result.steps["clipped_norm"], rtol=1e-6
    )
    assert [each.player for each in record.profiles()] == ["a", "b"]


def test_a_diverged_run_is_cut_at_its_last_whole_step(digits):
    config = RunConfig(model="plain", strategy="none", fraction=0.1, lr=10.0, watch="layer")
    result = train(config, dataset=digits, device="cpu")
    assert result.status == "diverged"
    assert result.layers.step.tolist() == list(range(result.stopped_at))
    assert result.stopped_at < 10


def test_skipped_updates_are_marked(digits):
    config = WATCHED.replace(strategy="norm(max_norm=1e-6, rule=skip)", epochs=1)
    result = train(config, dataset=digits, device="cpu")
    assert (result.layers.skipped == 1).all()
    assert np.isnan(result.layers.after).all()
    update = config.replace(strategy="norm(max_norm=1e-9, rule=skip, side=update)")
    result = train(update, dataset=digits, device="cpu")
    assert (result.steps["skipped"] == 1).all()
    assert (result.layers.skipped == 1).all()


def test_a_result_comes_back_from_its_dict():
    result = train(RunConfig(task="toy-pair", watch="layer"), device="cpu")
    told = result.to_dict()
    assert told["layers"] == ["a.weight", "b.weight"]
    back = RunResult.from_dict(told)
    same_layers(result, back)
    assert back.layers.players == ("a", "b")
    assert back.steps.keys() == result.steps.keys()


def test_fleets_leave_watched_runs_to_be_trained_one_by_one():
    assert unsupported(WATCHED) == "watch=layer measures the layers of one run at a time"
    assert unsupported(SMALL) == ""
