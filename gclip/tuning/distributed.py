"""Work on a study of many machines until all its trials have ended, through a server's failures."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from gclip.errors import UsageError
from gclip.execution.execution import Execution
from gclip.execution.run_all import open_pool
from gclip.tuning.distributed_study import HEARTBEAT
from gclip.tuning.distributed_worker import DistributedWorker
from gclip.tuning.fleet_size import fleet_size
from gclip.tuning.plan import Plan
from gclip.tuning.postgres import Unreachable, cause, connect, find, shown
from gclip.tuning.trials import counted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from sqlalchemy import URL

    from gclip.results import Store

SILENT = 4
"""A worker that missed so many heartbeats is taken for dead."""


def work(
    url: URL,
    plan: Plan,
    store: Store,
    execution: Execution,
    *,
    heartbeat: int = HEARTBEAT,
    on_trouble: Callable[[str], None] = lambda _: None,
    patience: int = 8,
) -> list[FrozenTrial]:
    """Make trials of a study until all have ended, here or elsewhere; the trials as they ended.

    What had failed before is tried once more. On Ctrl-C the trials under way are put back into the
    queue. A server that goes away is waited for: about four minutes.

    Args:
        url: of the storage.
        plan: of `plan_at`.
        store: where results go.
        execution: how trials are trained here. Fleets of ``auto`` leave trials for other machines.
        heartbeat: of `plan_at`.
        on_trouble: is told when the server does not answer.
        patience: so often it is asked again, each time after twice as long.

    Raises:
        UsageError: the storage cannot be used, or not any more.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    execution = execution.resolved()
    failures, begun = 0, False
    while True:
        worker = None
        try:
            with connect(url, grace=SILENT * heartbeat) as storage:
                study = find(storage, url, plan.name)
                worker = DistributedWorker.of(
                    plan, study, storage, store, heartbeat, execution.listener
                )
                if not begun:  # not whenever the server comes back
                    worker.retry_failed()
                    begun = True
                with open_pool(store, execution) as pool:
                    waiting = len(worker.trials.waiting())
                    size = fleet_size(
                        plan, waiting, store.path, execution, pool.measure, shared=True
                    )
                    pool.resize(size)
                    worker.work(pool)
                    return counted(worker.study)
        except (SQLAlchemyError, StorageInternalError, Unreachable) as error:
            failures = 1 if worker is not None and worker.told else failures + 1
            said = str(error) if isinstance(error, Unreachable) else cause(_root(error))
            if failures > patience:
                raise UsageError(f"lost the storage {shown(url)}: {said}") from error
            wait = min(60, 2**failures)
            on_trouble(f"the storage does not answer, next try in {wait} s: {said}")
        time.sleep(wait)


def _root(error: BaseException) -> BaseException:
    """The database's own error under Optuna's."""
    while error.__cause__ is not None and not hasattr(error, "orig"):
        error = error.__cause__
    return error
