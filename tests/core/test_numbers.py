"""Numbers without a bound: told in a sentence, at once."""

from __future__ import annotations

import pytest

import gclip
from gclip.core.numbers import LARGEST, as_number, as_whole, bounded, shown
from gclip.errors import UsageError
from gclip.execution import Execution
from gclip.execution.compare import paired_configs
from gclip.training import RunConfig


def test_numbers_that_can_be_computed_with():
    assert [as_number(v) for v in (1, 2.5, float("inf"))] == [1.0, 2.5, float("inf")]
    assert [as_number(v) for v in (True, "1", None, 10**400)] == [None] * 4
    assert [as_whole(v) for v in (3, 3.0, LARGEST, -LARGEST)] == [3, 3, LARGEST, -LARGEST]
    assert [as_whole(v) for v in (3.5, float("inf"), float("nan"), LARGEST + 1, True)] == [None] * 5
    assert bounded("x", 5, 5) == 5
    for value in (0, 6, 5.0, True, None, 10**5000):
        with pytest.raises(UsageError, match="x must be a whole number from 1 to 5, but got"):
            bounded("x", value, 5)


def test_long_values_are_quoted_in_part():
    assert shown("norm") == "'norm'"
    assert shown(10**5000) == "a whole number of about 5001 digits"
    assert len(shown("x" * 10_000)) < 70


@pytest.mark.parametrize(
    ("spelling", "sentence"),
    [
        (
            "norm(max_norm=linear(1, 0.1, steps=inf))",
            "steps must be a whole number ≥ 1",
        ),
        (
            "norm(max_norm=linear(1, 0.1, steps=nan))",
            "steps must be a whole number ≥ 1",
        ),
        ("norm(max_norm=linear(1, 1e400))", "too large to be told from inf"),
        ("norm(max_norm=1e400)", "too large to be told from inf"),
        (f"norm(max_norm={'9' * 310})", "a number of at most 40 digits"),
        (f"norm(max_norm={'9' * 5000})", "a number of at most 40 digits"),
        (f"percentile(window={'9' * 30})", "window must be a whole number or none"),
        ("norm(warmup=1e300)", "warmup must be a whole number, but got 1e[+]300"),
        ("chain(" * 1000 + "norm" + ")" * 1000, "at most 50 brackets within each other"),
        ("norm(max_norm=" + "linear(" * 2000, "at most 50 brackets within each other"),
        ("x" * 100_000, "unknown strategy 'x{39}…"),
    ],
)
def test_spellings_without_a_bound(spelling, sentence):
    with pytest.raises(UsageError, match=sentence) as raised:
        gclip.parse(spelling)
    assert len(str(raised.value)) < 1000


def test_numbers_from_python():
    for settings, sentence in (
        ({"max_norm": 10**400}, "max_norm must be a number, but got a whole number of about 401"),
        ({"warmup": 10**19}, "warmup must be a whole number"),
    ):
        with pytest.raises(UsageError, match=sentence):
            gclip.create("norm", **settings)
    with pytest.raises(UsageError, match="steps must be a whole number ≥ 1"):
        gclip.linear(1, 0, steps=float("inf"))
    for settings in ({"lr": 10**400}, {"batch_size": 10**30}, {"seed": 10**400}, {"epochs": 1e300}):
        with pytest.raises(UsageError, match=f"{next(iter(settings))} must be a"):
            RunConfig(**settings)


def test_sizes_have_bounds():
    for settings in ({"threads": 10**6}, {"workers": 10**6}, {"threads": 0}):
        with pytest.raises(UsageError, match="must be a whole number from 1 to 1,024"):
            Execution(**settings)
    with pytest.raises(UsageError, match="seeds must be a whole number from 1 to 100,000"):
        gclip.compare(["none"], seeds=10**11)


def test_many_seeds_take_no_longer_for_each():
    assert len(set(range(40_000))) == 40_000
    with pytest.raises(UsageError, match="the seed 7 is there twice"):
        paired_configs(["none"], [*range(40_000), 7], RunConfig())
