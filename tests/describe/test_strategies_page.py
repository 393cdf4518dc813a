"""``strategies/README.md`` is what ``make page`` writes, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import gclip
from gclip.core.strategy import RULES, SCOPES, SIDES, Strategy
from gclip.describe import costs_file, read_costs
from tests.describe.page import PAGE, page
from tests.golden import elements, fixed, past
from tests.golden.test_peers import LIBRARIES

ROOT = Path(__file__).parents[2]
TEXT = page()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == TEXT, "run: make page"


def test_every_strategy_is_on_it_once_with_a_link_to_its_file() -> None:
    rows = re.findall(r"^\| \[`(\S+)`\]\((\w+\.py)\) \| (.*) \|$", TEXT, re.MULTILINE)
    assert sorted(name for name, _, _ in rows) == sorted(gclip.names())
    for name, file, cells in rows:
        assert f'@register("{name}"' in (ROOT / "strategies" / file).read_text()
        assert len(re.split(r"(?<!\\)\|", cells)) == 6, cells


def test_it_counts_what_the_golden_tests_hold() -> None:
    for module in (elements, fixed, past):
        for name, cases in module.CASES.items():
            [row] = re.findall(rf"^\| \[`{name}`\].*$", TEXT, re.MULTILINE)
            assert f" {len(cases)} case" in row
            assert f" {len(module.MUTANTS[name])} mutant" in row
    [agc] = re.findall(r"^\| \[`agc`\].*$", TEXT, re.MULTILINE)
    assert agc.endswith("heavyball, optax, pytorch_optimizer, timm |")


def test_every_peer_is_named() -> None:
    for library in LIBRARIES:
        assert re.search(rf"mutants?(, \w+)*, {library}\b", TEXT), library


def test_the_shared_settings_are_complete() -> None:
    table = TEXT.partition("| setting |")[2].partition("\n\n")[0]
    shared = [field.name for field in gclip.fields_of(Strategy) if field.shared]
    for name in (*shared, *SCOPES, *RULES, *SIDES):
        assert f"`{name}`" in table, name


def test_its_example_works_and_is_short(tmp_path: Path) -> None:
    code = TEXT.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "strategy.py").write_text(code)
    assert gclip.load_plugins(tmp_path / "strategy.py") == ("half_of_mean",)
    body = code.partition("@gclip.register")[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 15
    limits, _ = gclip.simulate(gclip.create("half_of_mean"), [2.0, 4.0, 4.0])
    assert limits.flatten().tolist() == pytest.approx(
        [float("inf"), 1.0, 0.5 * (0.99 * 2 + 4) / 1.99]
    )


def test_the_costs_are_of_strategies_that_exist() -> None:
    costs = read_costs()
    assert costs_file() == ROOT / "strategies" / "costs.json"
    if not costs:
        pytest.skip("not measured yet: gclip bench strategies --write")
    assert costs["machine"]["torch"]
    assert set(costs["costs"]) <= set(gclip.names())
    for cost in costs["costs"].values():
        assert cost["cost"] > 0
        assert cost["peer"].startswith(("norm(", "none("))
