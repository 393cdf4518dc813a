"""``gclip report``: a store as one HTML file that people read."""

from __future__ import annotations

import json as json_text
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.compare import setting_text
from gclip.cli.options import Json, StoreFolder
from gclip.cli.study_answer import table_of
from gclip.errors import UsageError, choose
from gclip.text import screen
from gclip.text.progress import Display, load

if TYPE_CHECKING:
    import pandas as pd

    from gclip.describe.report_page import Picture, Section
    from gclip.figures._groups import Group
    from gclip.results import Results, Store
    from gclip.training.metric import Metric

_MACHINE = ("gclip", "torch", "numpy", "python", "platform", "device", "cores", "threads")
"""What is told of an environment, in this order."""
_DPI = 110
"""Of the maps in a report, which is to stay small."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Comparisons and studies, by the names of their folders of figures.",
            show_default="all of the store",
        ),
    ] = None,
    store: StoreFolder = Path("runs"),
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="The file to write.", show_default="STORE/report.html"
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option("--title", metavar="TEXT", help="Of the report.", show_default="the store's"),
    ] = None,
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure",
            metavar="NAME",
            help="Draw this one only; again for more.",
            show_default="all that have something to show",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a store, or some of its comparisons and studies, as one HTML file.

    It holds the questions, tables, claims, figures, settings, environment and commands, and needs
    no network and no other file. Nothing is trained.

    \b
    Examples:
      gclip report --store runs
      gclip report sensitivity-digits --store runs --html sensitivity.html
      gclip report --store runs --figure scores --figure forest --title "Clipping on digits"
    """
    load("torch")
    from gclip import figures as drawings
    from gclip.describe.report_page import report_html
    from gclip.figures._page import STYLES
    from gclip.results import Store

    for name in figure or ():
        choose(name, drawings.names(), "figure")
    opened = Store(store)
    with Display() as display:
        display.load("pandas", "optuna", "seaborn")
        chosen = _chosen(drawings.groups(opened), names or [])
        sections = []
        for group in chosen:
            display.doing(f"drawing {group.folder or 'figures'}")
            sections.append(section_of(opened, group, figure))
    text = report_html(
        title or f"What {store.resolve().name} found",
        sections,
        *(_colours(STYLES[s]) for s in ("paper", "dark")),
    )
    path = html or store / "report.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report '{path}': {error.strerror}") from error
    if json:
        told = [{"title": each.title, "runs": len(each.keys)} for each in sections]
        screen.echo_json({"report": str(path), "sections": told})
        return
    size = screen.bytes_text(len(text.encode()))
    screen.echo(f"{path}: {screen.plural(len(sections), 'section')}, {size}")


def _chosen(groups: list[Group], names: Sequence[str]) -> list[Group]:
    known = {group.folder or "comparison": group for group in groups}
    return [known[choose(name, tuple(known), "comparison or study")] for name in names] or groups


def _colours(style: Any) -> dict[str, str]:
    from gclip.describe.report_page import COLOURS

    return {name: getattr(style, name) for name in COLOURS}


def section_of(store: Store, group: Group, only: Sequence[str] | None = None) -> Section:
    """What a report says of one comparison or study.

    Args:
        store: that holds it.
        group: the comparison or study.
        only: names of figures, where not all are to be drawn.
    """
    from gclip.describe.report_page import Section

    results = group.read(store)
    told = _study(group) if group.study else _comparison(store, results)
    return Section(
        **told,
        pictures=_pictures(results, only),
        environment=_environment(store, group.keys),
        keys=group.keys,
    )


def _pictures(results: Results, only: Sequence[str] | None) -> list[Picture]:
    from gclip import figures
    from gclip.describe.report_page import Picture

    return [
        Picture(
            name=name,
            shows=figures.describe(name),
            svg=figures.image_of(figures.draw(name, results), "svg", dpi=_DPI).decode(),
        )
        for name in only or sorted(figures.names(), key=lambda name: not figures.is_usual(name))
        if figures.applies(name, results)
    ]


def _study(group: Group) -> dict[str, Any]:
    """A study, by what it has written down."""
    from gclip import studies
    from gclip.training import RunConfig

    entry = group.entry
    asked = studies.question(group.study) if group.study in studies.names() else ""
    if group.study == "report":
        asked = "What did tuning buy? Each tuned strategy and its default, on fresh seeds."
    if not entry:  # its trials are all there is
        return {"title": group.study, "question": "Which values did the search try?"}
    setting = dict(entry["setting"])
    apart = {"strategy", "seed", "split", "code", *(n for each in entry["labels"] for n in each)}
    return {
        "title": f"{group.study}: {setting_text(RunConfig.of(setting))}",
        "question": asked or f"The study {group.study}",
        "table": table_of(entry["table"], entry["columns"]) if entry["table"] else None,
        "notes": entry["notes"],
        "verdicts": _claimed(entry["table"]),
        "command": entry.get("command", ""),
        "settings": _told({k: v for k, v in setting.items() if k not in apart}),
    }


