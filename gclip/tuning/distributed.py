"""A study on many machines: slots made once, and workers anywhere that fill them.

The study's budget is a row of waiting trials, so it is a total however many workers there are and
whichever of them die. A worker takes a trial, sends heartbeats while its runs train, and tells it.
A trial whose worker is silent fails and is queued again, by whoever finds it so. Everything that
takes two steps (to fail and to queue, to take and to propose) is done by one process at a time,
under a lock of the database; what a killed process left half done, the next one finishes.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.execution.events import Listener, ignore
from gclip.execution.execution import Execution
from gclip.execution.job import Job
from gclip.execution.pool import Pool
from gclip.execution.run_all import open_pool
from gclip.tuning.coordinator import Coordinator, may_be_repeated
from gclip.tuning.fleet_size import fleet_size
from gclip.tuning.plan import Plan
from gclip.tuning.postgres import Unreachable, alone, cause, connect, find, shown
from gclip.tuning.proposals import add_trial, free_places, originals
from gclip.tuning.sqlite import begin, check_name
from gclip.tuning.trials import counted, superseded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy import URL

    from gclip.results import Store
    from gclip.training import Dataset, Progress, RunResult

HEARTBEAT = 15
"""Seconds between two signs of life, unless a study was created with others."""

SILENT = 4
"""A worker that missed so many heartbeats is taken for dead."""

_BATCH = 100
_LOST = "its worker was lost"


@dataclass(frozen=True, kw_only=True)
class Created:
    """A study as `create` left it: all its trials to be, and how many of them are new."""

    name: str
    trials: int
    added: int


def create(url: URL, plan: Plan, trials: int, heartbeat: int | None = None) -> Created:
    """Begin the study of `plan`, or give it more trials; the same again changes nothing.

    Args:
        trials: in all, those that have ended included.
        heartbeat: seconds between a worker's signs of life; None: as before, or `HEARTBEAT`.

    Raises:
        UsageError: the storage cannot be used, or the study was begun with other settings.
    """
    check_name(plan.name)
    plan.check_trials(trials)
    if heartbeat is not None and heartbeat < 1:
        raise UsageError(f"heartbeat must be at least 1 second, but got {heartbeat}")
    added = 0
    with connect(url, create=True) as storage:
        while True:
            with alone(storage, plan.name):  # in batches, as a lock is not held for long
                study = begin(storage, plan.name, plan.settings, plan.objectives)
                if heartbeat is not None or "heartbeat" not in study.user_attrs:
                    study.set_user_attr("heartbeat", heartbeat or HEARTBEAT)
                everything = study.get_trials(deepcopy=False)
                there = len(originals(everything))
                for place in itertools.islice(
                    free_places(everything), max(0, min(_BATCH, trials - there))
                ):
                    add_trial(study, place)
                    added, there = added + 1, there + 1
            if there >= trials:
                return Created(name=plan.name, trials=there, added=added)


def plan_at(url: URL, name: str) -> tuple[Plan, int, int]:
    """The plan of a study in a storage, how many trials it has, and its heartbeat.

    Raises:
        UsageError: there is no such study, or this machine would train something else.
    """
    with connect(url) as storage:
        study = find(storage, url, name)
        settings = study.user_attrs.get("settings")
        if not isinstance(settings, dict) or "heartbeat" not in study.user_attrs:
            raise UsageError(
                f"the study {name!r} in {shown(url)} was not made by gclip study create"
            )
        count, heartbeat = (
            len(originals(study.get_trials(deepcopy=False))),
            int(study.user_attrs["heartbeat"]),
        )
    plan = Plan.of(name, settings)
    _check_code(plan)
    # Its trials were made by rules (of selection, of stepping) that are gone.
    if plan.settings != settings or plan.base != plan.base.replace(selection=None, stepping=None):
        raise UsageError(
            f"the study {name!r} was created by another version of gclip; "
            "install the same one on every machine"
        )
    return plan, count, heartbeat


def check_data(plan: Plan, dataset: Dataset) -> None:
    """Raises `UsageError` if a node's images are not those that the study was created with."""
    if dataset.identity != plan.base.data:
        raise UsageError(
            f"the images here ({dataset.identity or 'embedded'}) are not those that the study "
            f"{plan.name!r} was created with ({plan.base.data or 'embedded'}); see --data"
        )


def work(
    url: URL,
    plan: Plan,
    store: Store,
    execution: Execution,
    *,
    heartbeat: int = HEARTBEAT,
    on_trouble: Callable[[str], None] = lambda message: None,
    patience: int = 8,
) -> list[FrozenTrial]:
    """Make trials of a study until all have ended, here or elsewhere; the trials as they ended.

    On Ctrl-C the trials under way are put back into the queue. A server that goes away is waited
    for: about four minutes.

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
    failures = 0
    while True:
        worker = None
        try:
            with connect(url, grace=SILENT * heartbeat) as storage:
                study = find(storage, url, plan.name)
                worker = Worker.of(plan, study, storage, store, heartbeat, execution.listener)
                with open_pool(store, execution) as pool:
                    waiting = len(worker.waiting())
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


@dataclass
class Worker(Coordinator):
    """One of any number of processes that make the trials of a study.

    A trial that was taken from this worker (it was silent for too long) is dropped: the storage
    refuses to change what has ended, and the results stay in the store for who repeats it.

    Attributes:
        storage: of the study, with a grace period.
        heartbeat: seconds.
        told: how many trials ended here.
    """

    storage: RDBStorage | None = None
    heartbeat: int = HEARTBEAT
    told: int = 0
    _taken: dict[int, int] = field(default_factory=dict)  # trials in our hands: number to id
    _seen: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        plan: Plan,
        study: Study,
        storage: RDBStorage,
        store: Store,
        heartbeat: int = HEARTBEAT,
        listener: Listener = ignore,
    ) -> Worker:
        """A worker for the trials of `plan`."""
        like = plan.coordinator(study, store, listener)
        same = {name: getattr(like, name) for name in like.__dataclass_fields__ if name[0] != "_"}
        return cls(**same, storage=storage, heartbeat=heartbeat)

    def work(self, pool: Pool) -> None:
        """Make trials until all of the study have ended, here or elsewhere."""
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        self._hire(pool)
        try:
            with self._beating():
                self._work(pool)
        except KeyboardInterrupt:
            with suppress(SQLAlchemyError, OptunaError):  # else others find that we are silent
                self._put_back()
            raise

    def settle(self) -> None:
        """Fail the trials of workers that are silent, and queue again what was lost."""
        from optuna.trial import TrialState

        with self._alone():
            stale = {*self._database._get_stale_trial_ids(self.study._study_id)}
            trials = self.study.get_trials(deepcopy=False)
            for trial in trials:
                # What we hold ourselves is not lost, however long we could not say so.
                if trial._trial_id not in stale or trial.number in self._taken:
                    continue
                with self._unless_ended(trial.number):
                    if "pruned_at" in trial.user_attrs:
                        self._note(trial.number, status="pruned")
                        self._end(trial.number, TrialState.PRUNED)
                    else:
                        self._note(trial.number, message=_LOST)
                        self._end(trial.number, TrialState.FAIL)
            for trial in self._lost():
                self._queue(trial, died=True)
        self._say_others()

    def _work(self, pool: Pool) -> None:
        looked = 0.0
        while True:
            if time.monotonic() - looked >= self.heartbeat:
                self.settle()
                looked = time.monotonic()
            while pool.free and self.waiting():
                job = self._take_up()
                if job is not None:
                    pool.submit(job)
            if self._open:
                for job, result in pool.wait():
                    further = self._take(job, result)
                    if further is not None:
                        pool.submit(further)
                continue
            self.settle()
            looked = time.monotonic()
            if self.waiting():
                continue
            if not self._under_way():
                return
            time.sleep(min(1.0, self.heartbeat))  # another worker may die over the last trials

    def _take_up(self) -> Job | None:
        """The first job of a waiting trial; None if there is none, or it ended without training."""
        with self._alone():
            for trial in self.waiting():
                number, identity = trial.number, trial._trial_id
                # First the heartbeat: no running trial is ever without, and so none is forgotten.
                self._database.record_heartbeat(identity)
                if not self._claim(identity):
                    continue
                self._taken[number] = identity
                with self._unless_ended(number):
                    self._note(number, worker=f"{socket.gethostname()}:{os.getpid()}")
                    job = self._begin(self._taken_up(trial))
                    self._drop_ended()
                    return job
        return None

    def _take(self, job: Job, result: RunResult) -> Job | None:
        further = None
        with self._unless_ended(job.index // self._runs):
            further = super()._take(job, result)
        self._drop_ended()
        return further

    def _should_continue(self, job: Job, progress: Progress) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return super()._should_continue(job, progress)
        except UpdateFinishedTrialError:  # another process ended it: no use in training on
            return False

    def _put_back(self) -> None:
        """Give what we hold back into the queue, at no cost for its number of attempts."""
        from optuna.trial import TrialState

        with self._alone():
            for number in list(self._taken):
                with self._unless_ended(number):
                    self._note(number, message="the process that ran it was stopped")
                    self._end(number, TrialState.FAIL)
                    self._queue(self._frozen(number), died=False)
                self._taken.pop(number, None)

    def _lost(self) -> list[FrozenTrial]:
        """Failed trials whose worker is to blame, and that nobody repeats yet."""
        from optuna.trial import TrialState

        gone = superseded(self.study)
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
            if trial.user_attrs.get("status") != "failed"
            and trial.number not in gone
            and may_be_repeated(trial)
        ]

    def _under_way(self) -> bool:
        from optuna.trial import TrialState

        states = (TrialState.RUNNING, TrialState.WAITING)
        return bool(self.study.get_trials(deepcopy=False, states=states) or self._lost())

    def _end(self, number: int, state: Any) -> None:
        self.study._storage.set_trial_state_values(self._identity(number), state)

    def _drop_ended(self) -> None:
        """Stop the heartbeats of trials that have ended in our hands."""
        for number in [each for each in self._taken if each not in self._open]:
            del self._taken[number]
            self._seen.add(number)
            self.told += 1

    @contextmanager
    def _unless_ended(self, number: int) -> Iterator[None]:
        """Pass over a trial that another process has ended meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            yield
        except (UpdateFinishedTrialError, ValueError):
            if not self._frozen(number).state.is_finished():
                raise
            self._open.pop(number, None)
            self._taken.pop(number, None)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with alone(self._database, self.study.study_name):
            yield

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """While inside, say that we are alive, for every trial in our hands."""
        stop = Flag()
        thread = Thread(target=self._beat, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _beat(self, stop: Flag) -> None:
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        while not stop.wait(self.heartbeat):
            for identity in list(self._taken.values()):
                # A server that does not answer is the other thread's to notice.
                with suppress(SQLAlchemyError, OptunaError):
                    self._database.record_heartbeat(identity)
        with suppress(SQLAlchemyError):
            self._database.remove_session()

    def _say_others(self) -> None:
        """Tell the listener of the trials that ended elsewhere."""
        from gclip.training import RunConfig

        for trial in counted(self.study):
            if trial.number in self._seen or "config" not in trial.user_attrs:
                continue
            self._seen.add(trial.number)
            config = RunConfig.of(trial.user_attrs["config"])
            for place in range(self._runs):
                self._say("cached", Job(self._index(trial.number) + place, config))

    @property
    def _database(self) -> RDBStorage:
        if self.storage is None:
            raise RuntimeError("a Worker is made with the storage of its study")
        return self.storage


def _check_code(plan: Plan) -> None:
    from gclip.core.digest import code_digest

    strategy = plan.space.strategy
    if plan.base.code and code_digest(strategy) != plan.base.code:
        raise UsageError(
            f"the code of {strategy.name} here is not the one that the study {plan.name!r} was "
            "created with; install the same gclip and plugins on every machine"
        )


def _root(error: BaseException) -> BaseException:
    """The database's own error under Optuna's."""
    while error.__cause__ is not None and not hasattr(error, "orig"):
        error = error.__cause__
    return error
