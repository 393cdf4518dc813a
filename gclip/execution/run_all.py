"""A list of runs, made as far as they are not in the store yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.execution.events import Event, Listener, ignore
from gclip.execution.execution import CHECKPOINT_EVERY, Execution
from gclip.execution.fleet_plan import FleetSize
from gclip.execution.in_process import InProcess
from gclip.execution.job import Job
from gclip.execution.pool import TrainingPool
from gclip.execution.processes import Processes
from gclip.results.checkpoints import Checkpoints
from gclip.results.reading import reading_once

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.training import Dataset, ProblemData, RunConfig, RunResult


def open_pool(store: Store, execution: Execution) -> TrainingPool:
    """The pool for these workers; one trains in this process. The device must be chosen
    (`Execution.resolved`)."""
    return (InProcess if execution.processes == 1 else Processes)(store, execution)


def run_all(
    configs: Sequence[RunConfig],
    store: Store,
    *,
    workers: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    dataset: Dataset | ProblemData | None = None,
    plugins: Iterable[str | Path] = (),
    threads: int = 1,
    fleet: FleetSize = "off",
    checkpoint_every: float | None = CHECKPOINT_EVERY,
    on_event: Listener = ignore,
) -> list[RunResult]:
    """The result of every config, in their order; those that the store has are only read.

    Args:
        configs: the runs; a config that occurs twice is trained once.
        store: where results are read and kept. Failed runs in it are made again.
        workers: runs at a time, each in a process of its own if there is more than one.
            By default one a core, or one on a GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: the folder of the task's data, where the task needs one.
        dataset: the task's data, if it is loaded already; worker processes load their own.
        plugins: files or modules for the workers to load strategies, problems and models from.
            Load them in this process too, before the configs are made.
        threads: for the computations of each run. Pinned, because the last bits of a result
            depend on it.
        fleet: how many runs of one shape are trained as one program, at most; ``auto`` for what is
            measured to be the fastest (`gclip.execution.fleet_sizing`). The last bits of a result
            depend on it; with ``off`` they are those of `gclip.training.train`.
        checkpoint_every: seconds of training between two checkpoints in the store's folder
            ``checkpoints``, from which a run that was stopped goes on to the same bits; 0 for one
            at every epoch's end, None for none.
        on_event: is told everything that happens, in this thread.

    A run that raises has the status ``failed`` and a message; the others go on. Ctrl-C
    (``KeyboardInterrupt``) passes through; everything finished by then is in the store.
    """
    execution = Execution(
        workers=workers,
        device=device,
        data=data,
        dataset=dataset,
        plugins=tuple(plugins),
        threads=threads,
        fleet=fleet,
        checkpoint_every=checkpoint_every,
        listener=on_event,
    )
    return train_missing(configs, store, execution)


@reading_once()
def train_missing(
    configs: Sequence[RunConfig], store: Store, execution: Execution
) -> list[RunResult]:
    """As `run_all`, with everything about how they are trained in one value."""
    tell = execution.listener
    execution = execution.resolved()
    results: dict[str, RunResult] = {}
    jobs: dict[str, Job] = {}
    for index, config in enumerate(configs):
        if config.key in results or config.key in jobs:
            continue
        if store.has(config.key):
            results[config.key] = store.load(config.key)
            tell(Event(kind="cached", index=index, config=config, result=results[config.key]))
        else:
            jobs[config.key] = Job(index, config)
    if results:
        Checkpoints(store).drop_ended(results)
    missing = list(jobs.values())
    for job in missing:
        tell(Event(kind="queued", index=job.index, config=job.config))
    if missing:
        execution = execution.resolved(most=len(missing))
        with open_pool(store, execution) as pool:
            if execution.fleet != 1:
                from gclip.execution import fleet_sizing

                work = fleet_sizing.Workload(
                    configs=list(configs), waiting=len(missing), execution=execution
                )
                pool.resize(fleet_sizing.choose(work, store.path, missing[0], pool.measure))
            pool.expect([job.config.key for job in missing])
            pool.submit_all(missing)
            left = len(missing)
            while left:
                ended = pool.wait()
                results |= {job.config.key: result for job, result in ended}
                left -= len(ended)
    return [results[config.key] for config in configs]
