"""A paper's plan is trained, goes on after interruptions, and ends with the same record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gclip.cli import main
from gclip.errors import UsageError
from gclip.execution import Event, Execution
from gclip.figures._record import draw_record
from gclip.results.record import Record, config_of
from gclip.studies import _paper_text
from gclip.studies._paper import train
from gclip.studies._paper_differences import differences
from gclip.studies._paper_plan import PLAN, Section, chosen, read_plan
from gclip.studies._paper_record import gather, near_ends, record_of

SMALL = """
[[section]]
name = "line"
question = "Does clipping help to fit a line?"
what = "Two numbers, one epoch."
study = "tuning"
strategies = ["none", "norm"]
trials = 2
lr_range = [0.001, 0.1]
seeds = 2
run = { task = "linear(count=64)", epochs = 1 }
full = true

[[section]]
name = "line-again"
question = "And searched again?"
what = "As line."
study = "repeated"
of = "line"
tuning_seeds = [1]
finalists = 0
store = "line"

[[section]]
name = "rates"
question = "Which rates?"
what = "As line."
study = "lr_ceiling"
strategies = ["none"]
seeds = 1
run = { task = "linear(count=64)", epochs = 1 }
store = "line"

[[shown]]
file = "docs/line.png"
parts = ["none-such", "line"]
figure = "scores"
"""
MOMENTS = ["seconds", "date"]
"""What two trainings of the same differ in."""


class Stopped(KeyboardInterrupt):
    """As of Ctrl-C."""


def make(root: Path, plan: tuple[Section, ...], most: int | None = None) -> None:
    """Train the plan; with `most`, until so many runs were trained."""
    left = [most]

    def listen(event: Event) -> None:
        if event.kind == "done" and left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped

    how = Execution(workers=1, device="cpu", fleet="off", listener=listen)
    for section in plan:
        train(section, plan, root, how)


def recorded(root: Path, plan: tuple[Section, ...], folder: Path) -> Record:
    found = [gather(section, plan, root) for section in plan]
    record_of([each for each in found if each is not None], None, plan).write(folder)
    return Record.read(folder)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plan") / "plan.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plan: Path) -> tuple[Path, Record]:
    """The stores and the record of a training that nobody interrupted."""
    root = tmp_path_factory.mktemp("whole")
    sections = read_plan(plan)
    make(root, sections)
    return root, recorded(root, sections, root / "record")


@pytest.mark.parametrize("runs", [(1, 4), pytest.param((1, 2, 3, 1, 4), marks=pytest.mark.drill)])
def test_interrupted_after_so_many_runs_it_ends_with_the_same_record(
    whole: tuple[Path, Record], plan: Path, tmp_path: Path, runs: tuple[int, ...]
) -> None:
    sections = read_plan(plan)
    for most in runs:
        with pytest.raises(Stopped):
            make(tmp_path, sections, most)
    make(tmp_path, sections)
    again, first = recorded(tmp_path, sections, tmp_path / "record"), whole[1]
    for name in ("runs", "curves", "steps", "layers", "trials"):
        ours, theirs = getattr(again, name), getattr(first, name)
        drop = [each for each in (*MOMENTS, "attempt", "trial") if each in ours]
        pd.testing.assert_frame_equal(ours.drop(columns=drop), theirs.drop(columns=drop))
    assert differences(first, again) == []
    for name, part in first.parts.items():
        assert part.table == again.parts[name].table


def test_it_trains_nothing_twice(whole: tuple[Path, Record], plan: Path) -> None:
    make(whole[0], read_plan(plan), most=0)  # the first run would stop it


def test_every_run_is_there_by_its_key(whole: tuple[Path, Record]) -> None:
    runs = whole[1].runs
    counts = runs.groupby(["section", "role"])["key"].nunique().to_dict()
    assert counts["line", "trial"] == counts["line-again", "trial"] == 4
    assert counts["line", "tuned"] == counts["line", "default"] == 4
    assert counts["rates", "grid"] == 8
    for row in runs.to_dict("records"):
        assert config_of(row).key == row["key"]
    assert set(runs["environment"]) == set(whole[1].environments)
    assert runs["source"].str.startswith("gclip ").all()


def test_a_part_is_what_figures_read(whole: tuple[Path, Record]) -> None:
    record = whole[1]
    tuned = record.results("line-tuned")
    assert set(tuned.runs["form"]) == {"tuned", "default"}
    assert set(tuned.runs["strategy"]) == {"none", "norm"}
    assert (tuned.runs["spelling"] != tuned.runs["strategy"]).sum() == 2  # norm's winner
    assert len(record.results("line-trials").trials) == 4
    assert set(record.results("line-steps").steps["strategy"]) == {"none", "norm"}
    assert set(record.results("rates").runs["rate"]) == set(record.results("rates").runs["lr"])


def test_a_record_without_a_section_keeps_what_it_had(
    whole: tuple[Path, Record], plan: Path, tmp_path: Path
) -> None:
    root, first = whole
    sections = read_plan(plan)
    line = gather(sections[0], sections, root)
    assert line is not None
    record_of([line], first, sections).write(tmp_path)
    kept = Record.read(tmp_path)
    assert list(kept.sections) == ["line", "line-again", "rates"]
    pd.testing.assert_frame_equal(kept.runs, first.runs, check_like=True)
    # what the plan no longer has leaves the record
    record_of([line], first, sections[:1]).write(tmp_path)
    assert set(Record.read(tmp_path).runs["section"]) == {"line"}


def test_an_unfinished_section_is_not_recorded(
    whole: tuple[Path, Record], plan: Path, tmp_path: Path
) -> None:
    sections = read_plan(plan)
    with pytest.raises(Stopped):
        make(tmp_path, sections[:1], 5)  # the searches, and the beginning of the report
    assert gather(sections[0], sections, tmp_path) is None
    more = dataclasses.replace(sections[0], trials=3)
    assert gather(more, sections, whole[0]) is None


def test_differences_are_told(whole: tuple[Path, Record]) -> None:
    first = whole[1]
    moved = first.runs.copy()
    reported = moved["role"].isin(["tuned", "default"])
    moved.loc[reported, "score"] += 100.0
    said = differences(first, dataclasses.replace(first, runs=moved))
    assert any(each.startswith("line: tuned norm") and "(2 runs)" in each for each in said)
    other = first.runs.copy()
    other.loc[other["role"] == "tuned", "lr"] *= 2
    said = differences(first, dataclasses.replace(first, runs=other))
    assert any("line: the winner of none (seed0) was none at lr" in each for each in said)


def test_a_winner_near_an_end_is_told() -> None:
    def said(value: float, log: bool) -> list[str]:
        kind = {"name": "FloatDistribution", "attributes": {"low": 0.01, "high": 1.0, "log": log}}
        row = {
            "strategy": "norm", "search": "seed0", "best": True, "trial": 0,
            "params": f'{{"lr": {value}}}', "distributions": pd.Series({"lr": kind}).to_json(),
        }  # fmt: skip
        return near_ends(pd.DataFrame([row]))

    assert said(0.1, True) == []
    assert "near the lower end of 0.01 … 1" in said(0.1, False)[0]
    assert "near the upper end" in said(0.9, True)[0]


def test_what_pages_show_is_checked(
    whole: tuple[Path, Record],
    plan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gclip.execution.machine.cores", lambda: 1)
    page = tmp_path / "README.md"
    page.write_text("# It\n\n<!-- record: tuned line -->\n<!-- end of record -->\n\nmore\n")
    (tmp_path / "docs").mkdir()
    common = ["--plan", str(plan), "--root", str(tmp_path)]
    command = ["paper", "draw", "--record", str(whole[0] / "record"), *common]

    def said(*more: str, code: int = 0) -> str:
        assert main([*command, *more]) == code
        return " ".join(capsys.readouterr().out.split())

    assert "README.md: the block tuned line is not the record's" in said("--check", code=1)
    assert "written: README.md" in said("--out", str(tmp_path / "figures"))
    assert "vs tuned none" in page.read_text()
    assert page.read_text().endswith("<!-- end of record -->\n\nmore\n")
    assert "show what the record gives" in said("--check")
    assert (tmp_path / "figures" / "line-tuned" / "tuned.png").exists()
    text = page.read_text()
    page.write_text(re_number(text))
    assert "the block tuned line" in said("--check", code=1)
    page.write_text(text)
    (tmp_path / "docs" / "line.png").write_bytes(b"another")
    assert "docs/line.png: it is not the figure" in said("--check", code=1)


def test_other_processes_draw_the_same_files(whole: tuple[Path, Record], tmp_path: Path) -> None:
    drawn = [
        draw_record(whole[1], tmp_path / str(workers), only=["scores"], dpi=60, workers=workers)
        for workers in (1, 2)
    ]
    for ours, theirs in zip(*drawn, strict=True):
        assert ours.relative_to(tmp_path / "1") == theirs.relative_to(tmp_path / "2")
        assert ours.read_bytes() == theirs.read_bytes()


def re_number(text: str) -> str:
    """The page with another number in its block."""
    place = text.index("±") if "±" in text else text.index("[")
    return text[:place] + "9" + text[place:]


def test_our_plan_is_read() -> None:
    sections = read_plan()
    assert [each.name for each in chosen(sections, ["cifar10", "digits"])] == ["digits", "cifar10"]
    for each in sections:
        assert each.study != "tuning" or (each.trials or 0) >= 30
        assert each.study != "tuning" or each.strategies[:1] == ("none",)
    assert PLAN.name == "paper.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no section"),
        ('[[section]]\nname = "a"', "a section lacks a key"),
        ("[[section]]\nnme = 1", "unknown key of a section 'nme'; did you mean 'name'?"),
        ("[[section]", "is no plan that can be read"),
        (SMALL.replace('"line-again"', '"line"'), "the section line twice"),
        (SMALL.replace('"lr_ceiling"', '"ceiling"'), "unknown study of a section 'ceiling'"),
        (SMALL.replace("trials = 2\n", ""), "the section line is of the kind tuning, so it needs"),
        (SMALL.replace('of = "line"', 'of = "lines"'), "unknown section 'lines'"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_told(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        read_plan(file)
    assert said in str(error.value)


def test_a_wrong_record_is_told(whole: tuple[Path, Record], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no record in"):
        Record.read(tmp_path)
    with pytest.raises(UsageError, match="unknown part of the record 'lin'"):
        whole[1].results("lin")
    with pytest.raises(UsageError, match="unknown block of a record 'tables'"):
        _paper_text.inserted("<!-- record: tables -->\n<!-- end of record -->", whole[1])
    whole[1].write(tmp_path)
    (tmp_path / "runs.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(UsageError, match="cannot be read"):
        Record.read(tmp_path)


def test_equal_records_are_equal_bytes(whole: tuple[Path, Record], tmp_path: Path) -> None:
    files = whole[1].write(tmp_path)
    before: dict[str, Any] = {path.name: path.read_bytes() for path in files}
    Record.read(tmp_path).write(tmp_path)
    assert {path.name: path.read_bytes() for path in files} == before
