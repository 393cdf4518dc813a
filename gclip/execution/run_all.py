"""A list of runs, made as far as they are not in the store yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gclip.execution.events import Event, Listener, ignore
from gclip.execution.fleet_plan import FleetSize, read_fleet
from gclip.execution.job import Job
from gclip.execution.machine import workers_for
from gclip.execution.pool import InProcess, Processes, Training
from gclip.execution.worker import WorkerSettings

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.training import Dataset, RunConfig, RunResult


def open_pool(
    store: Store,
    *,
    workers: int,
    device: str = "cpu",
    data: str | Path | None = None,
    dataset: Dataset | None = None,
    plugins: Iterable[str | Path] = (),
    threads: int = 1,
    listener: Listener = ignore,
) -> Training:
    """The pool for `workers` runs at a time; one trains in this process. For fleets of runs see
    `Training.resize`."""
    settings = WorkerSettings(
        store=str(store.path.resolve()),
        device=device,
        data=None if data is None else str(data),
        plugins=tuple(str(plugin) for plugin in plugins),
        threads=threads,
    )
    if workers == 1:
        return InProcess(store, settings, listener, dataset)
    return Processes(store, settings, workers, listener)


def run_all(
    configs: Sequence[RunConfig],
    store: Store,
    *,
    workers: int | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    dataset: Dataset | None = None,
    plugins: Iterable[str | Path] = (),
    threads: int = 1,
    fleet: FleetSize = "off",
    on_event: Listener = ignore,
) -> list[RunResult]:
    """The result of every config, in their order; those that the store has are only read.

    Args:
        configs: the runs; a config that occurs twice is trained once.
        store: where results are read and kept. Failed runs in it are made again.
        workers: runs at a time, each in a process of its own if there is more than one.
            By default one a core, or one on a GPU.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: the folder of the task's images, where the task needs one.
        dataset: the task's images, if they are loaded already; worker processes load their own.
        plugins: files or modules for the workers to load strategies from. Load them in this
            process too, before the configs are made.
        threads: for the computations of each run. Pinned, because the last bits of a result
            depend on it.
        fleet: how many runs of one shape are trained as one program, at most; ``auto`` for what is
            measured to be the fastest (`gclip.execution.fleet_sizing`). The last bits of a result
            depend on it; with ``off`` they are those of `gclip.training.train`.
        on_event: is told everything that happens, in this thread.

    A run that raises has the status ``failed`` and a message; the others go on. Ctrl-C
    (``KeyboardInterrupt``) passes through; everything finished by then is in the store.
    """
    from gclip.training import resolve_device

    where, asked = str(resolve_device(device)), read_fleet(fleet)
    results: dict[str, RunResult] = {}
    todo: list[Job] = []
    for index, config in enumerate(configs):
        if config.key in results:
            continue
        if store.has(config.key):
            results[config.key] = store.load(config.key)
            on_event(Event(kind="cached", index=index, config=config, result=results[config.key]))
        elif all(job.config.key != config.key for job in todo):
            todo.append(Job(index, config))
    for job in todo:
        on_event(Event(kind="queued", index=job.index, config=job.config))
    if todo:
        count = min(workers_for(where, workers), len(todo))

        def note(message: str) -> None:
            first = todo[0]
            on_event(Event(kind="note", index=first.index, config=first.config, message=message))

        def doing(message: str) -> None:
            first = todo[0]
            on_event(Event(kind="doing", index=first.index, config=first.config, message=message))

        with open_pool(
            store,
            workers=count,
            device=where,
            data=data,
            dataset=dataset,
            plugins=plugins,
            threads=threads,
            listener=on_event,
        ) as pool:
            if asked != 1:
                from gclip.execution import fleet_sizing

                work = fleet_sizing.Workload(
                    configs=list(configs),
                    waiting=len(todo),
                    workers=count,
                    device=where,
                    threads=threads,
                    dataset=dataset,
                    data=data,
                )
                pool.resize(fleet_sizing.choose(asked, work, store.path, note, pool.measure, doing))
            pool.submit_all(todo)
            left = len(todo)
            while left:
                for job, result in pool.wait():
                    results[job.config.key] = result
                    left -= 1
    return [results[config.key] for config in configs]
