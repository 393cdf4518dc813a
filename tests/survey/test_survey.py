"""The survey: norms watched in a loop, thresholds found by replaying them."""

from __future__ import annotations

import doctest
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gclip
from gclip import figures
from gclip.survey import norm_log
from gclip.survey import survey as survey_module
from gclip.survey.norm_log import Magnitudes
from gclip.survey.survey import pooled
from gclip.training import RunConfig, load_dataset, train
from gclip.training.norm_survey import survey_norms

STEPS = 120


class Net(nn.Module):
    """Two matrices and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.second = nn.Linear(5, 3, bias=False)


def gradients(model: nn.Module, steps: int = STEPS, seed: int = 0) -> list[list[Tensor]]:
    """Heavy-tailed gradients of every step, with some spikes."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for step in range(steps):
        size = torch.randn((), generator=generator).mul(0.6).exp() * (8 if step % 40 == 39 else 1)
        made.append(
            [
                size * torch.randn(p.shape, generator=generator) * (0.02 + 0.03 * place)
                for place, p in enumerate(model.parameters())
            ]
        )
    return made


def show(model: nn.Module, grads: list[Tensor]) -> None:
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        parameter.grad = grad.clone()


def surveyed(steps: int = STEPS, **options: Any) -> tuple[gclip.Survey, list[list[Tensor]], Net]:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.01)
    survey = gclip.Survey(model, optimizer, **options)
    shown = gradients(model, steps)
    for grads in shown:
        show(model, grads)
        survey.watch()
    return survey, shown, model


@pytest.fixture(scope="module")
def found() -> tuple[gclip.Survey, list[list[Tensor]], Net, gclip.Suggestions]:
    survey, shown, model = surveyed()
    return survey, shown, model, survey.suggest()


def totals(shown: list[list[Tensor]]) -> Any:
    return np.array([math.sqrt(sum(g.double().square().sum().item() for g in s)) for s in shown])


# -- values, against NumPy -------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.4])
def test_a_fixed_limit_is_the_quantile_of_the_norms(rate: float) -> None:
    survey, shown, _ = surveyed(strategies=["norm"])
    row = survey.suggest(rate)["norm"]
    norms = np.sort(totals(shown))
    first = round((1 - rate) * STEPS)
    assert 0.99 * norms[first - 1] * 0.995 <= row.value <= 0.99 * norms[first] * 1.005
    assert row.limited_rate == pytest.approx(np.mean(row.value < 0.99 * norms))
    assert row.limited_rate == pytest.approx(rate, abs=0.5 / STEPS)
    assert row.default_rate == pytest.approx(np.mean(0.99 * norms > 1))
    assert (row.limit, row.limits) == (
        pytest.approx(row.value),
        pytest.approx((row.value, row.value)),
    )
    assert (row.scope, row.field, row.default) == ("global", "max_norm", 1.0)
    assert str(gclip.parse(row.spelling)) == row.spelling
    assert row.compared_with == "norm of all gradients"


def test_a_ratio_to_the_weights_by_unit(found: Any) -> None:
    _, shown, model, suggestions = found
    row = suggestions["agc"]
    weights = [p.detach().double() for p in model.parameters()]

    def units(tensors: list[Tensor]) -> Any:
        each = [t.double().reshape(len(t) if t.ndim > 1 else 1, -1).norm(dim=1) for t in tensors]
        return torch.cat(each).numpy()

    limit = row.value * np.maximum(units(weights), 1e-3)
    after = np.array([np.linalg.norm(np.minimum(units(s), limit)) for s in shown])
    assert row.limited_rate == pytest.approx(np.mean(after < 0.99 * totals(shown)))
    assert row.limited_rate == pytest.approx(0.1, abs=0.01)


def test_the_elements_that_a_clamp_cuts(found: Any) -> None:
    _, shown, _, suggestions = found
    row = suggestions["value"]
    after = totals([[g.clamp(-row.value, row.value) for g in s] for s in shown])
    exact = np.mean(after < 0.99 * totals(shown))
    assert row.limited_rate == pytest.approx(0.1, abs=0.01)
    assert exact == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("limit", [1e-9, 0.003, 0.05, 0.7, 2.0, 2.9, 4.0, 100.0])
def test_what_a_clamp_leaves_is_well_estimated(limit: float) -> None:
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(300, 100, generator=generator), torch.zeros(4), None]
    tensors.append(torch.randn(200_001, generator=generator) * 0.01)
    largest = torch.stack([torch.zeros(()) if t is None else t.abs().max() for t in tensors])
    made = Magnitudes.of(tensors, largest)
    here = [t for t in tensors if t is not None]
    assert float(made.total()) == pytest.approx(totals([here])[0], rel=2e-3)
    after = totals([[t.clamp(-limit, limit) for t in here]])[0]
    clamped = float(made.clamped(torch.full((4,), limit)))
    assert clamped == pytest.approx(after, rel=0.01)


