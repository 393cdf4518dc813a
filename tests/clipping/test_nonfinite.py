"""Whose gradients were not finite first, and at which step: on the host, and on a device."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

import gclip
from gclip.clipping import nonfinite
from gclip.clipping.nonfinite import FirstNonfinite

BAD = {3: {"conv.bias": math.inf, "head.weight": math.nan}, 5: {"mix.weight": math.nan}}
"""Steps, and what is put into one element of these gradients then."""
SPECS = ("norm(max_norm=1)", "value", "agc", "norm(scope=layer)", "norm(scope=tensor)", "spam",
         "chain(norm, value)", "norm(side=update)", "norm(rule=normalize)")  # fmt: skip


def steps(clipper: Any, params: dict[str, nn.Parameter], fill: Any, optimizer: Any) -> list[Any]:
    """Seven steps; the reports of all."""
    reports = []
    for step in range(7):
        fill(params, step)
        for name, value in BAD.get(step, {}).items():
            params[name].grad.view(-1)[1] = value
        reports.append(clipper.step())
        with clipper.updating():
            optimizer.step()
    return reports


@pytest.mark.parametrize("spec", SPECS)
def test_the_first_step_and_its_parameters(spec: str, parameters: Any, fill: Any) -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params.values(), lr=1e-3)
    clipper = gclip.Clipper(params.items(), spec, optimizer=optimizer, max_consecutive_skips=None)
    reports = steps(clipper, params, fill, optimizer)
    assert [report.not_finite for report in reports] == [
        tuple(n for n in params if n in BAD.get(step, {})) for step in range(7)
    ]
    found = clipper.record.summary()
    assert found.first_not_finite == FirstNonfinite(3, ("conv.bias", "head.weight"))
    assert found.not_finite == 2
    assert "2 not finite, first at step 3 in conv.bias and 1 more" in str(found)
    assert found.as_dict()["first_not_finite"] == {
        "step": 3,
        "parameters": ["conv.bias", "head.weight"],
    }


def test_a_report_names_them(parameters: Any, fill: Any) -> None:
    params = parameters()
    clipper = gclip.Clipper(params.items(), "norm")
    fill(params, 0)
    params["mix.weight"].grad[0, 0, 0] = math.nan
    assert repr(clipper.step()).endswith("not finite in mix.weight)")


def test_where_all_is_finite_nothing_is_looked_at(
    parameters: Any, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("looked")

    monkeypatch.setattr("gclip.clipping.step_flags.nonfinite_names", never)
    params = parameters()
    clipper = gclip.Clipper(params.items(), "norm")
    for step in range(3):
        fill(params, step)
        assert clipper.step().not_finite == ()
    assert clipper.record.summary().first_not_finite is None
    assert "first_not_finite" not in clipper.record.summary().as_dict()
    assert clipper.record.location() == {}


@pytest.mark.parametrize("waiting", [1, 2, 64])
@pytest.mark.parametrize("spec", [s for s in SPECS if s not in ("spam", "norm(side=update)")])
def test_a_device_that_nobody_waits_for(
    spec: str, waiting: int, parameters: Any, fill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the flags of a step are tensors that nobody reads."""
    hosts = (
        "norms", "group_norms", "nonfinite", "step_flags", "clipper", "rules", "skip_monitor",
        "clamp_pass",
    )  # fmt: skip
    for name in hosts:
        monkeypatch.setattr(f"gclip.clipping.{name}.on_host", lambda _: False)
    monkeypatch.setattr(nonfinite, "_STEPS", waiting)
    params = parameters()
    optimizer = torch.optim.SGD(params.values(), lr=1e-3)
    clipper = gclip.Clipper(params.items(), spec)
    reports = steps(clipper, params, fill, optimizer)
    found = clipper.record.summary().first_not_finite
    assert found is not None
    assert found.step == 3
    if clipper.parts[0].strategy.scope == "global":
        # One norm of all is measured on a CPU, so that there is nothing to tell by.
        assert found.parameters == ()
    elif clipper.parts[0].strategy.scope == "layer":
        assert found.parameters == ("conv.bias", "head.weight")
    else:
        assert found.parameters == ("conv.bias", "head.weight")
        assert reports[5].not_finite == ("mix.weight",)


def test_norms_of_a_device_tell_parameters_apart() -> None:
    """Of one norm for all, each tensor's own is kept, where a GPU has measured it."""
    from gclip.clipping.groups import Groups

    groups = Groups(["a", "b"], [torch.Size([2]), torch.Size([3])], "global")
    groups._each = torch.tensor([1.0, math.nan])
    assert groups.finest(torch.tensor([math.nan])) == (("a", "b"), groups._each)
    log = nonfinite.NonfiniteLog()
    log.note(0, torch.tensor([False]), nonfinite.NonfiniteGradients([groups.finest(groups._each)]))
    assert log.first() == FirstNonfinite(0, ("b",))


@pytest.mark.parametrize("waiting", [1, 3, 64])
def test_a_log_of_many_runs(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonfinite, "on_host", lambda _: False)
    monkeypatch.setattr(nonfinite, "_STEPS", waiting)
    log = nonfinite.NonfiniteLog(3)
    bad = {(2, 0): "b", (4, 0): "a", (5, 2): "a", (8, 1): "b"}
    for step in range(10):
        norms, finite = torch.ones(3, 2), torch.ones(3, 1, dtype=torch.bool)
        for (at, run), name in bad.items():
            if at == step:
                norms[run, "ab".index(name)] = math.nan
                finite[run] = False
        log.note(step, finite, nonfinite.NonfiniteGradients([(("a", "b"), norms)]))
        if step == 6:
            assert log.first(0) == FirstNonfinite(2, ("b",))
            log.select_runs([2, 1, 0])
            log.select_runs([0, 1])
            bad = {(8, 1): "b"}
            log.runs = 2
            break
    for step in range(7, 10):
        norms, finite = torch.ones(2, 2), torch.ones(2, 1, dtype=torch.bool)
        if step == 8:
            norms[1, 1], finite[1] = math.nan, False
        log.note(step, finite, nonfinite.NonfiniteGradients([(("a", "b"), norms)]))
    assert log.first(0) == FirstNonfinite(5, ("a",))
    assert log.first(1) == FirstNonfinite(8, ("b",))


def test_a_loaded_record_knows_the_step_and_what_it_is_told(parameters: Any, fill: Any) -> None:
    params = parameters()
    optimizer = torch.optim.SGD(params.values(), lr=1e-3)
    clipper = gclip.Clipper(params.items(), "norm")
    steps(clipper, params, fill, optimizer)
    again = gclip.Clipper(parameters().items(), "norm")
    again.load_state_dict(copy.deepcopy(clipper.state_dict()))
    assert again.record.first_not_finite == FirstNonfinite(3)
    assert "2 not finite, first at step 3;" not in str(again.record.summary())
    again.record.locate(FirstNonfinite.from_dict(clipper.record.location()["first_not_finite"]))
    assert again.record.summary() == clipper.record.summary()
    assert clipper.record.first(3).first_not_finite == FirstNonfinite(
        3, ("conv.bias", "head.weight")
    )
    assert clipper.record.first(2).first_not_finite is None
