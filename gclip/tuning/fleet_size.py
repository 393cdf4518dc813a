"""How many trials of a study train as one fleet?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gclip.execution.execution import Execution
from gclip.execution.job import Job

if TYPE_CHECKING:
    from gclip.execution.fleet_sizing import Measure
    from gclip.tuning.plan import Plan

WAVES = 4
"""So many fleets for each worker are left at least, for the sake of those who learn from them."""


def fleet_size(
    plan: Plan,
    waiting: int,
    folder: Path,
    execution: Execution,
    measure: Measure,
    *,
    shared: bool = False,
) -> int:
    """The largest fleet; 1 for no fleets.

    Who proposes trials in the light of earlier ones, or gives up on those that are worse, needs
    some that have ended: then ``auto`` leaves at least `WAVES` fleets for each worker. So it does
    where other machines take from the same trials.

    Args:
        plan: of the study.
        waiting: trials that are still to be made.
        folder: where measurements are kept.
        execution: with the device chosen; its listener is told how it was decided.
        measure: `gclip.execution.pool.TrainingPool.measure`.
        shared: whether other machines make trials of the study too.
    """
    if execution.fleet == 1 or waiting < 1:
        return 1
    from gclip.execution import fleet_sizing

    examples = plan.examples(fleet_sizing.MANY)
    work = fleet_sizing.Workload(
        configs=examples,
        waiting=waiting,
        execution=execution,
        largest=max(1, waiting // (WAVES * execution.processes)) if plan.learns or shared else None,
        rounds=plan.seeds_per_trial,
    )
    return fleet_sizing.choose(work, folder, Job(0, examples[0]), measure)
