"""Configs of runs: fields with values of every kind, and JSON that is nearly one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st

from gclip.training import RunConfig
from tests.fuzz import spellings
from tests.fuzz.examples import refused_or_right

FIELDS = tuple(field.name for field in dataclasses.fields(RunConfig))
RIGHT: dict[str, tuple[Any, ...]] = {
    "task": ("digits", "linear", "adding(length=20)", "chars", "gan-digits", "cifar10"),
    "model": ("lenet", "mlp(width=8)", "lstm", "resnet9", "vit", ""),
    "optimizer": ("sgd", "adam", "adamw", "rmsprop", "adagrad", "muon"),
    "schedule": ("constant", "cosine", "onecycle"),
    "strategy": ("none", "norm", "agc(clip_factor=0.02)", "chain(value, norm)"),
    "optimizer_settings": ({}, {"eps": 1e-7}, {"nesterov": True}, {"betas": [0.9, 0.99]}),
    "split": ("test", "validation"), "precision": ("fp32", "bf16"), "seed": (0, 3),
    "fraction": (0.1, 1), "batch_size": (1, 64), "lr": (0.1, 1), "dropout": (0.0, 0.5),
}  # fmt: skip


def anything() -> st.SearchStrategy[Any]:
    """Values of every kind that JSON or Python has."""
    numbers = st.one_of(
        st.integers(),
        st.sampled_from([10**39, -(10**400), 2**63, 2**63 - 1, 0, -1, True, False, None]),
        st.floats(),
        st.sampled_from([1e308, -0.0, 5e-324, 1e20]),
    )
    words = st.one_of(st.text(max_size=20), st.sampled_from(spellings.WORDS), spellings.calls())
    leaves = st.one_of(numbers, words, st.binary(max_size=4), st.just(object()), st.just(1j))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=3),
            st.tuples(inner),
        ),
        max_leaves=6,
    )


@st.composite
def fields(draw: st.DrawFn) -> dict[Any, Any]:
    """Fields of a config: right ones, some replaced by anything."""
    values: dict[Any, Any] = {}
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=6, unique=True)):
        right = RIGHT.get(name)
        if right is not None and draw(st.integers(0, 3)):
            values[name] = draw(st.sampled_from(right))
        else:
            values[name] = draw(anything())
    if draw(st.integers(0, 9)) == 0:
        values[draw(st.one_of(st.text(max_size=8), st.integers(), st.none()))] = 1
    return values


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    """JSON of a config with a few letters changed, or of another shape."""
    whole = RunConfig(strategy="norm(max_norm=2)", seed=3).to_json()
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(st.text(max_size=40))
    if kind == 1:
        before = draw(st.sampled_from(["", '{"seed":', '{"optimizer_settings":{"a":']))
        depth = draw(st.sampled_from([3, 400, 20_000]))
        return before + "[" * depth + draw(st.sampled_from(["", "]" * depth]))
    if kind == 2:
        return draw(st.sampled_from(["null", "1", "[]", '""', "{}", "NaN", '{"lr": 1e400}',
                                     '{"lr": Infinity}', f'{{"seed": {"9" * 5000}}}']))  # fmt: skip
    if kind == 3:
        values = json.loads(whole) | {
            name: value
            for name, value in draw(fields()).items()
            if isinstance(name, str) and isinstance(value, str | int | float | None)
        }
        return json.dumps(values)
    place, cut = draw(st.integers(0, len(whole))), draw(st.integers(0, 4))
    new = draw(
        st.sampled_from(["", '"', "9" * 30, "e999", "null", "[", "}", "\\u0000", "NaN", "-"])
    )
    return whole[:place] + new + whole[place + cut :]


def check_fields(values: dict[Any, Any]) -> None:
    """A config that is made is read back from its JSON as the same."""
    with refused_or_right(values):
        same_again(RunConfig.of(values))


def check_json(text: str) -> None:
    with refused_or_right(text[:200]):
        same_again(RunConfig.from_json(text))


def same_again(config: RunConfig) -> None:
    again = RunConfig.from_json(config.to_json())
    assert (again, again.key) == (config, config.key)
