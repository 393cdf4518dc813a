"""Graphs of the training pass: the bits of training without them, and a way back when they fail.

On a CPU a stand-in takes the place of the CUDA graph: it computes on the same fixed inputs and
writes into the same fixed gradients, as a replay does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gclip
from gclip.training import Dataset, RunConfig, graphs, load_dataset, train, train_fleet
from gclip.training import run as one_run
from gclip.training.fleet import run as fleet_run
from gclip.training.models.registry import _MODELS

CONFIG = RunConfig(
    strategy="norm(max_norm=0.5)", fraction=0.2, epochs=2, batch_size=44, lr=0.05, seed=3
)
NORMED = {"model": "small_normed", "fraction": 0.03, "batch_size": 16}
"""A net with statistics of batches: three steps an epoch, the last one smaller."""
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.fixture(autouse=True)
def _small_normed() -> Iterator[None]:
    @gclip.register_model("small_normed")
    def build(inputs: tuple[int, ...], outputs: int) -> nn.Module:
        """A convolution whose outputs are normalised by the batch's statistics."""
        layers = nn.Conv2d(inputs[0], 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
        return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(outputs))

    yield
    del _MODELS._entries["small_normed"]


def few_tested() -> Dataset:
    """The digits, with few images to be measured on: a look at all of them is the dearest part."""
    digits = load_dataset("digits")
    return dataclasses.replace(
        digits, test_images=digits.test_images[:32], test_labels=digits.test_labels[:32]
    )


class StandIn:
    """What `graphs.CudaGraph` does, without a GPU."""

    made: ClassVar[list[StandIn]] = []

    def __init__(self, work: Callable[[], Tensor], clear: Any) -> None:
        self.work, self.clear, self.replays = work, clear, 0
        for _ in range(3):  # warming up changes statistics, as on a GPU
            clear()
            work()
        clear()
        self.loss = work()
        self.parameters = clear.__self__._parameters
        self.grads = [p.grad for p in self.parameters]
        StandIn.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        self.clear()
        self.loss.copy_(self.work())
        for own, parameter in zip(self.grads, self.parameters, strict=True):
            if own is not None:
                own.copy_(parameter.grad)
        self.clear()


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def use(record: Any) -> None:
        StandIn.made = []

        def recorder(
            device: torch.device, steps: int, *, whole: bool, **more: bool
        ) -> tuple[Any, str]:
            return (record, "") if whole else graphs.recorder(device, steps, whole=whole, **more)

        monkeypatch.setattr(one_run, "recorder", recorder)
        monkeypatch.setattr(fleet_run, "recorder", recorder)

    return use


def same(one: Any, other: Any) -> None:
    for name, values in one.steps.items():
        np.testing.assert_array_equal(values, other.steps[name], err_msg=name)
    assert [row["loss"] for row in one.curve] == [row["loss"] for row in other.curve]
    assert one.accuracy == other.accuracy


