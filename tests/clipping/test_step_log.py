"""`log_to`: what loggers are told, when, and that it is what the report and the record say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gclip
from gclip.clipping.report import NUMBERS

STRATEGIES = ["zclip(warmup=2)", "norm(scope=tensor)", "clippy", "norm(max_norm=2, rule=skip)"]


def run(strategy: Any, steps: int = 12, every: int | None = None) -> tuple[Any, list[Any], Any]:
    """Steps of very different sizes; the handle, what was told, and each step's own numbers."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = gclip.attach(optimizer, strategy, model=model)
    told: list[Any] = []
    if every is not None:
        handle.log_to(lambda step, numbers: told.append((step, numbers)), every=every)
    each = []
    for step in range(steps):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) * 2.0 ** (step % 4)).square().mean().backward()
        optimizer.step()
        each.append(handle.report.scalars())
    return handle, told, each


@pytest.mark.parametrize(
    "strategy", [*STRATEGIES, gclip.chain("value(clip_value=0.1)", "norm(max_norm=0.2)")]
)
def test_every_step_it_is_the_report(strategy: Any) -> None:
    _, told, each = run(strategy, every=1)
    assert [step for step, _ in told] == list(range(1, 13))
    assert [tuple(numbers) for _, numbers in told] == [NUMBERS] * 12
    assert str([numbers for _, numbers in told]) == str(each)  # a NaN is no other NaN


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_shares_are_means_of_the_steps_between(strategy: str) -> None:
    handle, told, each = run(strategy, every=5)
    columns = handle.record.arrays()
    assert [step for step, _ in told] == [5, 10]
    for step, numbers in told:
        assert numbers["norm"] == each[step - 1]["norm"]
        assert str(numbers["limit"]) == str(each[step - 1]["limit"])
        assert numbers["clip_rate"] == pytest.approx(columns["clipped"][step - 5 : step].mean())
        assert numbers["skipped"] == pytest.approx(columns["skipped"][step - 5 : step].mean())
    shares = [numbers["clip_rate" if "skip" not in strategy else "skipped"] for _, numbers in told]
    assert any(0 < share <= 1 for share in shares)


def test_logging_changes_nothing() -> None:
    logged, _, _ = run("zclip(warmup=2)", every=3)
    plain, _, _ = run("zclip(warmup=2)")
    ours, theirs = logged.record.arrays(), plain.record.arrays()
    assert all((ours[name] == theirs[name]).all() for name in ours)


def test_the_median_is_torchs() -> None:
    from gclip.clipping.report import _median

    source = torch.Generator().manual_seed(0)
    nan = float("nan")
    for count in (1, 2, 3, 8, 9):
        values = torch.randn(count, generator=source)
        assert _median(values) == values.nanmedian()
        values[count // 2 :] = nan
        torch.testing.assert_close(_median(values), values.nanmedian(), equal_nan=True)


def test_a_resumed_run_goes_on_counting() -> None:
    first, _, _ = run("norm", steps=4)
    model = torch.nn.Linear(4, 3)
    clipper = gclip.Clipper(model, "norm")
    told: list[int] = []
    clipper.log_to(lambda step, _: told.append(step), every=3)
    clipper.load_state_dict(first.state_dict())
    for _ in range(5):
        model(torch.ones(2, 4)).sum().backward()
        clipper.step()
    assert told == [6, 9]


def test_a_writer_gets_tags() -> None:
    class Writer:
        def __init__(self) -> None:
            self.rows: list[tuple[str, float, int]] = []

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            self.rows.append((tag, scalar_value, global_step))

    writer = Writer()
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    clipper = gclip.Clipper([weight], "norm(max_norm=1)")
    clipper.log_to(writer, every=1)
    clipper.step()
    assert writer.rows[:3] == [
        ("clip/norm", 5.0, 1), ("clip/clipped_norm", 1.0, 1), ("clip/limit", 1.0, 1),
    ]  # fmt: skip


def test_several_targets() -> None:
    clipper = gclip.Clipper(torch.nn.Linear(2, 1), "norm")
    told: list[str] = []
    clipper.log_to(lambda *_: told.append("often"), every=1)
    clipper.log_to(lambda *_: told.append("seldom"), every=2)
    for _ in range(2):
        for parameter in clipper.params:
            parameter.grad = torch.ones_like(parameter)
        clipper.step()
    assert told == ["often", "often", "seldom"]


def test_logs_of_other_spacing_do_not_disturb_one_another() -> None:
    _, alone, _ = run("norm(scope=tensor)", every=5)
    told: list[Any] = []
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = gclip.attach(optimizer, "norm(scope=tensor)", model=model)
    handle.log_to(lambda *_: None, every=3)  # cuts the record elsewhere
    handle.log_to(lambda step, numbers: told.append((step, numbers)), every=5)
    for step in range(12):
        optimizer.zero_grad()
        (model(torch.randn(8, 4)) * 2.0 ** (step % 4)).square().mean().backward()
        optimizer.step()
    assert told == alone


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 7, 20])
def test_the_last_rows_of_a_record(steps: int) -> None:
    handle, _, _ = run("zclip", steps=10, every=4)  # blocks of 4, 4 and 2
    norms = handle.record.last(steps)[:, 0]
    expected = handle.record.arrays()["norm"]
    assert norms.tolist() == expected[max(0, 10 - steps) :].tolist()


@pytest.mark.parametrize(
    ("target", "every", "words"),
    [
        ("runs", 50, "but got str"),
        (print, 0, "whole number ≥ 1, but got 0"),
        (print, 2.0, "but got 2.0"),
        (print, True, "but got True"),
    ],
)
def test_what_cannot_be_logged(target: Any, every: Any, words: str) -> None:
    with pytest.raises(gclip.UsageError, match=words):
        gclip.Clipper(torch.nn.Linear(2, 1), "norm").log_to(target, every=every)


def test_without_a_record_there_is_nothing_to_tell() -> None:
    with pytest.raises(gclip.UsageError, match="record=True"):
        gclip.Clipper(torch.nn.Linear(2, 1), "norm", record=False).log_to(print)
