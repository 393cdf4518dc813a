"""Every registered strategy against numbers from its equation, and wrong variants of it."""

from __future__ import annotations

import pytest

import gclip
from tests.golden import elements, fixed, past
from tests.golden.cases import Case

CASES: dict[str, list[Case]] = {**past.CASES, **fixed.CASES, **elements.CASES}
MUTANTS: dict[str, list[type]] = {**past.MUTANTS, **fixed.MUTANTS, **elements.MUTANTS}
NAMES = gclip.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_has_golden_numbers_and_mutants(name: str) -> None:
    assert CASES.get(name), f"no golden case for {name}"
    assert MUTANTS.get(name), f"no deliberately wrong variant of {name}"


@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(n, c, id=f"{n}-{c.label}") for n, cs in CASES.items() for c in cs],
)
def test_the_numbers_agree(name: str, case: Case) -> None:
    case.check(gclip.get(name))


@pytest.mark.parametrize(
    ("name", "mutant"),
    [pytest.param(n, m, id=f"{n}-{m.__name__}") for n, ms in MUTANTS.items() for m in ms],
)
def test_a_wrong_variant_is_noticed(name: str, mutant: type) -> None:
    assert issubclass(mutant, gclip.get(name))
    caught = 0
    for case in CASES[name]:
        try:
            case.check(mutant)
        except AssertionError:
            caught += 1
    assert caught, f"no golden case tells {mutant.__name__} from {name}"
