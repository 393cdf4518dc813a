"""``nonfinite="keep"``: what is finite is clipped, what is not stays, with a record or without."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gclip

INF, NAN = math.inf, math.nan
BROKEN = ([NAN, INF, -INF, 9.0], [INF, -INF, 9.0, 0.1], [NAN, 9.0, 1.0, -7.0])
NAMES = [n for n in gclip.names() if gclip.get(n).sides != ("sample",)]


def step(spec, given: list[float], record: bool, warm: int = 0) -> tuple[list, list]:
    """What is left of a broken gradient and of one beside it."""
    broken, sound = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([("a.w", broken), ("b.w", sound)], lr=0.1)
    handle = gclip.attach(optimizer, spec, nonfinite="keep", record=record, total_steps=100)
    for index in range(warm):
        broken.grad = torch.tensor([1.0, -2.0, 0.5, 3.0]) * (1 + index % 3)
        sound.grad = torch.tensor([0.3, -0.4]) * (1 + index % 2)
        optimizer.step()
    broken.grad, sound.grad = torch.tensor(given), torch.tensor([9.0, 0.1])
    optimizer.step()
    update = handle.clipper.on_updates
    left = [(p.detach() if update else p.grad).tolist() for p in (broken, sound)]
    return left[0], left[1]


def same(a: list[float], b: list[float]) -> bool:
    return torch.equal(torch.tensor(a).nan_to_num(1e9), torch.tensor(b).nan_to_num(1e9))


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("given", BROKEN, ids=str)
@pytest.mark.parametrize(
    ("spec", "low", "high"),
    [
        ("value(clip_value=4)", -4.0, 4.0),
        ("value(clip_value=4, lower=-1)", -1.0, 4.0),
        ("norm(max_norm=4, scope=element)", -4.0, 4.0),
        ("norm(max_norm=4, rule=clamp)", -4.0, 4.0),
        ("norm(max_norm=4, rule=clamp, scope=unit)", -4.0, 4.0),
        ("chain(value(clip_value=4), none)", -4.0, 4.0),
    ],
)
def test_a_clamp_is_that_of_torch(spec, low, high, given, record) -> None:
    broken, sound = step(spec, given, record)
    assert same(broken, torch.tensor(given).clamp(low, high).tolist())
    assert same(sound, torch.tensor([9.0, 0.1]).clamp(low, high).tolist())


@pytest.mark.parametrize("given", BROKEN, ids=str)
@pytest.mark.parametrize(
    "spec",
    [
        *("norm(max_norm=1)", "norm(max_norm=1, scope=tensor)", "norm(p=1, scope=tensor)"),
        *("norm(rule=normalize, scope=tensor)", "norm(rule=soft, scope=tensor)", "soft"),
        *("agc", "block_rms", "delta", "larc", "normalized", "average_norm(max_average=0.1)"),
        *("automatic(side=gradient)", "percentile(scope=tensor)", "stable_spam"),
    ],
)
def test_groups_that_are_not_finite_stay_and_others_are_clipped(spec, given) -> None:
    broken, sound = step(spec, given, True, warm=3)
    assert same(broken, given)
    whole = gclip.parse(spec).scope == "global"
    if whole:
        assert sound == torch.tensor([9.0, 0.1]).tolist()
    else:
        alone, other = step(spec, [1.0, -2.0, 0.5, 3.0], True, warm=3)
        assert sound == pytest.approx(other, rel=1e-6)
        assert sound != torch.tensor([9.0, 0.1]).tolist()
        assert alone != given


@pytest.mark.parametrize("given", BROKEN, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_record_changes_nothing_and_no_strategy_makes_a_nan(name: str, given) -> None:
    cls = gclip.get(name)
    side = "gradient" if "gradient" in cls.sides else "update"
    for rule in cls.rules:
        try:
            strategy = gclip.create(name, rule=rule, side=side)
        except gclip.UsageError:
            continue
        seen, unseen = (step(strategy, given, record, warm=4) for record in (True, False))
        assert same(seen[0], unseen[0]), rule
        assert same(seen[1], unseen[1]), rule
        made = torch.isnan(torch.tensor(seen[0])) & ~torch.isnan(torch.tensor(given))
        assert not (side == "gradient" and made.any()), rule


def test_elements_are_changed_one_by_one_where_the_method_does_so() -> None:
    broken, sound = step("power(p=0.5)", [NAN, INF, -INF, 9.0], True)
    assert same(broken, [NAN, INF, -INF, 3.0])
    assert sound == pytest.approx([3.0, 0.1**0.5])
