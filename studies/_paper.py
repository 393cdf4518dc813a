"""The sections of a paper's plan, trained: each is searched, reported and written down by itself.

A section goes on where it was left: what its store has is only read. Its answers are those of the
studies it is made of (`thresholds`, the report, `sensitivity` …), kept beside its runs.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gclip
from gclip import studies
from gclip.core.files import read_file
from gclip.errors import UsageError
from gclip.execution.run_all import train_missing
from gclip.results import Store
from gclip.studies import _report, thresholds
from gclip.studies._paper_plan import COMPARE, REPEATED, TUNING, Section
from gclip.studies._tuned import Tuned, tuned_in
from gclip.studies._words import order_of
from gclip.tuning.grid_answers import write_answer
from gclip.tuning.study import Answer, Request
from gclip.version import __version__

if TYPE_CHECKING:
    from gclip.execution.execution import Execution
    from gclip.training import RunConfig

RIVALS = ("none", "norm")
SOURCES = "sources.json"


def prepared(
    section: Section, of: Section | None, execution: Execution
) -> tuple[RunConfig, Execution]:
    """What the runs of a section have in common, and how they are trained, with its data.

    Args:
        section: of the plan.
        of: the one whose searches it repeats.
        execution: its `data` is the folder of those sections that need one.
    """
    from gclip.training import load_data, task_defaults

    run = dict((of or section).run)
    base = task_defaults(run.get("task", "digits")).replace(**run)
    folder = execution.data if (of or section).data else None
    dataset = load_data(base.task, folder)
    return base.with_data(dataset), dataclasses.replace(execution, data=folder, dataset=dataset)


def train(
    section: Section,
    sections: Sequence[Section],
    root: Path,
    execution: Execution,
    say: Callable[[str], None] = lambda _: None,
) -> list[Answer]:
    """Make what is missing of a section, and write down what it answers.

    Args:
        section: of the plan.
        sections: all of it.
        root: the folder of the stores.
        execution: how runs are trained; its `data` is the folder of CIFAR-10's images.
        say: is told what begins.
    """
    of = next((each for each in sections if each.name == section.of), None)
    store = Store(root / section.store, create=True)
    note_source(store.path)
    base, execution = prepared(section, of, execution)
    request = Request(base=base, store=store, execution=execution, sampler="qmc")
    if section.study == TUNING:
        say("searching")
        found = _search(section, request)
        say("reporting")
        return [*found, _reported(section, request, found[0].searches)]
    if section.study == REPEATED and of is not None:
        return _repeated(section, of, request, say)
    strategies = tuple(str(gclip.parse(text)) for text in section.strategies)
    if section.study == COMPARE:
        configs = [
            request.base.replace(strategy=text, seed=seed)
            for seed in range(section.seeds or 1)
            for text in strategies
        ]
        train_missing(configs, store, execution)
        return []
    seeds = None if section.seeds is None else tuple(range(section.seeds))
    request = dataclasses.replace(request, strategies=strategies, seeds=seeds, sampler="tpe")
    answer: Answer = studies.answered(studies.get(section.study), request)
    write_answer(section.study, request, answer, [], command(section))
    return [answer]


def _search(
    section: Section, request: Request, by: Section | None = None, **own: Any
) -> list[Answer]:
    strategies = own.get("strategies", section.strategies)
    names = {thresholds.single(text).name for text in strategies}
    space = {k: text for k, text in section.space.items() if k.partition(".")[0] in names}
    request = dataclasses.replace(
        request,
        **{
            "strategies": strategies,
            "trials": section.trials,
            "lr_range": section.lr_range,
            "space": space or None,
            "sampler": section.sampler,
            **own,
        },
    )
    answer: Answer = thresholds.run(request)
    write_answer("thresholds", request, answer, [], command(by or section))
    return [answer]


def _reported(section: Section, request: Request, searches: Sequence[str], seed: int = 0) -> Answer:
    """The winners of some searches on fresh seeds."""
    tuned = tuned_in(request.store.path, searches)
    seeds = None if section.seeds is None else tuple(range(section.seeds))
    strategies = tuple(each.strategy for each in tuned)
    request = dataclasses.replace(request, seeds=seeds, strategies=strategies, seed=seed)
    answer: Answer = _report.run(request, tuned)
    write_answer("report", request, answer, [], command(section))
    return answer


def _repeated(
    section: Section, of: Section, request: Request, say: Callable[[str], None]
) -> list[Answer]:
    first = tuned_in(request.store.path, [search_name(text, of) for text in of.strategies])
    finalists = finalists_of(first, section.finalists)
    answers: list[Answer] = []
    for seed in section.tuning_seeds:
        say(f"searching with tuning seed {seed}")
        found = _search(
            of, request, by=section, strategies=finalists, seed=seed, name=f"seed{seed}"
        )
        say(f"reporting tuning seed {seed}")
        answers += [*found, _reported(section, request, found[0].searches, seed)]
    return answers


def search_name(strategy: str, section: Section) -> str:
    """Of the first search of a strategy in a section."""
    from gclip.training import task_defaults

    base = task_defaults(str(section.run.get("task", "digits")))
    name: str = thresholds.default_name(thresholds.single(strategy), base)
    return name


def finalists_of(tuned: Sequence[Tuned], count: int) -> tuple[str, ...]:
    """The strategies whose best trial scored best on validation data, ``none`` and ``norm`` first.

    Args:
        tuned: what was tuned.
        count: how many beside these two.
    """
    ranked = sorted(
        (each for each in tuned if each.strategy not in RIVALS),
        key=lambda each: (order_of(each.score, each.plan.metric), each.strategy),
    )
    there = [each.strategy for each in tuned]
    rivals = [rival for rival in RIVALS if rival in there]
    return (*rivals, *(each.strategy for each in ranked[:count]))


def command(section: Section) -> str:
    """What makes it again."""
    return f"gclip paper train --section {section.name}"


def note_source(store: Path) -> None:
    """Add the version that trains now to those that a store was trained by."""
    path = store / SOURCES
    known = sources_of(store)
    now = source_now()
    if now in known:
        return
    try:
        path.write_text(json.dumps([*known, now], indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write '{path}': {error.strerror}") from error


def sources_of(store: Path) -> list[str]:
    """The versions that a store was trained by, the first first."""
    try:
        return [str(each) for each in json.loads(read_file(store / SOURCES))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UsageError(f"'{store / SOURCES}' cannot be read: {error}") from error


@functools.cache
def source_now() -> str:
    """The version of this code: gclip's own, and the commit where it is a clone of git.

    It is asked once: what a process has loaded stays, whatever becomes of the files.
    """
    here = Path(__file__).parent
    asked = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return f"gclip {__version__}"
    return f"gclip {__version__} {found.stdout.strip()}"
