"""How many trials of a study train as one fleet?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gclip.execution.events import Event, Listener

if TYPE_CHECKING:
    from gclip.execution.fleet_sizing import Measure
    from gclip.training import Dataset
    from gclip.tuning.plan import Plan

WAVES = 4
"""So many fleets for each worker are left at least, for the sake of those who learn from them."""


def fleet_size(
    asked: int | Literal["auto"],
    plan: Plan,
    waiting: int,
    folder: Path,
    *,
    workers: int,
    device: str,
    threads: int = 1,
    dataset: Dataset | None = None,
    data: str | Path | None = None,
    shared: bool = False,
    listener: Listener,
    by: Measure | None = None,
) -> int:
    """The largest fleet; 1 for no fleets.

    Who proposes trials in the light of earlier ones, or gives up on those that are worse, needs
    some that have ended: then ``auto`` leaves at least `WAVES` fleets for each worker. So it does
    where other machines take from the same trials.

    Args:
        asked: a number, or ``auto`` for what is measured to be the fastest.
        waiting: trials that are still to be made.
        folder: where measurements are kept.
        shared: whether other machines make trials of the study too.
        listener: is told how it was decided.
        by: who measures: `gclip.execution.pool.Training.measure`.
        workers, device, threads, dataset, data: as `gclip.execution.run_all`.
    """
    if asked == 1 or waiting < 1:
        return 1
    from gclip.execution import fleet_sizing

    learns = plan.sampler not in ("random", "qmc", "grid") or plan.pruner != "none"
    examples = plan.examples(fleet_sizing.MANY)

    def note(message: str) -> None:
        first = examples[0]
        listener(Event(kind="note", index=0, config=first, message=message))

    def doing(message: str) -> None:
        listener(Event(kind="doing", index=0, config=examples[0], message=message))

    work = fleet_sizing.Workload(
        configs=examples,
        waiting=waiting,
        workers=workers,
        most=max(1, waiting // (WAVES * workers)) if learns or shared else None,
        rounds=plan.seeds_per_trial,
        device=device,
        threads=threads,
        dataset=dataset,
        data=data,
    )
    return fleet_sizing.choose(asked, work, folder, note, by, doing)