def _comparison(store: Store, results: Results) -> dict[str, Any]:
    """A comparison, by its runs."""
    from gclip.figures._compared import baseline_of
    from gclip.results.identical_runs import identical_runs
    from gclip.results.metrics import metric_of
    from gclip.results.statistics import compare_table
    from gclip.results.table_text import comparison_table, notes
    from gclip.training import RunConfig

    runs, metric = results.scored().runs, metric_of(results.runs)
    baseline = baseline_of(runs)
    table = compare_table(results.runs, baseline)
    same = identical_runs(store, runs["key"])
    config = RunConfig.of(json_text.loads(_config(store, str(runs["key"].iloc[0]))))
    count = runs["strategy"].nunique()
    return {
        "title": setting_text(config),
        "question": f"Which of these {count} strategies ends best, and is that more than chance?"
        if count > 1
        else f"How does {baseline} do?",
        "verdicts": _verdicts(table, baseline, metric),
        "table": comparison_table(table, baseline, config.split, metric),
        "notes": notes(table, baseline, same, metric),
        "command": _repeat(config, runs),
        "settings": _told(
            {k: v for k, v in json_text.loads(config.to_json()).items()
             if k not in ("strategy", "seed", "code")}
        ),
    }  # fmt: skip


def _verdicts(table: pd.DataFrame, baseline: str, metric: Metric) -> list[str]:
    """What may be claimed of each, in a sentence; or that nothing may."""
    from gclip.figures.forest import differences
    from gclip.results.evidence import CLAIMS, TOO_FEW

    said = []
    for row in differences(table, metric):
        claims = [claim for claim in str(row["evidence"]).split(", ") if claim in CLAIMS]
        if claims:
            said.append(
                f"{row['strategy']}: {' and '.join(claims)} than {baseline} "
                f"({row['text']}{' points' if metric.unit == '%' else ''}, {row['p']}, "
                f"n = {row['pairs']} pairs)"
            )
    few = (table["evidence"] == TOO_FEW).any()
    nothing = "No difference is shown" + (
        ": there are too few seeds to tell." if few else ", which is no proof that there is none."
    )
    return said or ([nothing] if len(table) > 1 else [])


def _claimed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the table of a study claims, a sentence each; or that it claims nothing."""
    from gclip.results.statistics import CLAIMS

    said, asked = [], False
    for row in rows:
        if row.get("verdict") and row.get("name"):
            said.append(f"{row['name']}: {row['verdict']}")
        for key, evidence in row.items():
            if not key.endswith("evidence") or not evidence or evidence == "baseline":
                continue
            asked = True
            rival = key.removesuffix("evidence").strip("_").removeprefix("vs_") or "none"
            whose = "its own default" if rival == "default" else rival
            where = f"{row['condition']}: " if row.get("condition") else ""
            said += [
                f"{where}{row['strategy']}: {claim} than {whose}"
                for claim in str(evidence).split(", ")
                if claim in CLAIMS
            ]
    nothing = ["No difference is shown, which is no proof that there is none."]
    return said or (nothing if asked else [])


def _repeat(config: Any, runs: pd.DataFrame) -> str:
    """The command that makes the same runs."""
    import shlex

    from gclip.execution import Execution
    from gclip.tuning.commands import as_options

    seeds = sorted({int(seed) for seed in runs["seed"]})
    counted = seeds == list(range(len(seeds)))
    chosen = str(len(seeds)) if counted else ",".join(map(str, seeds)) + ","
    names = " ".join(f"-s {shlex.quote(text)}" for text in dict.fromkeys(runs["strategy"]))
    return f"gclip compare {names} --seeds {chosen}{as_options(config, Execution())}"


def _config(store: Store, key: str) -> str:
    stored = store.read(key)
    return json_text.dumps({} if stored is None else stored.config)


def _environment(store: Store, keys: Sequence[str]) -> dict[str, str]:
    """What the runs ran on; several values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for key in keys:
        stored = store.read(key)
        environment: Mapping[str, Any] = {} if stored is None else stored.environment
        for name in _MACHINE:
            if environment.get(name) is not None:
                found.setdefault(name, {})[str(environment[name])] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _told(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as words; what is empty says nothing."""
    return {
        name.replace("_", " "): f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in settings.items()
        if value not in (None, "", {}, [], False)
    }
