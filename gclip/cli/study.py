"""``gclip study``: experiments that search, and those that were begun."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.app import App
from gclip.cli.interrupts import interruptible
from gclip.cli.options import (
    FiguresFolder,
    Fleet,
    Json,
    Place,
    Plugins,
    Setting,
    StoreFolder,
    Workers,
    expand,
    load_data,
    load_plugins,
    parse_seeds,
)
from gclip.errors import UsageError
from gclip.execution.fleet_plan import read_fleet
from gclip.execution.progress import RunsDisplay
from gclip.text import screen
from gclip.text.progress import load
from gclip.text.table import Column, TextTable

if TYPE_CHECKING:
    from types import ModuleType

    from gclip.execution import Event
    from gclip.training import RunConfig
    from gclip.tuning.study import Answer, Request
    from gclip.tuning.study_file import StudyFile

app = App(no_args_is_help=True, help="Tune strategies with Optuna, and look at studies.")

COMMANDS = ("study_work", "study_report")
"""The modules beside this one that add further commands to the group."""

_SEARCH = "How it searches"
OPTIONS = {
    "trials": "--trials",
    "seeds": "--seeds",
    "lr_range": "--lr-range",
    "fixed_lr": "--fixed-lr",
    "space": "--space",
    "sampler": "--sampler",
    "pruner": "--pruner",
    "seeds_per_trial": "--seeds-per-trial",
    "objectives": "--objective",
    "points": "--points",
}
"""Fields of a request that not every study uses, and the options that set them."""


def _search(*names: str, help: str, default: str, of: str = "", metavar: str | None = None) -> Any:
    """An option of how studies search; `of` names those that use it, where not all do."""
    text = f"{help} For {of}." if of else help
    return typer.Option(
        *names, help=text, metavar=metavar, rich_help_panel=_SEARCH, show_default=default
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line and the study file say, put together."""

    study: str
    settings: dict[str, Any]
    run: Setting
    more: dict[str, Any]
    plugins: tuple[str, ...]
    workers: int | None
    fleet: int | str


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
        "lr_range": _lr_range(lr_range),
        "fixed_lr": fixed_lr or None,
        "space": parse_space(space) if space else None,
        "sampler": sampler,
        "pruner": pruner,
        "seeds_per_trial": seeds_per_trial,
        "objectives": tuple(objective) if objective else None,
        "points": points,
        "seed": seed,
    }
    given = _together(name_of_study, options, run, plugin, workers, file)
    together = read_fleet(given.fleet if fleet is None else fleet)
    study = studies.get(given.study)
    _refuse_unused(given.study, given.settings)
    plugins = load_plugins(list(given.plugins))
    base, dataset = load_data(_setting(study, given), given.run.data)
    request = Request(
        **given.settings,
        base=base,
        store=Store(place.store, create=True),
        workers=given.workers,
        device=place.device,
        data=given.run.data,
        dataset=dataset,
        plugins=plugins,
        threads=place.threads,
        fleet=together,
    )
    answer, drawn = _answer(study, request, out or place.store / "figures")
    if "trials" not in studies.uses(given.study):  # trials are kept by Optuna
        keep(given.study, request, answer, drawn)
    if json:
        screen.say_json(
            {
                "study": given.study,
                "rows": answer.rows,
                "notes": [note for note in answer.notes if note],
                "figures": [str(path) for path in drawn],
                **answer.more,
            }
        )
    else:
        _print(answer, drawn)
    if not answer.ok:
        raise typer.Exit(1)


@app.command("list")
def list_studies(store: StoreFolder = Path("runs"), json: Json = False) -> None:
    """List the studies that can be run, and those that a store holds with their best trials.

    \b
    Examples:
      gclip study list
      gclip study list --store runs --json
    """
    load("torch", "optuna")
    from gclip import studies
    from gclip.tuning.answers import answers_in
    from gclip.tuning.sqlite import UnreadableStudy, studies_in, summary

    known = [{"study": name, "question": studies.question(name)} for name in studies.names()]
    begun, left_out = [], []
    for path in studies_in(store).values():
        try:
            begun.append(summary(path))
        except UnreadableStudy as error:
            left_out.append(str(error))
            screen.note(f"gclip: left out: {error}")
    answers = answers_in(store)
    for message in answers.unreadable:
        left_out.append(message)
        screen.note(f"gclip: left out: {message}")
    if json:
        screen.say_json(
            {
                "studies": known,
                "begun": begun,
                "answered": list(answers.found),
                "left_out": left_out,
            }
        )
        return
    questions = TextTable(
        columns=[Column(heading="study", words=True), Column(heading="question", words=True)]
    )
    for each in known:
        questions.add(each["study"], each["question"])
    screen.show(questions)
    if not begun and not answers.found:
        screen.tell(f"\nNone was begun in {store}.")
    if begun:
        _show_begun(store, begun)
    if answers.found:
        _show_answered(store, answers.found)


def _show_begun(store: Path, begun: Sequence[Mapping[str, Any]]) -> None:
    from gclip.tuning.sqlite_file import printable

    screen.say(f"\nBegun in {store}:")
    table = TextTable(
        columns=[
            Column(heading="name", words=True),
            *(Column(heading=heading) for heading in ("trials", "pruned", "failed", "best")),
            Column(heading="with", words=True),
        ]
    )
    for found in begun:
        table.add(
            printable(found["name"]),
            *(str(found[key]) for key in ("trials", "pruned", "failed")),
            f"{screen.percent(found['score'])} %",
            printable(found["best"] or "–"),
        )
    screen.show(table)


