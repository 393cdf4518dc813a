"""``gclip study create`` and ``gclip study work``: one study on many machines."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gclip.cli import study_run
from gclip.cli.interrupts import interruptible
from gclip.cli.options import (
    Fleet,
    Json,
    KeptPlace,
    Plugins,
    Workers,
    expand,
    load_data,
    load_plugins,
)
from gclip.cli.setting import Setting
from gclip.cli.study_options import Search
from gclip.cli.study_request import combine, refuse_unused
from gclip.errors import UsageError
from gclip.execution.execution import Execution
from gclip.execution.progress import RunsDisplay
from gclip.text import screen
from gclip.text.progress import load

if TYPE_CHECKING:
    from types import ModuleType

    from optuna.trial import FrozenTrial
    from sqlalchemy import URL

    from gclip.tuning.plan import Plan
    from gclip.tuning.study import Request

Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="URL",
        help="PostgreSQL that all machines reach: postgresql://user@host/database.",
    ),
]

_NOT_CREATED = (
    *("seeds", "workers", "out", "format", "json", "device", "threads", "fleet"),
    "checkpoint_every",
)
"""Options of ``gclip study run`` that are about where trials train, or about what comes after."""


def add_to(app: typer.Typer) -> None:
    """Make the commands known."""
    app.command("create")(_like_run(create))
    app.command("work")(work)


def create(
    storage: Storage,
    store: Annotated[
        Path,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Folder that keeps the runs, in the work command that it prints.",
        ),
    ] = Path("runs"),
    heartbeat: Annotated[
        int | None,
        typer.Option(
            "--heartbeat",
            metavar="SECONDS",
            help="Between a worker's signs of life; silent for four, it is taken for dead.",
            show_default="15",
        ),
    ] = None,
    json: Json = False,
    **options: Any,
) -> None:
    """Begin a study for many machines; then `gclip study work` on each of them.

    The other options are those of gclip study run. The same command again changes nothing, and
    with a larger --trials it adds what is missing.

    \b
    Examples:
      gclip study create thresholds -s agc --storage postgresql://me@db/x
      gclip study work thresholds-agc-digits --storage postgresql://me@db/x
    """
    load("torch", "optuna")
    from gclip.tuning.distributed_study import create as create_study
    from gclip.tuning.postgres import has_password, read_url

    url = read_url(storage)
    study, request = _asked(options, store)
    plans = study.plans(request)
    trials = study.trials_of(request, plans)
    created = [create_study(url, plan, trials, heartbeat) for plan in plans]
    commands = [_command(each.name, url, request) for each in created]
    if json:
        screen.echo_json(
            {
                "studies": [
                    {"name": each.name, "trials": each.trials, "added": each.added, "work": command}
                    for each, command in zip(created, commands, strict=True)
                ]
            }
        )
        return
    for each in created:
        new = "" if each.added == each.trials else f", {each.added} of them new"
        screen.echo(f"study {each.name}: {screen.plural(each.trials, 'trial')}{new}")
    screen.echo("\nOn every machine, as often as you like:")
    for command in commands:
        screen.echo(f"  {command}")
    if has_password(url):
        screen.echo("The password is left out: set PGPASSWORD there, or write it into ~/.pgpass.")


@expand
def work(
    place: KeptPlace,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the study, as it was created.")],
    storage: Storage,
    workers: Workers = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the images on this machine.",
            show_default="cifar10 is downloaded",
        ),
    ] = None,
    plugin: Plugins = None,
    fleet: Fleet = None,
    json: Json = False,
) -> None:
    """Make trials of a created study, together with all others that do, until it has ended.

    It may be stopped and started at any time, on any number of machines.

    \b
    Examples:
      gclip study work thresholds-agc-digits --storage postgresql://me@db/x
      gclip study work thresholds-agc-digits --storage postgresql://me@db/x --fleet off
    """
    load("torch", "optuna")
    from gclip.results import Store
    from gclip.training import load_data
    from gclip.tuning import distributed
    from gclip.tuning.distributed_study import check_data, plan_at
    from gclip.tuning.postgres import read_url

    url = read_url(storage)
    execution = place.execution(workers, fleet)
    plugins = load_plugins(plugin)
    plan, trials, heartbeat = plan_at(url, name)
    dataset = load_data(plan.base.task, data)
    check_data(plan, dataset)
    store = Store(place.store, create=True)
    display = RunsDisplay(trials * plan.seeds_per_trial)
    again = "the trials under way are back in the queue; the same command goes on"
    with interruptible(lambda: again), display:
        ended = distributed.work(
            url,
            plan,
            store,
            dataclasses.replace(
                execution, data=data, dataset=dataset, plugins=plugins, listener=display
            ),
            heartbeat=heartbeat,
            on_trouble=screen.note,
        )
    _report(plan, ended, display.trained, json=json)


def _report(plan: Plan, ended: list[FrozenTrial], trained: int, *, json: bool) -> None:
    from gclip.results.metric_text import score_with_unit
    from gclip.tuning.outcome import outcome_of
    from gclip.tuning.trials import no_best

    outcome = outcome_of(plan, ended)
    best, counts = outcome.best, outcome.counts
    if json:
        screen.echo_json(
            {
                "study": plan.name,
                **dataclasses.asdict(counts),
                "trained_here": trained,
                "score": outcome.score,
                "metric": outcome.metric.to_dict(),
                "trial": outcome.number,
                "best": None if best is None else {"strategy": best.strategy, "lr": best.lr},
            }
        )
    else:
        screen.echo(f"study {plan.name}: {counts}; {screen.plural(trained, 'run')} trained here")
        if best is None:
            screen.echo_wrapped(no_best(counts))
        else:
            screen.echo(
                f"best: {best.strategy} at lr {best.lr:g}, "
                f"{score_with_unit(outcome.metric, outcome.score)} validation "
                f"{outcome.metric.name} (trial {outcome.number})"
            )
    if best is None:
        raise typer.Exit(1)


def _command(name: str, url: URL, request: Request) -> str:
    """What to type on every machine."""
    from gclip.tuning.postgres import shown

    parts = ["gclip", "study", "work", name, "--storage", shown(url)]
    parts += ["--store", str(request.store)]
    execution = request.execution
    if execution.data is not None:
        parts += ["--data", str(execution.data)]
    for plugin in execution.plugins:
        parts += ["--plugin", str(plugin)]
    return shlex.join(parts)


def _asked(options: dict[str, Any], store: Path) -> tuple[ModuleType, Request]:
    """The study, and the same request as ``gclip study run`` makes of the same options."""
    from gclip import studies
    from gclip.tuning.study import Request

    strategies = options["strategy"]
    given = {
        "name": options["name"],
        "strategies": tuple(strategies) if strategies else None,
        **options["search"].given(),
    }
    command = combine(
        options["name_of_study"], given, options["run"], options["plugin"], None, options["file"]
    )
    study = studies.get(command.study)
    if not hasattr(study, "plans"):
        able = [name for name in studies.names() if hasattr(studies.get(name), "plans")]
        raise UsageError(
            f"the study {command.study} runs on one machine: gclip study run {command.study}; "
            f"the one for many machines is {' or '.join(able)}"
        )
    refuse_unused(command.study, command.request)
    plugins = load_plugins(list(command.plugins))
    base, _ = load_data(command.base(study), command.run.data)
    request = Request(
        **command.request,
        base=base,
        store=cast("Any", store),  # a plan is made without looking into one
        execution=Execution(data=command.run.data, plugins=plugins),
    )
    return study, request


def _like_run(command: Any) -> Any:
    """Give `command`, in place of its ``**options``, the options of ``gclip study run``."""
    own = inspect.signature(command, eval_str=True).parameters
    named = [each for each in own.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    of_run = inspect.signature(study_run.run).parameters
    borrowed = [
        each for name, each in of_run.items() if name not in _NOT_CREATED and name not in own
    ]

    def wrapped(**values: Any) -> Any:
        for name, group in (("run", Setting), ("search", Search)):
            fields = dataclasses.fields(group)
            values[name] = group(**{f.name: values.pop(f.name, f.default) for f in fields})
        return command(**values)

    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*named, *borrowed)]
    wrapped.__doc__ = command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped
