"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from gclip.cli.app import App
from gclip.cli.options import (
    FiguresFolder,
    Fleet,
    Json,
    Place,
    Plugins,
    Workers,
    expand,
    load_data,
    load_plugins,
    parse_seeds,
)
from gclip.cli.setting import Setting
from gclip.cli.study_answer import run_and_draw, show_answer
from gclip.cli.study_request import combine, parse_lr_range, refuse_unused
from gclip.text.progress import load

app = App(no_args_is_help=True, help="Tune strategies with Optuna, and look at studies.")

COMMANDS = ("study_list", "study_work", "study_report")
"""The modules beside this one that add further commands to the group."""

_SEARCH = "How it searches"


def _search(*names: str, help: str, default: str, of: str = "", metavar: str | None = None) -> Any:
    """An option of how studies search; `of` names those that use it, where not all do."""
    text = f"{help} For {of}." if of else help
    return typer.Option(
        *names, help=text, metavar=metavar, rich_help_panel=_SEARCH, show_default=default
    )


@app.command("run")
@expand
def run(
    run: Setting,
    place: Place,
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
    trials: Annotated[
        int | None,
        _search(
            "--trials",
            help="In all, for each strategy, those of earlier commands included.",
            default="20; 25 for budget",
            of="thresholds, budget",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        _search(
            "--seeds",
            metavar="N|LIST",
            help="Of the reported runs: how many, or which: 10, or 0,1,5.",
            default="as many as can show a difference: 10 for up to 25 comparisons, 11 for up to "
            "51; 3 for lr_ceiling, sensitivity",
            of="budget, lr_ceiling, noise, sensitivity",
        ),
    ] = None,
    lr_range: Annotated[
        str | None,
        _search(
            "--lr-range",
            metavar="LOW,HIGH",
            help="Learning rates to search.",
            default="from a 30th to 5 times --lr; from an 8th to 16 times for lr_ceiling",
            of="thresholds, budget, lr_ceiling",
        ),
    ] = None,
    fixed_lr: Annotated[
        bool | None,
        _search(
            "--fixed-lr",
            help="Leave the learning rate alone.",
            default="it is searched, too",
            of="thresholds",
        ),
    ] = None,
    space: Annotated[
        list[str] | None,
        _search(
            "--space",
            metavar="FIELD=RANGE",
            help="Search clip_factor=1e-4..1:log, window=10|100 or lr=0.01..1:log, or hold "
            "max_norm=0.5; again for more.",
            default="what the strategy's fields say",
            of="thresholds, budget, sensitivity",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        _search(
            "--sampler",
            metavar="NAME",
            help="tpe, gp, cmaes, random, qmc or grid; random to compare budgets.",
            default="tpe",
            of="thresholds",
        ),
    ] = None,
    pruner: Annotated[
        str | None,
        _search(
            "--pruner",
            metavar="NAME",
            help="Stop bad trials early: none, median, hyperband or wilcoxon.",
            default="none",
            of="thresholds",
        ),
    ] = None,
    seeds_per_trial: Annotated[
        int | None,
        _search(
            "--seeds-per-trial",
            help="Tuning seeds that a trial's score is the mean of.",
            default="1",
            of="thresholds, budget",
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        _search(
            "--objective",
            metavar="NAME",
            help="accuracy, and with it clip_rate or cost for a Pareto front; again for more.",
            default="accuracy",
            of="thresholds",
        ),
    ] = None,
    points: Annotated[
        int | None,
        _search(
            "--points",
            help="Values of a grid.",
            default="what suits the study",
            of="thresholds, lr_ceiling, noise, sensitivity",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        _search("--seed", help="Of the sampler, and of the tuning seeds.", default="0"),
    ] = None,
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
    load("torch", "optuna")
    from gclip import studies
    from gclip.results import Store
    from gclip.tuning.answers import keep
    from gclip.tuning.space import parse_space
    from gclip.tuning.study import Request

    options = {
        "name": name,
        "strategies": tuple(strategy) if strategy else None,
        "trials": trials,
        "seeds": None if seeds is None else parse_seeds(seeds),
        "lr_range": parse_lr_range(lr_range),
        "fixed_lr": fixed_lr or None,
        "space": parse_space(space) if space else None,
        "sampler": sampler,
        "pruner": pruner,
        "seeds_per_trial": seeds_per_trial,
        "objectives": tuple(objective) if objective else None,
        "points": points,
        "seed": seed,
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
    if "trials" not in studies.uses(command.study):  # trials are kept by Optuna
        keep(command.study, request, answer, files)
    show_answer(answer, files, json, study=command.study)


for _name in COMMANDS:
    if importlib.util.find_spec(f"gclip.cli.{_name}") is not None:
        importlib.import_module(f"gclip.cli.{_name}").add_to(app)
