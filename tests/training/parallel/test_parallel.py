"""Runs of two processes are those of one: losses, norms, scores, keys, checkpoints, failures."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from gclip.training import load_dataset, models
from gclip.training.parallel.batch_share import BatchShare
from gclip.training.parallel.split_layers import split_layers
from tests import processes
from tests.training.parallel import child

pytestmark = processes.NEEDED
Outcome = dict[str, Any]
TOLERANCE = {
    "bf16": 1e-1,  # which has 8 bits
    # torch's own batch norm is 1.4e-6 from float64's gradients there, ours 1.4e-7.
    **{name: 5e-6 for name in child.SETTINGS if name.startswith("mixing")},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each of the two processes came to."""
    folder = tmp_path_factory.mktemp("parallel")
    processes.run_script(str(Path(child.__file__)), folder)
    return processes.found(folder, 2)


@pytest.fixture(scope="module")
def data() -> Any:
    return load_dataset("digits")


def assert_same(one: Outcome, other: Outcome, tolerance: float = 0.0) -> None:
    """Everything of a result, but who made it."""
    assert one["key"] == other["key"]
    assert one["status"] == other["status"]
    assert one["steps"].keys() == other["steps"].keys()
    close = {"rtol": tolerance, "atol": 0.0, "equal_nan": True}
    for name, values in one["steps"].items():
        torch.testing.assert_close(values, other["steps"][name], **close)
    assert one["score"] == pytest.approx(other["score"], rel=tolerance, abs=0, nan_ok=True)
    assert one["loss"] == pytest.approx(other["loss"], rel=tolerance, abs=0, nan_ok=True)
    for ours, theirs in zip(one["curve"], other["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=0, nan_ok=True)
    if one["layers"] is not None:
        torch.testing.assert_close(one["layers"], other["layers"], **close)


@pytest.mark.parametrize("name", {**child.SETTINGS, **child.settings_of_strategies()})
def test_two_processes_train_the_run_of_one(name: str, found: list[Any], data: Any) -> None:
    child.register()
    first, second = (each["runs"][name] for each in found)
    assert_same(first, second)
    alone = child.trained({**child.SETTINGS, **child.settings_of_strategies()}[name], data)
    assert_same(first, alone, TOLERANCE.get(name, 1e-6))
    assert (first["world_size"], alone["world_size"]) == (2, None)


def test_the_runs_are_such_that_a_mistake_would_show(found: list[Any]) -> None:
    runs = found[0]["runs"]
    assert [len(runs[name]["steps"]["loss"]) for name in ("sgd", "accumulate")] == [5, 5]
    assert runs["diverged"]["status"][0] == "diverged"
    assert 0 < runs["skipped"]["steps"]["skipped"].sum() < 5
    assert runs["disturbed"]["steps"]["norm"].max() > 100
    assert runs["sgd"]["steps"]["clipped"].any()
    for name in child.STRATEGIES:
        assert runs[name]["steps"]["clipped"].any(), name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("examples", "clips single examples and learns from all of a step"),
        ("gan", "task gan-digits makes its own batches and losses"),
        ("means", "comes to another loss than in one process: the model or the loss mixes"),
        ("noise", "comes to another loss than in one process: the model or the loss mixes"),
        ("weights", "comes to another loss than in one process: the model or the loss mixes"),
        ("lstm", "(Dropping) draws its dropout inside"),
        ("another seed", "must have the same seed, but process 0 has 0 and process 1 has 1"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(name: str, words: str, found: list[Any]) -> None:
    first, second = (each["refused"][name] for each in found)
    assert words in first
    assert first == second


def test_a_checkpoint_is_that_of_one_process(found: list[Any], data: Any) -> None:
    first, second = found
    assert_same(first["pruned"], second["pruned"])
    assert first["pruned"]["status"] == ("pruned", 5, "stopped by the caller at step 5")
    assert first["told"]
    assert not second["told"]
    child.register()
    whole = child.trained(child.SETTINGS["mixing"], data)
    assert len(whole["steps"]["loss"]) == 10
    assert_same(first["from alone"], second["from alone"])
    for name in ("from alone", "from shared"):
        assert_same(first[name], whole, TOLERANCE["mixing"])


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("trained", 0, "stored in runs/"),
        ("read", 0, "read from runs/"),
        ("a wrong option", 2, "No such option: --frction"),
        ("a wrong value", 2, "lr must be > 0, but got -1"),
        ("a gan", 2, "task gan-digits makes its own batches and losses"),
        ("one fails", 1, "unexpected RuntimeError: no memory left"),
        ("one refuses", 2, "gclip: error: this row is refused"),
        ("interrupted", 130, "gclip: interrupted: nothing of this run is kept"),
        ("compare", 2, "start it once, without torchrun, with --workers 2"),
        ("survey", 2, "start it once, without torchrun"),
    ],
)
def test_one_process_speaks_and_all_end_alike(
    name: str, code: int, words: str, found: list[Any]
) -> None:
    answers = [each["commands"][name] for each in found]
    assert [answer[0] for answer in answers] == [code, code]
    said = "".join(" ".join([out, err]) for _, out, err in answers)
    assert said.count(words) == 1
    assert said.count("gclip: ") == (code != 0)
    if code == 0:
        assert answers[1][1:] == ("", "")


def test_a_process_that_dies_ends_the_others(found: list[Any]) -> None:
    code, out, err = found[0]["commands"]["one dies"]
    assert code == 1
    assert not out
    said = [line for line in err.splitlines() if line.startswith("gclip: ")]
    assert len(said) == 1
    assert "another process of this run has ended or does not answer" in said[0]


def test_a_process_that_does_not_answer_is_not_waited_for_longer_than_said(
    found: list[Any],
) -> None:
    said, is_first = found[0]["patience"]
    assert is_first
    assert said.startswith("another process of this run has ended or does not answer")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3, 4)])
