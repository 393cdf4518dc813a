"""``gclip paper``: the comparison whose numbers README and docs show, trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli import paper_record
from gclip.cli.app import App
from gclip.cli.interrupts import going_on, interruptible
from gclip.cli.options import Fleet, Json, KeptPlace, Workers, expand
from gclip.cli.paper_record import STORES, PlanFile, Sections, StoresFolder
from gclip.execution.progress import RunsDisplay
from gclip.text import screen
from gclip.text.progress import load

if TYPE_CHECKING:
    from gclip.execution import Event

FLEET = "30"
"""One for all sections: the last bits of a result depend on it."""

app = App(help="The comparison that README and docs show: train it, record it, draw it.")

paper_record.add_to(app)


def app_for(_: Sequence[str]) -> App:
    """All its commands."""
    return app


class _Display(RunsDisplay):
    """A display that learns how many runs there are from the runs themselves."""

    def __call__(self, event: Event) -> None:
        if event.kind in ("queued", "cached"):
            self.total += 1
        super().__call__(event)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place(KeptPlace):
    """As of all commands that train, with stores of its own."""

    store: StoresFolder = STORES


@app.command("train")
@expand
def train(
    place: Place,
    plan: PlanFile = None,
    section: Sections = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder of the images of CIFAR-10.",
            show_default="they are downloaded",
        ),
    ] = None,
    workers: Workers = 1,
    fleet: Fleet = FLEET,
    json: Json = False,
) -> None:
    """Train the sections of the plan, as far as they are not trained.

    The same command again goes on, after a Ctrl-C or a kill, too.

    \b
    Examples:
      gclip paper train
      gclip paper train --section digits --section gan-digits
      gclip paper train --data DIR --store build/paper
    """
    place.alone()
    load("torch", "optuna")
    from gclip.studies import _paper, _paper_plan

    sections = _paper_plan.read_plan(plan or _paper_plan.PLAN)
    wanted = _paper_plan.chosen(sections, section or ())
    execution = place.execution(workers, fleet)
    told: list[dict[str, Any]] = []
    for each in wanted:
        display = _Display(0, then=f"the section {each.name}")
        with interruptible(lambda: _kept(place.store)), display:
            how = dataclasses.replace(execution, data=data, listener=display)

            def say(text: str, name: str = each.name, shown: _Display = display) -> None:
                shown.doing(f"{name}: {text}")

            answers = _paper.train(each, sections, place.store, how, say)
        told.append({"section": each.name, "answers": len(answers), "trained": display.trained})
        if not json:
            screen.echo(f"{each.name}: {screen.plural(display.trained, 'run')} trained")
    if json:
        screen.echo_json({"sections": told})


def _kept(store: Path) -> str:
    return f"the runs that ended are kept in {store}; the same command goes on{going_on(store)}"