@pytest.mark.parametrize(
    "change",
    [
        {},
        NORMED,
        {"strategy": "agc"},
        {"strategy": "percentile", "optimizer": "adam"},
        {"strategy": "norm(side=update)"},
        {"strategy": "value(clip_value=0.01)", "gradient_noise": 0.1},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_a_run_has_the_same_bits(change: dict[str, Any], recording: Callable[[Any], None]) -> None:
    config, data = CONFIG.replace(**change), few_tested()
    plain = train(config, dataset=data, device="cpu")
    recording(StandIn)
    found = train(config, dataset=data, device="cpu")
    [graph] = StandIn.made
    same(plain, found)
    assert (plain.environment.get("graph"), found.environment["graph"]) == (None, "recorded")
    # One replay checks; an epoch's last batch is smaller, and is computed without the graph.
    count = round(config.fraction * len(load_dataset("digits").train_labels))
    assert count % config.batch_size
    assert graph.replays == 1 + config.epochs * (count // config.batch_size)


def test_a_fleet_has_the_same_bits(recording: Callable[[Any], None]) -> None:
    configs = [
        CONFIG.replace(strategy=s, seed=seed) for s in ("norm", "agc", "zclip") for seed in (0, 1)
    ]

    def prune(place: int, progress: Any) -> bool:
        return place != 1

    plain = train_fleet(configs, device="cpu", on_progress=prune)
    recording(StandIn)
    found = train_fleet(configs, device="cpu", on_progress=prune)
    for one, other in zip(plain, found, strict=True):
        same(one, other)
    assert found[1].status == "pruned"
    # The stack without the pruned run has a graph of its own.
    assert len(StandIn.made) == 2
    assert all(result.environment["graph"] == "recorded" for result in found)


def fails(work: Callable[[], Tensor], clear: Callable[[], None]) -> StandIn:
    work()
    raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


class Wrong(StandIn):
    def replay(self) -> None:
        super().replay()
        self.grads[0].mul_(1.01)  # type: ignore[union-attr]


class Lacking(StandIn):
    def __init__(self, work: Callable[[], Tensor], clear: Any) -> None:
        super().__init__(work, clear)
        self.parameters[-1].grad = None


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (fails, "operation not permitted when stream is capturing"),
        (Wrong, "it gives other gradients than the same batch without it"),
        (Lacking, "it leaves other parameters without gradients"),
    ],
)
def test_training_goes_on_without(record: Any, why: str, recording: Callable[[Any], None]) -> None:
    config = CONFIG.replace(**NORMED, epochs=1)
    data = few_tested()
    plain = train(config, dataset=data, device="cpu")
    recording(record)
    with pytest.warns(UserWarning, match=f"training goes on without a CUDA graph: {why}$"):
        found = train(config, dataset=data, device="cpu")
    same(plain, found)
    assert found.environment["graph"] == f"none: {why}"


def test_accumulated_and_single_gradients_are_not_recorded(
    recording: Callable[[Any], None],
) -> None:
    recording(fails)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(CONFIG.replace(accumulate=2, epochs=1), device="cpu")
        train(CONFIG.replace(strategy="norm(side=sample)", fraction=0.05, epochs=1), device="cpu")


def test_who_gets_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert graphs.recorder(cuda, 100, whole=True) == (graphs.CudaGraph, "")
    assert graphs.recorder(cpu, 100, whole=True) == (None, "")
    assert "fewer than 100 steps" in graphs.recorder(cuda, 99, whole=True)[1]
    assert "several passes" in graphs.recorder(cuda, 100, whole=False)[1]
    monkeypatch.setenv("GCLIP_CUDA_GRAPHS", "0")
    assert graphs.recorder(cuda, 100, whole=True) == (None, "none: GCLIP_CUDA_GRAPHS=0")


def test_how_a_cuda_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            said.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            said.append("replay")

    @contextlib.contextmanager
    def inside(what: Any) -> Any:
        said.append("on side" if isinstance(what, Stream) else "recording")
        yield
        said.append("end")

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", inside)

    def work() -> Tensor:
        said.append("work")
        return torch.ones(())

    made = graphs.CudaGraph(work, lambda: said.append("clear"))
    made.replay()
    assert said == [
        *("side waits for main", "on side", *["clear", "work"] * 3, "end", "main waits for side"),
        *("clear", "recording", "work", "end", "replay"),
    ]


@GPU
@pytest.mark.parametrize("strategy", ["norm(max_norm=0.5)", "agc", "percentile"])
def test_on_a_gpu(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace(strategy=strategy, epochs=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train(config, device="cuda")
    assert found.environment["graph"] == "recorded"
    monkeypatch.setenv("GCLIP_CUDA_GRAPHS", "0")
    plain = train(config, device="cuda")
    np.testing.assert_allclose(found.steps["loss"][:50], plain.steps["loss"][:50], rtol=1e-4)