def test_split_batch_norm_is_that_of_float64(shape: tuple[int, ...]) -> None:
    """Of one process, so that all that is added up is there."""

    class Alone:
        def add_up(self, *tensors: torch.Tensor) -> None: ...

    kind = torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d
    draws = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(shape, generator=draws)
    weights = torch.randn(shape, generator=draws)
    share = BatchShare(0, 1)
    ours, theirs = kind(5), kind(5).double()
    with torch.no_grad():
        ours.weight.copy_(torch.randn(5, generator=draws))
        theirs.weight.copy_(ours.weight)
    assert split_layers(ours, cast(Any, Alone()), share)
    assert isinstance(ours, kind)
    results = []
    for layer, kind_of in ((ours, torch.float32), (theirs, torch.float64)):
        share.divide(6)
        input = x.detach().to(kind_of, copy=True).requires_grad_()
        output = layer(input)
        (output * weights).sum().backward()
        results.append([output, input.grad, *(p.grad for p in layer.parameters())])
        results[-1] += [layer.running_mean, layer.running_var]
    for mine, exact in zip(*results, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=2e-6, atol=2e-6)
    assert int(ours.num_batches_tracked) == 1


def test_in_a_deep_net_torchs_batch_norm_rounds_ten_times_as_much(data: Any) -> None:
    """Why runs of nets with batch norm are not those of one process to the sixth digit."""

    class Alone:
        def add_up(self, *tensors: torch.Tensor) -> None: ...

    inputs = (data.train_images[:16].float() / 255 - 0.5) / 0.25
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    torchs = models.build("resnet9").to(memory_format=torch.channels_last)
    ours, exact = copy.deepcopy(torchs), copy.deepcopy(torchs).double()
    split_layers(ours, cast(Any, Alone()), BatchShare(0, 1).divide(16))
    grads = []
    for net, given in ((torchs, inputs), (ours, inputs), (exact, inputs.double())):
        torch.nn.functional.cross_entropy(net(given), data.train_labels[:16]).backward()
        grads.append(torch.cat([p.grad.double().flatten() for p in net.parameters()]))
    errors = [float((each - grads[2]).norm() / grads[2].norm()) for each in grads[:2]]
    assert errors[1] < 0.3 * errors[0]
    assert 1e-3 < errors[0] < 3e-2
