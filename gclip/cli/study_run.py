"""``gclip study run``: a question about clipping, answered by experiment."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Annotated

import typer

from gclip.cli import typed
from gclip.cli.options import (
    FiguresFolder,
    Fleet,
    Json,
    KeptPlace,
    Plugins,
    TableFormat,
    Workers,
    check_format,
    expand,
    load_data,
    load_plugins,
)
from gclip.cli.setting import Setting
from gclip.cli.study_answer import run_and_draw, show_answer
from gclip.cli.study_options import Search
from gclip.cli.study_request import combine, refuse_unused
from gclip.text.export import TEXT
from gclip.text.progress import load


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


@expand
def run(
    *,
    run: Setting,
    place: KeptPlace,
    name_of_study: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY", help="Which study; gclip study list names them.", show_default=False
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help='A name or a spelling such as "norm(max_norm=0.1)"; again for more.',
            show_default="some that are known well; thresholds needs to be told",
        ),
    ] = None,
    search: Search,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="The study's name.",
            show_default="after study, strategy and task",
        ),
    ] = None,
    workers: Workers = None,
    fleet: Fleet = None,
    plugin: Plugins = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="A study in TOML; options given here go before it.",
            show_default="none",
        ),
    ] = None,
    out: FiguresFolder = None,
    format: TableFormat = TEXT,
    json: Json = False,
) -> None:
    """Answer a question about clipping by experiment: which threshold, which learning rate …

    The same command again resumes, and ends at the same total of trials.

    \b
    Examples:
      gclip study run thresholds --strategy agc --trials 20
      gclip study run thresholds -s norm --fixed-lr --name norm-only
      gclip study run thresholds -s agc -s norm --space "clip_factor=1e-4..1:log" --sampler random
      gclip study run --file study.toml --trials 40
    """
    place.alone()
    check_format(format, json)
    load("torch", "optuna")
    from gclip import studies
    from gclip.results import Store
    from gclip.tuning.grid_answers import write_answer
    from gclip.tuning.study import Request

    options = {
        "name": name,
        "strategies": tuple(strategy) if strategy else None,
        **search.given(),
    }
    command = combine(name_of_study, options, run, plugin, workers, file)
    execution = place.execution(command.workers, command.fleet if fleet is None else fleet)
    study = studies.get(command.study)
    refuse_unused(command.study, command.request)
    plugins = load_plugins(list(command.plugins))
    base, dataset = load_data(command.base(study), command.run.data)
    request = Request(
        **command.request,
        base=base,
        store=Store(place.store, create=True),
        execution=dataclasses.replace(
            execution, data=command.run.data, dataset=dataset, plugins=plugins
        ),
    )
    answer, files = run_and_draw(
        request,
        functools.partial(studies.answered, study),
        study.run_count(request) if hasattr(study, "run_count") else None,
        out or place.store / "figures",
    )
    write_answer(command.study, request, answer, files, typed.command())
    show_answer(answer, files, json, format, study=command.study)