def names_replayed() -> list[str]:
    return [n for n in gclip.names() if gclip.get(n)().side == "gradient"]


@pytest.mark.parametrize("name", names_replayed())
def test_a_replay_is_what_the_clipper_does(found: Any, name: str) -> None:
    """The same gradients without feedback: the rates must agree."""
    _, shown, model, suggestions = found
    row = suggestions[name]
    if row.value is None:
        assert row.reason
        return
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, weight_decay=0.01)
    for spelling, rate in ((row.spelling, row.limited_rate), (name, row.default_rate)):
        clipper = gclip.Clipper(model, spelling, optimizer=optimizer)
        for grads in shown:
            show(model, grads)
            clipper.step()
        limited = clipper.record.summary().limited_rate
        spread = 0.03 if row.scope == "element" else 1.01 / STEPS  # a step on the very edge
        assert rate == pytest.approx(limited, abs=spread), spelling


def test_every_strategy_has_a_row(found: Any) -> None:
    suggestions = found[3]
    assert tuple(row.strategy for row in suggestions) == gclip.names()
    assert all((row.value is None) == bool(row.reason) for row in suggestions)
    for row in suggestions:
        if row.value is not None:
            info = next(i for i in gclip.fields_of(gclip.get(row.strategy)) if i.name == row.field)
            assert info.low <= row.value <= info.high
            assert getattr(gclip.parse(row.spelling), row.field) == row.value
    assert "no threshold" in suggestions["none"].reason
    assert "single examples" in suggestions["per_sample"].reason
    assert "update" in suggestions["update_rms"].reason
    assert "same norm" in suggestions["normalized"].reason


# -- the loop --------------------------------------------------------------------------------


def test_the_loop_of_the_docstring() -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    survey = gclip.Survey(model, optimizer)
    norms = []
    for _ in range(20):
        model.second(model.first(torch.randn(4, 6))).square().mean().backward()
        before = [p.grad.clone() for p in model.parameters()]
        survey.watch()
        assert all(torch.equal(a, p.grad) for a, p in zip(before, model.parameters(), strict=True))
        norms.append(before)
        optimizer.step()
        optimizer.zero_grad()
    assert len(survey) == 20
    np.testing.assert_allclose(survey.watched("global").norm[:, 0], totals(norms), rtol=1e-5)
    tensors = [[g.norm().item() for g in s] for s in norms]
    np.testing.assert_allclose(survey.watched("tensor").norm, tensors, rtol=1e-5)
    largest = [[g.abs().max().item() for g in s] for s in norms]
    np.testing.assert_allclose(survey.watched("element").norm, largest, rtol=1e-6)
    assert survey.watched("layer").norm.shape == (20, 2)
    assert survey.watched("unit").norm.shape == (20, 5 + 1 + 3)
    assert survey.suggest()["larc"].value is not None


def test_steps_that_are_not_finite_are_counted_and_left_out() -> None:
    model = Net()
    survey = gclip.Survey(model, strategies=["norm", "percentile"])
    shown = gradients(model, 40)
    for step, grads in enumerate(shown):
        show(model, grads)
        if step in (3, 17):
            model.first.bias.grad[0] = math.nan if step == 3 else math.inf
        survey.watch(torch.tensor([step != 5]))
    kept = [grads for step, grads in enumerate(shown) if step not in (3, 5, 17)]
    np.testing.assert_allclose(survey.watched("global").norm[:, 0], totals(kept), rtol=1e-5)
    suggestions = survey.suggest()
    assert (suggestions.steps, suggestions.left_out) == (37, 3)
    assert "(3 not finite and left out)" in str(suggestions)
    assert all(row.limited_rate == pytest.approx(0.1, abs=0.02) for row in suggestions)


def test_squares_that_overflow_are_measured_wide() -> None:
    model = Net()
    survey = gclip.Survey(model, strategies=["norm"])
    show(model, [torch.full_like(p, 1e25) for p in model.parameters()])
    survey.watch()
    size = sum(p.numel() for p in model.parameters())
    assert float(survey.watched("global").norm) == pytest.approx(1e25 * math.sqrt(size))
    assert survey.finite_steps == 1


