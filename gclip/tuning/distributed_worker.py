"""One of any number of processes, on any machines, that make the trials of a study.

A worker claims a trial, sends heartbeats while its runs train, and tells it. A trial whose worker
is silent fails and is queued again, by whoever finds it so. Everything that takes two steps (to
fail and to queue, to claim and to propose) is done by one process at a time, under a lock of the
database; what a killed process left half done, the next one finishes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING

from gclip.execution.events import Listener, ignore
from gclip.execution.job import Job
from gclip.execution.pool import Pool
from gclip.tuning.coordinator import Coordinator
from gclip.tuning.distributed_study import HEARTBEAT
from gclip.tuning.optuna_internals import stale_trial_ids
from gclip.tuning.plan import Plan
from gclip.tuning.postgres import study_lock
from gclip.tuning.study_trials import may_be_repeated
from gclip.tuning.trials import counted, superseded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

    from gclip.results import Store
    from gclip.training import Progress, RunResult

_LOST = "its worker was lost"


@dataclass
class DistributedWorker(Coordinator):
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
    _claimed: dict[int, int] = field(default_factory=dict)  # our trials: number to id
    _reported: set[int] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        plan: Plan,
        study: Study,
        storage: RDBStorage,
        store: Store,
        heartbeat: int = HEARTBEAT,
        listener: Listener = ignore,
    ) -> DistributedWorker:
        """A worker for the trials of `plan`."""
        like = plan.coordinator(study, store, listener)
        same = {name: getattr(like, name) for name in like.__dataclass_fields__ if name[0] != "_"}
        return cls(**same, storage=storage, heartbeat=heartbeat)

    def work(self, pool: Pool) -> None:
        """Make trials until all of the study have ended, here or elsewhere."""
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        self._configure(pool)
        try:
            with self._sending_heartbeats():
                self._work(pool)
        except KeyboardInterrupt:
            with suppress(SQLAlchemyError, OptunaError):  # else others find that we are silent
                self._release()
            raise

    def recover_lost(self) -> None:
        """Fail the trials of workers that are silent, and queue again what was lost."""
        from optuna.trial import TrialState

        with self._locked():
            stale = stale_trial_ids(self._database, self.study)
            for trial in self.trials.select():
                # What we train ourselves is not lost, however long we could not say so.
                if self.trials.id_of(trial.number) not in stale or trial.number in self._claimed:
                    continue
                with self._unless_ended(trial.number):
                    if "pruned_at" in trial.user_attrs:
                        self.trials.set_attrs(trial.number, status="pruned")
                        self.trials.set_state(trial.number, TrialState.PRUNED)
                    else:
                        self.trials.set_attrs(trial.number, message=_LOST)
                        self.trials.set_state(trial.number, TrialState.FAIL)
            for trial in self._lost_trials():
                self.trials.enqueue_again(trial, died=True)
        self._notify_of_others()

    def retry_failed(self) -> None:
        """Queue again the trials one of whose runs failed, here or elsewhere, as a command typed
        again does. Trials of workers that were lost have their own number of attempts."""
        with self._locked():
            for trial in self.trials.failed():
                if trial.user_attrs.get("status") == "failed":
                    self.trials.enqueue_again(trial, died=False)

    def _work(self, pool: Pool) -> None:
        last_look = 0.0
        while True:
            if time.monotonic() - last_look >= self.heartbeat:
                self.recover_lost()
                last_look = time.monotonic()
            while pool.free and self.trials.waiting():
                job = self._claim_next()
                if job is not None:
                    pool.submit(job)
            if self._open:
                for job, result in pool.wait():
                    next_job = self._handle_result(job, result)
                    if next_job is not None:
                        pool.submit(next_job)
                continue
            self.recover_lost()
            last_look = time.monotonic()
            if self.trials.waiting():
                continue
            if not self._has_unfinished():
                return
            time.sleep(min(1.0, self.heartbeat))  # another worker may die over the last trials

    def _claim_next(self) -> Job | None:
        """The first job of a waiting trial; None if there is none, or it ended without training."""
        with self._locked():
            for trial in self.trials.waiting():
                number = trial.number
                identity = self.trials.id_of(number)
                # First the heartbeat: no running trial is ever without, and so none is forgotten.
                self._database.record_heartbeat(identity)
                if not self.trials.claim(number):
                    continue
                self._claimed[number] = identity
                with self._unless_ended(number):
                    self.trials.set_attrs(number, worker=f"{socket.gethostname()}:{os.getpid()}")
                    job = self._begin(self._resume(number))
                    self._drop_ended()
                    return job
        return None

    def _handle_result(self, job: Job, result: RunResult) -> Job | None:
        next_job = None
        with self._unless_ended(job.index // self._runs_per_trial):
            next_job = super()._handle_result(job, result)
        self._drop_ended()
        return next_job

    def _should_continue(self, job: Job, progress: Progress) -> bool:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            return super()._should_continue(job, progress)
        except UpdateFinishedTrialError:  # another process ended it: no use in training on
            return False

    def _release(self) -> None:
        """Put our trials back into the queue, at no cost for its number of attempts."""
        from optuna.trial import TrialState

        with self._locked():
            for number in list(self._claimed):
                with self._unless_ended(number):
                    self.trials.set_attrs(number, message="the process that ran it was stopped")
                    self.trials.set_state(number, TrialState.FAIL)
                    self.trials.enqueue_again(self.trials.get(number), died=False)
                self._claimed.pop(number, None)

    def _lost_trials(self) -> list[FrozenTrial]:
        """Failed trials whose worker is to blame, and that nobody repeats yet."""
        from optuna.trial import TrialState

        replaced = superseded(self.study)
        return [
            trial
            for trial in self.trials.select(TrialState.FAIL)
            if trial.user_attrs.get("status") != "failed"
            and trial.number not in replaced
            and may_be_repeated(trial)
        ]

    def _has_unfinished(self) -> bool:
        from optuna.trial import TrialState

        unfinished = self.trials.select(TrialState.RUNNING, TrialState.WAITING)
        return bool(unfinished or self._lost_trials())

    def _drop_ended(self) -> None:
        """Stop the heartbeats of our trials that have ended."""
        for number in [each for each in self._claimed if each not in self._open]:
            del self._claimed[number]
            self._reported.add(number)
            self.told += 1

    @contextmanager
    def _unless_ended(self, number: int) -> Iterator[None]:
        """Pass over a trial that another process has ended meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            yield
        except (UpdateFinishedTrialError, ValueError):
            if not self.trials.get(number).state.is_finished():
                raise
            self._open.pop(number, None)
            self._claimed.pop(number, None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with study_lock(self._database, self.study.study_name):
            yield

    @contextmanager
    def _sending_heartbeats(self) -> Iterator[None]:
        """While inside, say that we are alive, for each of our trials."""
        stop = Flag()
        thread = Thread(target=self._send_heartbeats, args=(stop,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _send_heartbeats(self, stop: Flag) -> None:
        from optuna.exceptions import OptunaError
        from sqlalchemy.exc import SQLAlchemyError

        while not stop.wait(self.heartbeat):
            for identity in list(self._claimed.values()):
                # A server that does not answer is the other thread's to notice.
                with suppress(SQLAlchemyError, OptunaError):
                    self._database.record_heartbeat(identity)
        with suppress(SQLAlchemyError):
            self._database.remove_session()

    def _notify_of_others(self) -> None:
        """Tell the listener of the trials that ended elsewhere."""
        for trial in counted(self.study):
            if trial.number not in self._reported:
                self._reported.add(trial.number)
                self._notify_cached(trial)

    @property
    def _database(self) -> RDBStorage:
        if self.storage is None:
            raise RuntimeError("a worker is made with the storage of its study")
        return self.storage
