"""``gclip report``: one file that holds everything, escapes everything and asks nobody."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gclip.cli import main
from gclip.describe.report_page import Picture, Section, inline_svg, report_html
from gclip.text.table import Column, TextTable

LIGHT = {name: f"#00000{place}" for place, name in enumerate(
    ("ground", "ink", "soft", "faint", "grid", "edge"), 1)}  # fmt: skip
EVIL = '<script>alert("x")</script> & <b>'
VOID = {"meta", "br", "img"}
TINY = ["--fraction", "0.05", "--epochs", "1", "--batch-size", "64", "--workers", "1"]


class Page(HTMLParser):
    """What a page is made of; it fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def check(text: str) -> Page:
    """Nothing on the page refers to anything outside of it, and its names are each there once."""
    page = Page(text)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    for value in (*page.all("href"), *page.all("src")):
        assert value.startswith(("#", "data:image/png;base64,")), value
        assert not value.startswith("#") or value[1:] in ids, value
    for name in re.findall(r"url\(#?([^)]*)\)", text):
        assert name in ids, name
    assert not re.search(r"https?:", text)
    assert not page.tags["script"] + page.tags["link"] + page.tags["iframe"]
    assert "default-src 'none'" in text
    assert page.tags["main"] == page.tags["h1"] == page.tags["title"] - page.tags["svg"] == 1
    assert ("html", "lang", "en") in page.attributes
    return page


def test_everything_is_escaped() -> None:
    table = TextTable(columns=[Column(heading=EVIL)])
    table.add(EVIL)
    svg = '<?xml version="1.0"?>\n<svg width="9pt" style="fill: #000002"><g id="a"/></svg>'
    section = Section(
        title=EVIL, question=EVIL, verdicts=[EVIL], table=table, notes=[EVIL, f"{EVIL}\n  {EVIL}"],
        pictures=[Picture(name=EVIL, shows=EVIL, svg=svg)], settings={EVIL: EVIL},
        environment={EVIL: EVIL}, command=EVIL, keys=[EVIL],
    )  # fmt: skip
    page = check(report_html(EVIL, [section, section], LIGHT, LIGHT))
    assert not page.tags["b"] - page.tags["figcaption"]
    assert page.words.count(EVIL) > 20
    assert page.tags["section"] == 2
    assert page.tags["nav"] == 1


def test_figures_take_the_pages_colours_and_names() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="9pt"><metadata>x</metadata>'
        '<defs><clipPath id="c"/></defs><g clip-path="url(#c)"><use xlink:href="#c" '
        'style="fill: #000002; stroke: #0173b2"/></g></svg>'
    )
    text = inline_svg(svg, "p1", "all of it", LIGHT)
    assert 'fill: var(--ink); stroke: #0173b2"' in text
    assert "url(#p1-c)" in text and 'href="#p1-c"' in text and 'id="p1-c"' in text  # noqa: PT018
    assert "metadata" not in text
    assert '<title id="p1-label">all of it</title>' in text


def test_a_store_becomes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    compare = ["compare", "-s", "none", "-s", "norm(max_norm=0.1)", "--seeds", "2", *TINY]
    assert main([*compare, "--no-figures"]) == 0
    study = ["study", "run", "sensitivity", "-s", "norm", "--points", "2", "--seeds", "1", *TINY]
    assert main(study) == 0
    capsys.readouterr()
    assert main(["report", "--figure", "forest", "--figure", "sensitivity", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["runs"] for each in found["sections"]] == [4, 4]
    text = Path(found["report"]).read_text()
    page = check(text)
    words = " ".join(page.words)
    assert page.tags["svg"] == page.tags["table"] == 2
    for said in (
        "gclip compare -s none -s 'norm(max_norm=0.1)' --seeds 2",
        " ".join(["gclip", *study]),
        "How exactly must the threshold be right?",
        "Which of these 2 strategies ends best",
        "there are too few seeds to tell",
        "norm(max_norm=0.1)", "torch", "Keys of its 4 runs",
    ):  # fmt: skip
        assert said in words, said
    assert main(["report", "sensitivty-digits"]) == 2
    assert "did you mean 'sensitivity-digits'" in capsys.readouterr().err


def test_tables_for_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import csv
    import io

    monkeypatch.chdir(tmp_path)
    compare = ["compare", "-s", "none", "-s", "norm(max_norm=0.1)", "--seeds", "2", *TINY]
    compare += ["--no-figures"]
    assert main([*compare, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["table"]
    said = {}
    for format in ("markdown", "latex", "csv"):
        assert main([*compare, "--format", format]) == 0
        said[format] = capsys.readouterr().out
    lines = said["markdown"].splitlines()
    assert lines[0].startswith("| strategy | test accuracy |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]} == {10}
    assert r"norm(max\_norm=0.1)" in said["markdown"]
    assert r"norm(max\_norm=0.1) &" in said["latex"]
    assert said["latex"].count(r"\\") == 3
    assert r"\begin{tabular}{l" in said["latex"]
    found = list(csv.DictReader(io.StringIO(said["csv"])))
    assert [row["strategy"] for row in found] == [row["strategy"] for row in rows]
    assert [float(row["score"]) for row in found] == [row["score"] for row in rows]
    assert main([*compare, "--format", "html"]) == 2
    assert "unknown table format 'html' (choices: text, markdown, latex, csv)" in (
        capsys.readouterr().err
    )
    assert main([*compare, "--format", "csv", "--json"]) == 2
    assert "leave one out" in capsys.readouterr().err
