"""The record that README and docs show: whole, small, and the source of every number there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from gclip.cli.paper_record import DRAWN, RECORD, differing
from gclip.results.record import FRAMES, Part, Record, config_of
from gclip.studies import _report, lr_ceiling, noise
from gclip.studies._paper_plan import read_plan
from gclip.studies._paper_text import without

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / RECORD
MOST_BYTES = 12 * 1024 * 1024
RESULT = re.compile(r"±\s?\d[\d.]*|\b\d[\d.]*\s?%|\bp\s?[=<≤]\s?\.?\d[\d.]*(?![\d.]*\))")
"""What looks like a result: an interval, a percentage, a p-value; not ``percentile(p=10)``."""
ALLOWED = tomllib.loads((ROOT / "tests" / "numbers.toml").read_text(encoding="utf-8"))
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.fixture(scope="module")
def record() -> Record:
    return Record.read(FOLDER)


def test_pandas_alone_reads_it() -> None:
    runs = pd.read_csv(FOLDER / "runs.csv.gz", low_memory=False)
    for name in FRAMES:
        assert len(pd.read_csv(FOLDER / f"{name}.csv.gz", low_memory=False)) > 0
    assert (
        not runs[["section", "role", "key", "status", "environment", "source"]]
        .isna()
        .to_numpy()
        .any()
    )
    assert set(runs["role"]) <= {"trial", "tuned", "default", "grid", "compare"}
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert sum(sizes) < MOST_BYTES


def test_every_run_has_the_key_of_its_config(record: Record) -> None:
    runs = record.runs.drop_duplicates("key")
    for row in runs.to_dict("records"):
        assert config_of(row).key == row["key"]


def test_every_section_is_whole(record: Record) -> None:
    """Equal budgets, `none` included; fresh seeds that no search has seen; one winner a search."""
    plan = {section.name: section for section in read_plan(ROOT / "studies" / "paper.toml")}
    for name in record.sections:
        own = record.runs[record.runs["section"] == name]
        trials = record.trials[record.trials["section"] == name]
        assert set(own["status"]) <= {"finished", "diverged"}
        if not len(trials):
            continue
        counts = trials.groupby(["search", "of"]).size()
        assert counts.nunique() == 1
        assert counts.iloc[0] >= 30
        assert "none" in counts.index.get_level_values("of")
        assert (trials.groupby(["search", "of"])["best"].sum() == 1).all()
        if plan[name].study == "tuning":
            assert set(trials["of"]) == set(plan[name].strategies)
        fresh = own[own["role"] != "trial"]
        assert set(fresh["split"]) == {"test"}
        assert set(own.loc[own["role"] == "trial", "split"]) == {"validation"}
        assert not set(fresh["seed"]) & set(own.loc[own["role"] == "trial", "seed"])
        assert fresh.groupby(["role", "search", "of"])["seed"].nunique().min() >= 10


def remade(record: Record, part: Part) -> list[dict[str, Any]]:
    """The table of a part, computed once more from its rows."""
    runs = record.results(part.name).runs
    if part.study == "lr_ceiling":
        return list(lr_ceiling.table(runs))
    if part.study == "noise":
        return list(noise.table(runs))
    own = record.trials[record.trials["section"] == part.section]
    own = own[own["search"].isin(part.rows["search"])]
    found = []
    for text, trials in own.groupby("of"):
        tuned, default = (_config(runs, str(text), form) for form in ("tuned", "default"))
        counts = trials["status"].value_counts()
        found.append(
            SimpleNamespace(
                strategy=str(text),
                best=tuned,
                default=default,
                score=float(trials.loc[trials["best"], "score"].iloc[0]),
                plan=SimpleNamespace(name=trials["study"].iloc[0]),
                counts=SimpleNamespace(
                    trials=len(trials),
                    **{
                        name: int(counts.get(name, 0))
                        for name in ("finished", "diverged", "pruned", "failed")
                    },
                ),
            )
        )
    rows: list[dict[str, Any]] = _report.table(found, runs)
    return rows


def _config(runs: pd.DataFrame, strategy: str, form: str) -> Any:
    own = runs[(runs["strategy"] == strategy) & (runs["form"] == form)]
    [row] = own.head(1).to_dict("records")
    return config_of({**row, "strategy": row["spelling"]})


def test_every_table_is_what_its_runs_give(record: Record) -> None:
    checked = 0
    for part in record.parts.values():
        if part.study not in ("report", "lr_ceiling", "noise") or "of" in part.rows:
            continue
        again = remade(record, part)
        assert [row["strategy"] for row in again] == [row["strategy"] for row in part.table]
        for ours, theirs in zip(again, part.table, strict=True):
            for key, value in theirs.items():
                same = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
                assert ours[key] == same, (part.name, theirs["strategy"], key)
        checked += 1
    assert checked > 0


def test_pages_show_what_the_record_gives(record: Record) -> None:
    """As ``gclip paper draw --check`` says it, which CI runs."""
    assert differing(record, ROOT, ROOT / "studies" / "paper.toml") == []
    assert (ROOT / DRAWN).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_no_result_stands_in_a_page_without_its_source(page: str) -> None:
    """Outside the blocks that are made from the record, a number needs a source in numbers.toml.

    That of a whole page, or that of a line; a line that is gone leaves the list.
    """
    if page in ALLOWED["pages"]:
        assert ALLOWED["pages"][page]
        return
    lines = [line.strip() for line in without((ROOT / page).read_text()).splitlines()]
    found = {line for line in lines if RESULT.search(line)}
    sources = ALLOWED["lines"].get(page, {})
    assert sorted(found - set(sources)) == []
    assert sorted(set(sources) - found) == []
