"""Spellings of strategies, players, schedules, models and tasks: right, nearly right, and noise."""

from __future__ import annotations

from hypothesis import strategies as st

import gclip
from gclip.core import registry
from gclip.core.fields import fields_of
from gclip.training import models
from gclip.training.models.settings import spell
from gclip.training.problem_registry import find_problem
from tests.fuzz.examples import refused_or_right

NUMBERS = (
    *("0", "1", "-1", "0.1", "1e-3", "1e400", "-1e400", "nan", "inf", "-inf", "1" * 41, "9" * 400),
    *("1e308", "5e-324", "2.5", "100", "9223372036854775807", "9223372036854775808", "0x10", "1_0"),
    *("01", "+3", ".5", "5.", "1e", "--1", "1e-400", "３", "٣"),
)
WORDS = ("none", "true", "false", "global", "unit", "layer", "element", "skip", "soft", "update",
         "sample", "chain", "players", "linear", "cosine", "exponential", "steps", "start", "end",
         "'", '"', "''", "é", "\u202e", "\x1b[31m", "\n", "\t", "a" * 300, "__class__", "../x", "*",
         "{}", "%s", "\ud800", "🦄")  # fmt: skip
MARKS = ("(", ")", ",", "=", " ", "((", "()", "=(", ",,", ")(", ";", ":")


def _names(kind: str) -> tuple[str, ...]:
    if kind == "strategy":
        return (*gclip.names(), "chain", "players", "linear")
    return models.names() if kind == "model" else ("digits", "linear", "adding", "chars")


def _fields(kind: str, name: str) -> tuple[str, ...]:
    if kind != "strategy" or name in ("chain", "players", "linear"):
        return ("width", "length", "steps", "generator", "a")
    return tuple(info.name for info in fields_of(gclip.get(name)))


def values() -> st.SearchStrategy[str]:
    """What may stand behind an equals sign."""
    schedule = st.tuples(
        st.sampled_from(["linear", "cosine", "exponential", "square"]),
        st.lists(st.sampled_from(NUMBERS), max_size=4),
        st.booleans(),
    ).map(lambda t: f"{t[0]}({', '.join(t[1])}{', steps=7' if t[2] else ''})")
    return st.one_of(st.sampled_from(NUMBERS), st.sampled_from(WORDS), schedule)


@st.composite
def calls(draw: st.DrawFn, kind: str = "strategy", depth: int = 2) -> str:
    """A spelling that follows the grammar, or nearly."""
    name = draw(st.sampled_from(_names(kind)))
    inner = calls(kind, depth - 1) if depth else st.sampled_from(_names(kind))
    items = []
    for _ in range(draw(st.integers(0, 3))):
        if name == "chain":
            items.append(draw(inner))
        elif name == "players":
            items.append(f"{draw(st.sampled_from(['a', 'b', 'a b']))}={draw(inner)}")
        else:
            items.append(f"{draw(st.sampled_from(_fields(kind, name)))}={draw(values())}")
    return f"{name}({', '.join(items)})" if items else name


def texts(kind: str = "strategy") -> st.SearchStrategy[str]:
    """Spellings, some of them with a few letters changed, rows of tokens, and any text."""
    token = st.one_of(
        *map(st.sampled_from, (_names(kind), NUMBERS, WORDS, MARKS)),
    )
    changed = st.tuples(calls(kind), st.integers(0, 60), st.integers(0, 3), token).map(
        lambda t: t[0][: t[1]] + t[3] + t[0][t[1] + t[2] :]
    )
    nested = st.tuples(st.sampled_from(["chain(", "players(a=", "norm(max_norm=linear(", "("]),
                       st.integers(1, 3000)).map(lambda t: t[0] * t[1])  # fmt: skip
    return st.one_of(
        calls(kind),
        changed,
        st.lists(token, max_size=12).map("".join),
        st.text(max_size=40),
        nested,
    )


def check_strategy(text: str) -> None:
    """A strategy's own spelling is that strategy; so are a player's."""
    with refused_or_right(text):
        strategy = registry.parse_for_run(text)
        assert registry.parse_for_run(str(strategy)) == strategy
    with refused_or_right(text):
        alone = gclip.parse(text)
        assert gclip.parse(str(alone)) == alone
        assert str(gclip.parse(str(alone))) == str(alone)


def check_model(text: str) -> None:
    with refused_or_right(text):
        name, settings = models.parse(text)
        assert models.parse(spell(name, settings)) == (name, settings)


def check_task(text: str) -> None:
    with refused_or_right(text):
        problem = find_problem(text)
        assert str(find_problem(str(problem))) == str(problem)