def _show_answered(store: Path, answered: Sequence[Mapping[str, Any]]) -> None:
    """Studies without trials: their runs are in the store, the same command shows them again."""
    from gclip.cli.compare import describe
    from gclip.training import RunConfig

    screen.say(f"\nAnswered in {store}; the same command shows it again:")
    table = TextTable(
        columns=[
            Column(heading="study", words=True),
            Column(heading="strategies", words=True),
            Column(heading="setting", words=True),
            Column(heading="rows"),
            Column(heading="date"),
        ]
    )
    for each in answered:
        table.add(
            each["study"],
            ", ".join(each["strategies"]) or "–",
            describe(RunConfig.of(each["setting"])),
            str(each["rows"]),
            each["date"][:10],
        )
    screen.show(table)


class _Growing(RunsDisplay):
    """A display whose total is what it was told of so far."""

    def __call__(self, event: Event) -> None:
        if event.kind in ("queued", "cached"):
            self.total += 1
        super().__call__(event)


def _setting(study: ModuleType, given: Given) -> RunConfig:
    """What is trained: as asked, then as the study wants it for the task, then the defaults.

    A study's own settings (`SETTINGS`, by task) are for the task's own recipe and optimizer.
    """
    run = given.run
    own: dict[str, Any] = getattr(study, "SETTINGS", {}).get(run.task or "digits", {})
    if run.recipe is not None or run.optimizer is not None:
        own = {}
    asked = {name for name in own if getattr(run, name, None) is not None}
    return run.config(**{k: v for k, v in own.items() if k not in asked}, **given.more)


def _answer(study: ModuleType, request: Request, out: Path) -> tuple[Answer, list[Path]]:
    """Run a study under the eyes of a display, and draw its figures."""
    from gclip import figures, studies
    from gclip.figures._style import theme

    count = study.run_count(request) if hasattr(study, "run_count") else None
    then = "the answer and its figures"
    display = _Growing(then=then) if count is None else RunsDisplay(count, then=then)

    def kept() -> str:
        where = request.store.path
        return f"the runs that ended are kept in {where}; the same command goes on"

    with interruptible(kept), display:
        answer = studies.answered(study, dataclasses.replace(request, on_event=display))
        drawn = []
        for name, draw in answer.figures.items():
            display.doing(f"drawing {name}")
            with theme():
                figure = draw()
            drawn += [figures.save(figure, out / f"{name}.{kind}") for kind in ("png", "svg")]
    return answer, drawn


def _print(answer: Answer, drawn: list[Path]) -> None:
    if answer.rows:
        columns = [
            Column(heading=heading, words=any(_is_word(row.get(key)) for row in answer.rows))
            for heading, key in answer.columns.items()
        ]
        table = TextTable(columns=columns)
        for row in answer.rows:
            table.add(*(_cell(row.get(key)) for key in answer.columns.values()))
        screen.show(table)
        if answer.notes:
            screen.say()
    for note in answer.notes:
        screen.tell(note)
    if drawn:
        names = ", ".join(dict.fromkeys(path.stem for path in drawn))
        screen.tell(f"figures in {drawn[0].parent} (PNG and SVG): {names}")


def _is_word(value: Any) -> bool:
    """A text with no figure in front: it belongs on the left of its column. A dash is none."""
    text = value.lstrip("+-×<>–").lstrip() if isinstance(value, str) else ""
    return bool(text) and not text[0].isdigit()


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _together(
    study: str | None,
    options: dict[str, Any],
    run: Setting,
    plugin: list[str] | None,
    workers: int | None,
    file: Path | None,
) -> Given:
    """The options over the study file's settings, what neither says left out."""
    from gclip.tuning.study_file import StudyFile, read_study_file

    said = StudyFile() if file is None else read_study_file(file)
    settings = {name: value for name, value in options.items() if value is not None}
    found = {**_without_contradicted(said, settings), **settings}
    if said.space:
        found["space"] = {**said.space, **settings.get("space", {})}
    written = found.pop("study", None)
    chosen = study or written
    if chosen is None:
        raise UsageError(
            "which study? gclip study run STUDY, or study = … in a --file; "
            "gclip study list names them"
        )
    own = {f.name for f in dataclasses.fields(Setting)}
    runs = {name: value for name, value in said.run.items() if name in own}
    if "data" in runs:
        runs["data"] = Path(str(runs["data"]))
    runs |= {name: getattr(run, name) for name in own if getattr(run, name) is not None}
    return Given(
        study=chosen,
        run=Setting(**runs),
        more={name: value for name, value in said.run.items() if name not in own},
        plugins=tuple(plugin or found.pop("plugins", ())),
        workers=workers if workers is not None else found.pop("workers", None),
        fleet=found.pop("fleet", "auto"),
        settings={k: v for k, v in found.items() if k not in ("plugins", "workers")},
    )


def _without_contradicted(said: StudyFile, settings: dict[str, Any]) -> dict[str, Any]:
    """The file's settings, but what is about the learning rate where an option is, too."""
    about = ("lr_range", "fixed_lr")
    asked = any(name in settings for name in about)
    return {k: v for k, v in said.settings.items() if not (asked and k in about)}


def _refuse_unused(name: str, settings: dict[str, Any]) -> None:
    """An error for a setting that the study would ignore."""
    from gclip import studies

    for field, option in OPTIONS.items():
        if field not in settings or field in studies.uses(name):
            continue
        others = [each for each in studies.names() if field in studies.uses(each)]
        where = f" (studies that do: {', '.join(others)})" if others else ""
        raise UsageError(f"the study {name} does not use {option}; leave it out{where}")


def _lr_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--lr-range takes LOW,HIGH such as 0.001,0.5, but got {text!r}") from None
    return low, high


for _name in COMMANDS:
    if importlib.util.find_spec(f"gclip.cli.{_name}") is not None:
        importlib.import_module(f"gclip.cli.{_name}").add_to(app)
