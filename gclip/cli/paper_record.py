"""``gclip paper record`` and ``draw``: the record made of the stores, and what is made of it."""

from __future__ import annotations

import hashlib
import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.options import Json
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.progress import Display, load

if TYPE_CHECKING:
    from gclip.results.record import Record

RECORD = Path("studies") / "records" / "paper"
STORES = Path("build") / "paper"
FIGURES = Path("build") / "figures"
DRAWN = Path("docs") / "drawn.json"
"""Of each figure that README and docs show: a digest of what it was drawn from, and its own."""
PAGES = ("README.md", "docs/*.md")
_DPI, _DRAFT = 200, 120
"""Pixels an inch: of what README and docs show, and of all others; gclip figures draws finer."""

PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan", metavar="FILE", help="A plan in TOML.", show_default="gclip's, studies/paper.toml"
    ),
]
Sections = Annotated[
    list[str] | None,
    typer.Option("--section", metavar="NAME", help="This one; again for more.", show_default="all"),
]
StoresFolder = Annotated[
    Path,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Folder that keeps the runs, a store in it for one or more sections.",
    ),
]
RecordFolder = Annotated[
    Path, typer.Option("--record", metavar="DIR", help="Folder of the record.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("record")(record)
    app.command("draw")(draw)


def record(
    store: StoresFolder = STORES,
    folder: RecordFolder = RECORD,
    plan: PlanFile = None,
    section: Sections = None,
    json: Json = False,
) -> None:
    """Write the record of what was trained, and say what differs from the record before.

    A section that is not complete keeps what the record had. Nothing is trained.

    \b
    Examples:
      gclip paper record
      gclip paper record --store build/paper --section digits
    """
    load("torch", "optuna")
    from gclip.results.record import Record
    from gclip.studies import _paper_plan, _paper_record
    from gclip.studies._paper_differences import differences

    sections = _paper_plan.read_plan(plan or _paper_plan.PLAN)
    found, missing = [], []
    with Display() as display:
        for each in _paper_plan.chosen(sections, section or ()):
            display.doing(f"reading {each.name}")
            one = _paper_record.gather(each, sections, store)
            found.append(one) if one is not None else missing.append(each.name)
    before = Record.read(folder) if (folder / "sections.json").exists() else None
    if not found:
        raise UsageError(
            f"no section is complete in '{store}': gclip paper train --store {store} goes on"
        )
    made = _paper_record.record_of(found, before, sections)
    said = [] if before is None else differences(before, made)
    files = made.write(folder)
    size = sum(path.stat().st_size for path in files)
    if json:
        screen.echo_json(
            {"sections": list(made.sections), "missing": missing, "differences": said, "size": size}
        )
        return
    names = ", ".join(made.sections)
    screen.echo_wrapped(f"{folder}: {screen.bytes_text(size)}, {names}")
    for name in missing:
        kept = "as it was" if name in made.sections else "not in the record"
        screen.echo(f"{name} is not complete: {kept}")
    for sentence in said:
        screen.echo_wrapped(sentence)
    if before is not None and not said:
        screen.echo("every number is within the interval of the record before")


def draw(
    folder: RecordFolder = RECORD,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for figures.")
    ] = FIGURES,
    root: Annotated[
        Path, typer.Option("--root", metavar="DIR", help="Of the repository with README and docs.")
    ] = Path(),
    plan: PlanFile = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing: fail where README or docs differ."),
    ] = False,
    json: Json = False,
) -> None:
    """Draw all figures of the record, and put its tables and figures into README and docs.

    Nothing is trained.

    \b
    Examples:
      gclip paper draw
      gclip paper draw --check
    """
    load("torch", "optuna")
    from gclip.results.record import Record

    made = Record.read(folder)
    if check:
        stale = differing(made, root, plan)
        if json:
            screen.echo_json({"differ": stale})
        for each in () if json else stale:
            screen.echo_wrapped(each)
        if stale:
            raise typer.Exit(1)
        if not json:
            screen.echo("README and docs show what the record gives")
        return
    from gclip.execution.machine import cores
    from gclip.figures._record import draw_record

    with Display() as display:
        display.load("pandas", "seaborn")
        display.doing("drawing")
        files = draw_record(made, out, dpi=_DRAFT, workers=cores())
        pages = insert(made, root, plan)
    if json:
        screen.echo_json({"figures": [str(path) for path in files], "written": pages})
        return
    screen.echo(f"{screen.plural(len(files), 'file')} in {out}")
    for page in pages:
        screen.echo(f"written: {page}")


def differing(made: Record, root: Path, plan: Path | None = None) -> list[str]:
    """Where README and docs are not what the record gives, a sentence each."""
    from gclip.studies import _paper_text

    said = []
    for page in _pages(root):
        text = page.read_text(encoding="utf-8")
        for name, stands in _paper_text.blocks(text).items():
            if stands != _paper_text.block(name, made):
                said.append(f"{page.relative_to(root)}: the block {name} is not the record's")
    drawn = _drawn(root)
    for file, wanted in _wanted(made, plan).items():
        here = drawn.get(file, {})
        path = root / file
        if not path.is_file() or here.get("file") != _digest(path):
            said.append(f"{file}: it is not the figure that was drawn from a record")
        elif here.get("data") != wanted["data"] or here.get("figure") != wanted["figure"]:
            said.append(f"{file}: it was drawn from other numbers than the record's")
    return [f"{each}; make figures writes it" for each in said]


def insert(made: Record, root: Path, plan: Path | None = None) -> list[str]:
    """Put the record's tables and figures into README and docs; the files that changed."""
    from gclip import figures
    from gclip.studies import _paper_text

    changed = []
    for page in _pages(root):
        text = page.read_text(encoding="utf-8")
        new = _paper_text.inserted(text, made)
        if new != text:
            page.write_text(new, encoding="utf-8")
            changed.append(str(page.relative_to(root)))
    wanted, drawn = _wanted(made, plan), _drawn(root)
    for file, what in wanted.items():
        here = drawn.get(file, {})
        same = all(here.get(name) == what[name] for name in ("data", "figure", "part"))
        if same and (root / file).is_file() and _digest(root / file) == here.get("file"):
            continue
        figure = figures.draw(what["figure"], made.results(what["part"]), width="page")
        figures.save(figure, root / file, dpi=_DPI)
        changed.append(file)
    told = {file: {**what, "file": _digest(root / file)} for file, what in wanted.items()}
    if told != drawn:
        (root / DRAWN).write_text(json_text.dumps(told, indent=1) + "\n", encoding="utf-8")
    return changed


def _pages(root: Path) -> list[Path]:
    return [path for pattern in PAGES for path in sorted(root.glob(pattern))]


def _drawn(root: Path) -> dict[str, Any]:
    path = root / DRAWN
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json_text.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"'{path}' cannot be read: {error}; make figures writes it") from error
    return found


def _wanted(made: Record, plan: Path | None) -> dict[str, dict[str, str]]:
    """What README and docs are to show, as far as the record has it."""
    from gclip.studies import _paper_plan

    wanted = {}
    for each in _paper_plan.shown(plan or _paper_plan.PLAN):
        part = next((name for name in each.parts if name in made.parts), None)
        if part is not None:
            wanted[each.file] = {
                "part": part,
                "figure": each.figure,
                "data": made.digest(part),
            }
    return wanted


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