def test_missing_and_sparse_gradients() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    head = nn.Linear(4, 2)
    model = nn.ModuleDict({"table": table, "head": head})
    survey = gclip.Survey(model)
    for step in range(12):
        model.zero_grad()
        rows = torch.tensor([step % 10, step % 10, 3])
        out = table(rows)
        (head(out).square().sum() if step % 2 else out.square().sum()).backward()
        survey.watch()
    dense = table.weight.grad.to_dense()
    units = survey.watched("unit")
    np.testing.assert_allclose(units.norm[-1, :10], dense.norm(dim=1), rtol=1e-6)
    present = survey.watched("tensor").valid
    assert present[0].tolist() == [True, False, False]
    assert present[1] is None
    assert survey.suggest()["norm"].value is not None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norm_log, "MOST_STEPS", 64)
    model = nn.Linear(2, 2000)
    survey = gclip.Survey(model, strategies=["norm", "agc"], memory=500_000)
    shown = gradients(model, 200)
    for grads in shown:
        show(model, grads)
        survey.watch()
        assert 4 * sum(log.floats for log in survey._logs.values()) <= 500_000
    whole = survey.watched("global")
    assert whole.every == 4
    np.testing.assert_allclose(whole.norm[:, 0], totals(shown[::4]), rtol=1e-5)
    units = survey.watched("unit")
    assert units.every > 4
    suggestions = survey.suggest()
    assert suggestions.steps == 200
    assert f"unit: every {units.every}th step" in " ".join(str(suggestions).split())


def test_several_runs_are_replayed_each_by_itself() -> None:
    surveys = []
    for seed in (0, 1):
        model = Net()
        survey = gclip.Survey(model, strategies=["norm", "zclip(max_norm=none)"])
        for grads in gradients(model, 60, seed):
            show(model, grads)
            survey.watch()
        surveys.append(survey)
    both = pooled(surveys, 0.2)
    norms = np.concatenate([s.watched("global").norm[:, 0].numpy() for s in surveys])
    row = both["norm"]
    assert both.steps == 120
    assert row.limited_rate == pytest.approx(np.mean(row.value < 0.99 * norms))
    each = [s.suggest(0.2)["zclip"].default_rate for s in surveys]
    assert both["zclip"].default_rate == pytest.approx(np.mean(each))


def test_learning_rates_are_those_of_their_steps() -> None:
    """Numbers, tensors changed in place, and groups that differ."""
    rates = [0.05 * 0.9**step for step in range(40)]
    found = []
    for tensor in (False, True):
        torch.manual_seed(0)
        model = Net()
        first = {"params": model.first.parameters(), "weight_decay": 0.1}
        optimizer = torch.optim.SGD([first, {"params": model.second.parameters()}], lr=0.05)
        if tensor:
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(0.05)
        survey = gclip.Survey(model, optimizer, strategies=["larc", "larc(scope=global)"])
        for rate, grads in zip(rates, gradients(model, 40), strict=True):
            for group in optimizer.param_groups:
                group["lr"].fill_(rate) if tensor else group.update(lr=rate)
            show(model, grads)
            survey.watch()
        table = survey.watched("tensor")
        np.testing.assert_allclose([float(lr) for lr in table.rates("lr")], rates, rtol=1e-6)
        np.testing.assert_allclose(table.rates("weight_decay")[7], [0.1, 0.1, 0.0])
        each, whole = survey.suggest()
        assert "use scope=tensor" in whole.reason
        found.append(each)
    assert found[0].value == pytest.approx(found[1].value)
    assert found[0].limited_rate == pytest.approx(0.1, abs=0.02)


def test_watching_waits_for_no_gpu() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.device("cuda"):
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
        survey = gclip.Survey(model, optimizer)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            survey.watch(torch.ones(1, dtype=torch.bool))
        assert len(survey) == 3


# -- what is asked for -----------------------------------------------------------------------


def test_spelled_settings_are_kept() -> None:
    spelled = ["norm(p=1)", "percentile(scope=tensor, window=50)", "norm(rule=clamp)"]
    survey, shown, _ = surveyed(strategies=spelled)
    first, second, third = survey.suggest()
    sums = np.array([sum(g.double().abs().sum().item() for g in s) for s in shown])
    assert first.spelling == f"norm(max_norm={first.value:g}, p=1)"
    assert first.limited_rate == pytest.approx(np.mean(first.value < 0.99 * sums))
    assert first.compared_with == "1-norm of all gradients"
    assert second.spelling.startswith("percentile(p=")
    assert "window=50" in second.spelling
    assert second.limited_rate == pytest.approx(0.1, abs=0.02)
    assert third.compared_with == "largest element of all gradients"
    assert third.limited_rate == pytest.approx(0.1, abs=0.02)


def test_a_wish_that_no_value_fulfils_is_said(found: Any) -> None:
    survey = found[0]
    [row] = survey.suggest(0.5, ["ratio_skip(ratio=30)"])
    assert row.reason or "comes nearer to 50 % than" in row.note
    [row] = survey.suggest(0.1, ["norm"])
    assert row.note == ""


def test_the_table_reads_well(found: Any) -> None:
    suggestions = found[3]
    text = str(suggestions)
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("Thresholds that limit about 10 % of 120 steps\n")
    assert suggestions["norm"].spelling in text
    assert "Not by norms:" in text
    assert "which no replay knows" in " ".join(text.split())
    known = json.loads(json.dumps(suggestions.as_dict()))
    assert [row["strategy"] for row in known["rows"]] == list(gclip.names())
    with pytest.raises(ValueError, match="did you mean 'norm'"):
        suggestions["nrom"]


