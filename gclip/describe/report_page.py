"""A report as one HTML file that needs nothing else: no network, no script, no other file.

It follows the reader's choice of light or dark, fits a telephone and prints. Figures are part of
it, as SVG whose ink and ground are the page's own, so that they are light or dark with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gclip.text.html import escaped, table_html
from gclip.text.table import TextTable


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure in a report.

    Attributes:
        name: of the figure, unique in its section.
        shows: what it shows, in a sentence.
        svg: as matplotlib writes it.
    """

    name: str
    shows: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """One comparison, or one study.

    Attributes:
        title: what it is.
        question: that it answers.
        verdicts: what may be claimed, a sentence each.
        table: the numbers.
        notes: what the numbers are.
        pictures: the figures.
        settings: what all runs have in common, by name.
        environment: what they ran on, by name.
        command: that repeats it; empty where nobody knows.
        keys: of the runs.
    """

    title: str
    question: str
    verdicts: Sequence[str] = ()
    table: TextTable | None = None
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    keys: Sequence[str] = ()


COLOURS = ("ground", "ink", "soft", "faint", "grid", "edge")
"""Of a figure, which the page replaces by its own."""


def report_html(
    title: str, sections: Sequence[Section], light: Mapping[str, str], dark: Mapping[str, str]
) -> str:
    """The whole file.

    Args:
        title: of the report.
        sections: what it holds.
        light, dark: the `COLOURS` in which the figures are drawn, and those of a dark page.
    """
    contents = "".join(
        f'<li><a href="#part-{place}">{escaped(each.title)}</a></li>'
        for place, each in enumerate(sections, 1)
    )
    navigation = (
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>' if len(sections) > 1 else ""
    )
    body = "".join(_section(place, each, light) for place, each in enumerate(sections, 1))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{_style(light, dark)}</style></head>"
        f"<body><header><h1>{escaped(title)}</h1>{navigation}</header><main>{body}</main>"
        "</body></html>\n"
    )


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'"


def _section(place: int, section: Section, colours: Mapping[str, str]) -> str:
    name = f"part-{place}"
    parts = [f'<section id="{name}" aria-labelledby="{name}-title">']
    parts.append(f'<h2 id="{name}-title">{escaped(section.title)}</h2>')
    parts.append(f'<p class="question">{escaped(section.question)}</p>')
    if section.verdicts:
        said = "".join(f"<li>{escaped(each)}</li>" for each in section.verdicts)
        parts.append(f"<h3>What may be claimed</h3><ul>{said}</ul>")
    if section.table is not None:
        label = f"Table: {section.title}"
        parts.append(
            "<h3>The table</h3>"
            f'<div class="wide" role="region" aria-label="{escaped(label)}" tabindex="0">'
            f"{table_html(section.table)}</div>"
        )
    parts += [_note(each) for each in section.notes]
    if section.pictures:
        drawn = "".join(
            _picture(each, f"{name}-{number}", colours)
            for number, each in enumerate(section.pictures, 1)
        )
        parts.append(f'<h3>Figures</h3><div class="figures">{drawn}</div>')
    if section.command:
        parts.append(f"<h3>The command that repeats it</h3><pre>{escaped(section.command)}</pre>")
    for heading, facts in (("Settings", section.settings), ("Environment", section.environment)):
        if facts:
            rows = "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in facts.items())
            parts.append(f"<h3>{heading}</h3><dl>{rows}</dl>")
    if section.keys:
        keys = " ".join(map(escaped, section.keys))
        parts.append(
            f"<details><summary>Keys of its {len(section.keys)} runs</summary>"
            f'<p class="keys">{keys}</p></details>'
        )
    return "".join([*parts, "</section>"])


def _note(text: str) -> str:
    """A sentence; lines that are indented are commands."""
    lines = text.split("\n")
    said = " ".join(line for line in lines if not line.startswith(" "))
    typed = "\n".join(line.strip() for line in lines if line.startswith(" "))
    block = f"<pre>{escaped(typed)}</pre>" if typed else ""
    return (f'<p class="note">{escaped(said)}</p>' if said.strip() else "") + block


def _picture(picture: Picture, name: str, colours: Mapping[str, str]) -> str:
    drawn = inline_svg(picture.svg, name, picture.shows, colours)
    below = f"<b>{escaped(picture.name)}</b>: {escaped(picture.shows)}"
    return f"<figure>{drawn}<figcaption>{below}</figcaption></figure>"


def inline_svg(svg: str, name: str, label: str, colours: Mapping[str, str]) -> str:
    """An SVG file as a part of an HTML page.

    Its names are made the page's own (two figures may both have a ``clip1``), its colours the
    page's variables, and what refers elsewhere, the document type and metadata, is left out.

    Args:
        svg: the file.
        name: unique on the page.
        label: what it shows, for those who do not see it.
        colours: by variable, as the figure has them.
    """
    start = svg.index("<svg")
    text = re.sub(r"<metadata>.*?</metadata>", "", svg[start:], flags=re.DOTALL)
    text = re.sub(r'\s(xmlns|xmlns:xlink|version)="[^"]*"', "", text)
    text = text.replace("xlink:href=", "href=")
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", text)
    variables = {value.lower(): f"var(--{key})" for key, value in colours.items()}

    def dyed(match: re.Match[str]) -> str:
        return re.sub(r"#[0-9a-fA-F]{6}", lambda m: variables.get(m[0].lower(), m[0]), match[0])

    text = re.sub(r'style="[^"]*"', dyed, text)
    title = f'<title id="{name}-label">{escaped(label)}</title>'
    head, _, rest = text.partition(">")
    head = re.sub(r'\s(width|height)="([^"]*)pt"', r' \1="\2"', head)
    return f'{head} role="img" aria-labelledby="{name}-label">{title}{rest.strip()}'


def _style(light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    def variables(colours: Mapping[str, str]) -> str:
        return "".join(f"--{name}:{colours[name]};" for name in COLOURS)

    return (
        f":root{{{variables(light)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(dark)}}}}}" + _RULES
    )


_RULES = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:75rem;background:var(--ground);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.3rem;margin-top:3rem;
border-top:1px solid var(--edge);padding-top:1rem}h3{font-size:1rem;margin:1.5rem 0 .4rem}
.question{font-size:1.1rem}.note,figcaption{color:var(--soft);font-size:.9rem;max-width:50rem}
a{color:inherit}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;
border-bottom:1px solid var(--grid);white-space:nowrap}
th{border-bottom:1px solid var(--edge)}
.figures{columns:20rem;column-gap:1.5rem}
figure{margin:0 0 1.5rem;break-inside:avoid}
figure svg{width:100%;height:auto;max-width:30rem;display:block}
figcaption{margin-top:.4rem}
pre{background:var(--grid);padding:.6rem .8rem;overflow-wrap:anywhere;white-space:pre-wrap}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.keys{font:.75rem/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
:focus-visible{outline:2px solid currentColor;outline-offset:2px}
@media print{body{max-width:none;padding:0;font-size:10pt}figure,tr,pre{break-inside:avoid}
.figures{columns:2}.wide{overflow:visible}h2,h3{break-after:avoid}}
"""
