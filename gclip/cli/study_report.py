"""``gclip study report | show | export``: what came of studies."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli import typed
from gclip.cli.figures import save_figure
from gclip.cli.options import (
    FiguresFolder,
    Json,
    KeptPlace,
    Plugins,
    StoreFolder,
    TableFormat,
    Workers,
    check_format,
    expand,
    load_data,
    load_plugins,
    parse_seeds,
)
from gclip.cli.study_answer import run_and_draw, show_answer
from gclip.cli.study_list import note_left_out
from gclip.errors import UsageError
from gclip.text import screen
from gclip.text.export import TEXT
from gclip.text.progress import load
from gclip.text.streams import printable
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from gclip.training.metric import Metric

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the study; gclip study list.")]


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command("report")(expand(report))
    app.command("show")(show)
    app.command("export")(export)


def report(
    place: KeptPlace,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Studies of one task; all of the store by default.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds", metavar="N|LIST",
            help="Fresh ones: how many, or which: 10, or 0,1,5.",
            show_default="as many as can show a difference: 10 for up to 25 comparisons, 11 for "
            "up to 51",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Folder of the images.",
            show_default="cifar10 is downloaded",
        ),
    ] = None,
    workers: Workers = None,
    plugin: Plugins = None,
    out: FiguresFolder = None,
    format: TableFormat = TEXT,
    json: Json = False,
) -> None:  # fmt: skip
    """Train what studies found with fresh seeds, score it on test images, and compare.

    Each tuned strategy beside its default, tuned norm and tuned none. The same command again
    resumes.

    \b
    Examples:
      gclip study report
      gclip study report thresholds-agc-digits thresholds-norm-digits --seeds 20
      gclip study report --store runs --data DIR --json
      gclip study report --format latex > tuned.tex
    """
    place.alone()
    check_format(format, json)
    execution = place.execution(workers, "off")
    load("torch", "optuna")
    from gclip.results import Store
    from gclip.studies import _report
    from gclip.studies._tuned import tuned_in
    from gclip.tuning.grid_answers import write_answer
    from gclip.tuning.study import Request

    plugins = load_plugins(plugin or [])
    tuned = tuned_in(_existing(place.store), names or [], note_left_out)
    base, dataset = load_data(tuned[0].plan.base.replace(data=""), data)
    if tuned[0].plan.base.data not in ("", base.data):
        raise UsageError(
            f"the studies were made with the data {tuned[0].plan.base.data}, but these images are "
            f"{base.data}; give the same --data"
        )
    request = Request(
        base=base,
        store=Store(place.store, create=True),
        seeds=None if seeds is None else parse_seeds(seeds),
        execution=dataclasses.replace(execution, data=data, dataset=dataset, plugins=plugins),
    )
    answer, files = run_and_draw(
        request,
        lambda listened: _report.run(listened, tuned),
        _report.run_count(request, tuned),
        out or place.store / "figures",
    )
    write_answer("report", request, answer, files, typed.command())
    show_answer(answer, files, json, format)


def show(
    name: Name,
    store: StoreFolder = Path("runs"),
    best: Annotated[int, typer.Option("--best", min=1, help="How many of the best trials.")] = 5,
    out: FiguresFolder = None,
    json: Json = False,
) -> None:
    """Show a study: how its trials ended, the best ones, which field mattered, and a figure.

    \b
    Examples:
      gclip study show thresholds-agc-digits
      gclip study show thresholds-agc-digits --store runs --best 10 --json
    """
    load("torch", "optuna")
    from gclip.training.metric import Metric
    from gclip.tuning.inspection import FEWEST, shown
    from gclip.tuning.sqlite import find_study
    from gclip.tuning.sqlite_file import storage_url

    path = find_study(_existing(store), name)
    study = shown(path, best)
    metric = Metric.from_dict(study["metric"])
    files = _slices(path, name, out or store / "figures")
    url = storage_url(path)
    if json:
        screen.echo_json({**study, "storage": url, "figures": [str(each) for each in files]})
        return
    screen.echo(f"{printable(name)}: {study['counts']}")
    if not study["best"]:
        screen.echo("No trial was completed, so there is no best.")
    elif all(row["status"] == "diverged" for row in study["best"]):
        screen.echo_wrapped("All completed trials diverged; these are the first of them.")
    best_heading = f"The best by validation {metric.name}, which looks better than it is:"
    _table(best_heading, study["best"], metric)
    if study["best"]:
        screen.echo()
        screen.echo_wrapped(
            "clipped: share of the steps in which anything was clipped; s: seconds a trial."
        )
    if study["front"]:
        heading = "No finished trial beats one of these in one objective at no cost:"
        _table(heading, study["front"], metric)
    if study["importances"] is None:
        screen.echo_wrapped(
            f"Importances need {FEWEST} complete trials, two searched fields and different scores."
        )
    else:
        said = ", ".join(f"{key} {value:.0%}" for key, value in study["importances"].items())
        screen.echo_wrapped(
            f"Share of the {metric.name}'s variance that each explains (fANOVA): {said}"
        )
    if files:
        screen.echo_wrapped(f"figures in {files[0].parent} (PNG and SVG): {files[0].stem}")
    screen.echo(
        f"In a browser: pip install optuna-dashboard && optuna-dashboard {shlex.quote(url)}"
    )


def export(
    name: Name,
    store: StoreFolder = Path("runs"),
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv", metavar="FILE", help="A new file to write.", show_default="it is printed"
        ),
    ] = None,
) -> None:
    """Write all trials of a study as CSV, one row a trial.

    \b
    Examples:
      gclip study export thresholds-agc-digits > trials.csv
      gclip study export thresholds-agc-digits --csv trials.csv
    """
    load("torch", "optuna")
    from gclip.tuning.inspection import rows
    from gclip.tuning.sqlite import find_study

    trials = rows(find_study(_existing(store), name))
    if not trials:
        raise UsageError(f"the study {name} has no trial yet, so there is nothing to export")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(trials[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(trials)
    if csv_file is None:
        print(text.getvalue(), end="")
        return
    try:
        with csv_file.open("x", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
    except FileExistsError:
        raise UsageError(f"{csv_file} exists; give another file, or delete it first") from None
    except OSError as error:
        raise UsageError(f"{csv_file} cannot be written: {error.strerror}") from None
    screen.echo(f"{len(trials)} trials written to {csv_file}")


def _existing(store: Path) -> Path:
    if not os.path.isdir(store):
        raise UsageError(f"there is no store '{store}'; name the folder with --store")
    return store


def _table(heading: str, trials: list[dict[str, Any]], metric: Metric) -> None:
    from gclip.results.metric_text import score_with_unit

    if not trials:
        return
    screen.echo_wrapped(heading)
    table = TextTable(
        columns=[
            Column(heading="trial"),
            Column(heading=metric.name),
            Column(heading="strategy", words=True),
            Column(heading="lr"),
            Column(heading="status", words=True),
            Column(heading="clipped"),
            Column(heading="s"),
        ]
    )
    for row in trials:
        clipped, seconds = row["share_clipped"], row["seconds"]
        table.add(
            str(row["trial"]),
            score_with_unit(metric, row["score"]),
            str(row["strategy"]),
            f"{row['lr']:.3g}",
            row["status"],
            "–" if clipped is None else f"{screen.percent(clipped)} %",
            "–" if seconds is None else f"{seconds:.1f}",
        )
    screen.echo_table(table)


def _slices(path: Path, name: str, out: Path) -> list[Path]:
    """The figure of the score over each number that was searched; none without one."""
    from gclip import figures
    from gclip.results import Results
    from gclip.tuning.trial_frame import trials_frame

    nothing = Results.nothing()
    results = dataclasses.replace(nothing, trials=trials_frame([path]), study=name)
    if not figures.applies("slices", results):
        return []
    return save_figure(figures.draw("slices", results), out, f"slices-{name}")