def test_the_figure_shows_every_scope_and_every_limit(found: Any, tmp_path: Path) -> None:
    survey, _, _, suggestions = found
    figure = survey.figure(suggestions)
    from matplotlib.text import Text

    text = "\n".join(t.get_text() for t in figure.findobj(Text)).replace("\n", " ")
    for scope in ("global", "layer", "tensor", "unit", "element"):
        assert f"{scope}: " in text
    for row in suggestions:
        assert row.value is None or row.limit is None or row.spelling in text
    for kind in ("png", "svg"):
        path = figures.save(figure, tmp_path / f"survey.{kind}")
        assert path.stat().st_size > 10_000


# -- wrong use -------------------------------------------------------------------------------


def test_mistakes_are_told_in_a_sentence() -> None:
    model = Net()
    survey = gclip.Survey(model, strategies=["norm"])
    with pytest.raises(ValueError, match="nothing was watched yet"):
        survey.suggest()
    with pytest.raises(ValueError, match="after backward"):
        survey.watch()
    show(model, [torch.full_like(p, math.nan) for p in model.parameters()])
    survey.watch()
    with pytest.raises(ValueError, match="not finite in all 1 steps"):
        survey.suggest()
    show(model, [torch.ones_like(p) for p in model.parameters()])
    survey.watch()
    with pytest.raises(ValueError, match="clip_rate must be above 0 and below 1, but got 10"):
        survey.suggest(10)
    with pytest.raises(ValueError, match="not at a chain"):
        gclip.Survey(model, strategies=["chain(norm, value)"])
    with pytest.raises(ValueError, match="did you mean 'norm'"):
        gclip.Survey(model, strategies=["nrom"])
    with pytest.raises(ValueError, match="was not watched"):
        survey.watched("global", 3)


@pytest.mark.parametrize("make", [lambda m: m.parameters(), lambda m: m])
def test_what_was_not_watched_is_a_reason_and_no_error(make: Callable[[nn.Module], Any]) -> None:
    model = Net()
    survey = gclip.Survey(make(model))
    for grads in gradients(model, 30):
        show(model, grads)
        survey.watch()
    suggestions = survey.suggest(strategies=["larc", "norm(p=3)", "norm(scope=layer)", "norm"])
    larc, third, layer, norm = suggestions
    assert "gclip.Survey(model, optimizer)" in larc.reason
    assert "order 3" in third.reason
    assert norm.value is not None
    assert bool(layer.reason) == ("layer" not in survey.scopes)
    survey.figure(suggestions)


def test_a_broken_plugin_costs_only_its_own_row() -> None:
    @gclip.register("broken_here")
    @dataclass(frozen=True, kw_only=True)
    class Broken(gclip.Strategy):
        """Raises."""

        most: float = gclip.tunable(1.0, low=0.1, high=2.0, doc="never read")

        def limit(self, seen: gclip.Seen, memory: gclip.Memory) -> float:
            raise RuntimeError("no")

    survey, _, _ = surveyed(20, strategies=["broken_here", "norm"])
    broken, norm = survey.suggest()
    assert broken.reason is not None
    assert broken.reason.startswith("broken_here: limit() raised RuntimeError: no (line ")
    assert norm.value is not None


# -- the shared trainer ----------------------------------------------------------------------


def test_the_trainer_is_watched_without_being_changed() -> None:
    config = RunConfig(fraction=0.1, epochs=2, batch_size=32, lr=0.01, spikes=0.1)
    dataset = load_dataset("digits")
    told: list[tuple[int, int]] = []
    seen = survey_norms(config, dataset, device="cpu", on_step=lambda *at: told.append(at))
    run = train(config, dataset=dataset, device="cpu")
    assert seen.steps == len(run.steps["norm"]) == seen.survey.steps
    np.testing.assert_allclose(
        seen.survey.watched("global").norm[:, 0], run.steps["norm"], rtol=1e-6
    )
    assert told[-1] == (seen.steps, seen.steps)
    assert seen.diverged == ""
    short = survey_norms(config, dataset, steps=3, device="cpu", strategies=["norm"])
    assert short.steps == 3


def test_a_run_that_diverges_says_so() -> None:
    config = RunConfig(fraction=0.1, epochs=2, lr=1e6)
    seen = survey_norms(config, load_dataset("digits"), device="cpu", strategies=["norm"])
    assert "not finite" in seen.diverged


def test_its_example_is_as_it_says() -> None:
    torch.manual_seed(0)
    tried = doctest.testmod(survey_module)
    assert tried.attempted > 5
    assert not tried.failed
