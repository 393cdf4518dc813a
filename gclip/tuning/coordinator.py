"""One process owns an Optuna study; workers train its trials and leave their results in the store.

Nothing but the coordinator touches the study's storage, and a trial's configs are written into it
before the trial trains. So any process may be killed at any moment: on the next start a trial that
was under way is told from its stored results, or given up and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.execution.events import Event, Kind, Listener, ignore
from gclip.execution.job import Job
from gclip.execution.pool import Pool
from gclip.tuning.objectives import values_of
from gclip.tuning.proposals import add_trial, free_places, place_of
from gclip.tuning.sqlite import begin as begin
from gclip.tuning.sqlite import find_study as find_study
from gclip.tuning.sqlite import open_study as open_study
from gclip.tuning.sqlite import read_study as read_study
from gclip.tuning.sqlite import studies_in as studies_in
from gclip.tuning.sqlite import study_file as study_file
from gclip.tuning.sqlite import summary as summary
from gclip.tuning.trials import complete as complete
from gclip.tuning.trials import counted as counted
from gclip.tuning.trials import superseded as superseded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from gclip.results import Store
    from gclip.training import Progress, RunConfig, RunResult

MAX_ATTEMPTS = 3
"""A trial whose coordinator died this often while it trained has failed: perhaps it killed it."""

WORKERS_LOST = 6
"""A run that loses so many workers has failed."""

_ENDED = "the process that ran it ended"


@dataclass
class _Open:
    """A trial under way: its runs, one seed after the other, and what came of them so far."""

    number: int
    configs: list[RunConfig]
    results: list[RunResult] = field(default_factory=list)


@dataclass
class Coordinator:
    """Asks, lets train, and tells, until a study has a total number of trials.

    Attributes:
        study: owned by this process alone.
        store: where results are.
        propose: suggests parameters on a trial and makes the config of its first run of them.
        sampler: makes the sampler for the trial at a place; see `gclip.tuning.proposals`.
        pruner: is asked whether a trial is worth its next epoch, or its next seed; None: always.
        prune_seeds: the pruner compares the trials seed by seed, not epoch by epoch.
        seeds: the training seeds of a trial's runs; None for the one of its config.
        objectives: what a trial is told with.
        listener: is told what happens. An event's index is its trial's number, times the number
            of seeds, plus the seed's place.
    """

    study: Study
    store: Store
    propose: Callable[[Trial], RunConfig]
    sampler: Callable[[int], BaseSampler]
    pruner: BasePruner | None = None
    prune_seeds: bool = False
    seeds: Sequence[int] | None = None
    objectives: Sequence[str] = ("accuracy",)
    listener: Listener = ignore
    _open: dict[int, _Open] = field(default_factory=dict)

    def run(self, pool: Pool, total: int) -> None:
        """Go on until `total` trials have ended, those of earlier commands among them.

        On Ctrl-C the trials under way are put back into the queue.
        """
        from gclip.training import RunConfig

        self._hire(pool)
        self.recover()
        earlier = counted(self.study)
        for trial in earlier:
            if "config" in trial.user_attrs:
                config = RunConfig.of(trial.user_attrs["config"])
                for place in range(self._runs):
                    self._say("cached", Job(self._index(trial.number) + place, config))
        ended = len(earlier)
        try:
            while True:
                while pool.free and ended + len(self._open) < total:
                    job = self._ask()
                    if job is None:
                        ended += 1
                    else:
                        pool.submit(job)
                if not self._open:
                    return
                for job, result in pool.wait():
                    further = self._take(job, result)
                    if further is None:
                        ended += 1
                    else:
                        pool.submit(further)
        except KeyboardInterrupt:
            for trial in self._running():
                self._settle(trial, died=False)
            raise

    def _hire(self, pool: Pool) -> None:
        """Make `pool` one whose runs this process decides about."""
        pool.attempts = WORKERS_LOST
        if self.pruner is not None:
            self.study.pruner = self.pruner
            pool.should_continue = None if self.prune_seeds else self._should_continue

    def recover(self) -> None:
        """Settle the trials that were under way when the last coordinator ended."""
        self.study.sampler = self.sampler(0)
        for trial in self._running():
            self._settle(trial, died=True)

    def _settle(self, trial: FrozenTrial, *, died: bool) -> None:
        """End a trial that is under way in nobody's hands, and queue it again if need be.

        Args:
            died: its coordinator did, and perhaps by it; else somebody stopped them.
        """
        keys = trial.user_attrs.get("keys", ())
        if trial.number in superseded(self.study):  # we died just before this
            self._fail(trial.number, _ENDED)
        elif "pruned_at" in trial.user_attrs:
            self._prune(_Open(trial.number, []))
        elif keys and all(self.store.has(key) for key in keys):
            results = [self.store.load(key) for key in keys]
            done = _Open(trial.number, [result.config for result in results], results)
            for place in range(len(results)):
                self._report_run(done, place)
            self._complete(done)
        else:
            # In this order: if this process dies in between, the next one finds the successor
            # and only has to fail the old one.
            if not died or may_be_repeated(trial):
                self._queue(trial, died=died)
            self._fail(trial.number, _ENDED)

    def _ask(self) -> Job | None:
        """The next trial's first job, or None if the trial has ended without training."""
        if not self.waiting():
            add_trial(self.study, next(free_places(self.study.get_trials(deepcopy=False))))
        trial = self.waiting()[0]
        self._claim(trial._trial_id)
        return self._begin(self._taken_up(trial))

    def _taken_up(self, trial: FrozenTrial) -> Trial:
        """A trial that is now running, about to be proposed by the sampler of its place."""
        from optuna import Trial

        self.study._thread_local.cached_all_trials = None  # as `study.ask` does
        self.study.sampler = self.sampler(place_of(self.study.get_trials(deepcopy=False), trial))
        return Trial(self.study, trial._trial_id)

    def _begin(self, trial: Trial) -> Job | None:
        """A trial's first job, or None if the trial has ended without training."""
        try:
            config = self.propose(trial)
        except UsageError as error:  # values that the strategy refuses together
            self._fail(trial.number, str(error))
            return None
        seeds = (config.seed,) if self.seeds is None else self.seeds
        configs = [config.replace(seed=seed) for seed in seeds]
        self._note(
            trial.number,
            config=json.loads(configs[0].to_json()),
            key=configs[0].key,
            keys=[each.key for each in configs],
        )
        self._open[trial.number] = _Open(trial.number, configs)
        return self._next(self._open[trial.number])

    def _take(self, job: Job, result: RunResult) -> Job | None:
        """A run has ended: the trial's next one, or None if the trial has ended with it."""
        trial = self._open[job.index // self._runs]
        if result.status == "failed":
            self._fail(trial.number, result.message)
            return None
        trial.results.append(result)
        if result.status == "pruned":
            self._prune(trial)
            return None
        self._report_run(trial, len(trial.results) - 1)
        return self._next(trial)

    def _next(self, trial: _Open) -> Job | None:
        """The trial's next run that the store does not have; None if the trial has ended."""
        while len(trial.results) < len(trial.configs):
            if self._hopeless(trial):
                self._prune(trial)
                return None
            place = len(trial.results)
            config = trial.configs[place]
            job = Job(self._index(trial.number) + place, config)
            if not self.store.has(config.key):
                self._say("queued", job)
                return job
            trial.results.append(self.store.load(config.key))
            self._say("cached", job, trial.results[-1])
            self._report_run(trial, place)
        self._complete(trial)
        return None

    def _should_continue(self, job: Job, progress: Progress) -> bool:
        """Whether a run is worth its next epoch; a worker waits for the answer."""
        trial = self._open[job.index // self._runs]
        if progress.accuracy is None:
            return True
        step = len(trial.results) * job.config.epochs + progress.epoch
        self._report(trial.number, {step: _mean(trial.results, progress.accuracy)})
        return not self._given_up(trial.number, step)

    def _hopeless(self, trial: _Open) -> bool:
        """Whether a trial with seeds left is worth the next."""
        if self.pruner is None or not trial.results:
            return False
        epochs = trial.configs[0].epochs
        done = len(trial.results)
        return self._given_up(trial.number, done - 1 if self.prune_seeds else done * epochs)

    def _given_up(self, number: int, step: int) -> bool:
        trial = self._frozen(number)
        if "pruned_at" in trial.user_attrs:  # before its worker, or the last coordinator, died
            return True
        if self.pruner is None or not self.pruner.prune(self.study, trial):
            return False
        # Before the run is stopped: whoever dies now, the trial is found to be pruned.
        self._note(number, pruned_at=step)
        return True

    def _report_run(self, trial: _Open, place: int) -> None:
        """Report a run that has ended: one value, or one an epoch, as far as that was not done.

        After several seeds the value is the mean of what they came to, so that trials compare at
        equal steps.
        """
        if self.pruner is None:  # nobody would read it, and the store has the whole curve
            return
        result, ended = trial.results[place], trial.results[:place]
        if self.prune_seeds:
            values = {place: values_of([result], ["accuracy"])[0]}
        else:
            before = place * result.config.epochs
            values = {before + p["epoch"]: _mean(ended, p["accuracy"]) for p in result.curve}
        self._report(trial.number, values)

    def _report(self, number: int, values: Mapping[int, float]) -> None:
        """Write down values by step, as far as they are not there."""
        known = self._frozen(number).intermediate_values
        for step, value in values.items():
            if step not in known:
                self.study._storage.set_trial_intermediate_value(
                    self._identity(number), step, value
                )

    def _complete(self, trial: _Open) -> None:
        """Tell a trial all of whose runs have ended."""
        results = trial.results
        self._note_results(trial)
        values = values_of(results, self.objectives, dearest=self._dearest())
        self._open.pop(trial.number, None)
        self.study.tell(trial.number, values)

    def _prune(self, trial: _Open) -> None:
        from optuna.trial import TrialState

        self._note_results(trial, status="pruned")
        self._open.pop(trial.number, None)
        self.study.tell(trial.number, state=TrialState.PRUNED)

    def _fail(self, number: int, message: str) -> None:
        from optuna.trial import TrialState

        self._note(number, status="failed", message=message)
        self._open.pop(number, None)
        self.study.tell(number, state=TrialState.FAIL)

    def _note_results(self, trial: _Open, status: str = "") -> None:
        """Write down what came of the runs, before the value: a told trial cannot be written to."""
        results = trial.results
        diverged = [result for result in results if result.status == "diverged"]
        found: dict[str, Any] = {
            "status": status or ("diverged" if diverged else "finished"),
            "seconds": sum(result.seconds for result in results),
        }
        if results:
            found["accuracies"] = [values_of([result], ["accuracy"])[0] for result in results]
            found["clip_rate"] = values_of(results, ["clip_rate"])[0]
        if diverged:
            found["stopped_at"] = diverged[0].stopped_at
            found["diverged"] = len(diverged)
        self._note(trial.number, **found)

    def _queue(self, trial: FrozenTrial, *, died: bool) -> None:
        """Queue what was suggested for a trial that will not end, for another attempt.

        An attempt is counted where a process died while the trial trained: before, it cannot have
        been the trial's fault. What was not suggested yet will be proposed as for the same place.
        """
        given = trial.system_attrs.get("fixed_params", {})
        attempt = attempt_of(trial) + (died and _was_proposed(trial))
        more = {"attempt": attempt, "replaces": trial.number}
        self.study.enqueue_trial({**given, **trial.params}, user_attrs=more)

    def _running(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return list(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def waiting(self) -> list[FrozenTrial]:
        """The trials that wait to be taken."""
        from optuna.trial import TrialState

        return list(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _claim(self, identity: int) -> bool:
        """Take a waiting trial; False if another process has it."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            return bool(self.study._storage.set_trial_state_values(identity, TrialState.RUNNING))
        except UpdateFinishedTrialError:
            return False

    def _dearest(self) -> float:
        """The largest cost that a trial was told with."""
        if "cost" not in self.objectives:
            return 0.0
        place = list(self.objectives).index("cost")
        return max((t.values[place] for t in complete(counted(self.study))), default=0.0)

    def _note(self, number: int, **attributes: Any) -> None:
        # Through the storage: a trial that an earlier process asked for has no Trial here.
        for name, value in attributes.items():
            self.study._storage.set_trial_user_attr(self._identity(number), name, value)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study._storage.get_trial(self._identity(number))

    def _identity(self, number: int) -> int:
        storage, study = self.study._storage, self.study._study_id
        return storage.get_trial_id_from_study_id_trial_number(study, number)

    @property
    def _runs(self) -> int:
        """Runs a trial."""
        return 1 if self.seeds is None else len(self.seeds)

    def _index(self, number: int) -> int:
        return number * self._runs

    def _say(self, kind: Kind, job: Job, result: RunResult | None = None) -> None:
        self.listener(Event(kind=kind, index=job.index, config=job.config, result=result))


def attempt_of(trial: FrozenTrial) -> int:
    """Which attempt at its proposal a trial is, from 1."""
    return int(trial.user_attrs.get("attempt", 1))


def _was_proposed(trial: FrozenTrial) -> bool:
    return "keys" in trial.user_attrs  # the last that is written before it trains


def may_be_repeated(trial: FrozenTrial) -> bool:
    """Whether a trial whose process died may be tried once more."""
    return attempt_of(trial) < MAX_ATTEMPTS or not _was_proposed(trial)


def _mean(ended: Sequence[RunResult], accuracy: float) -> float:
    """Over the runs that have ended and the one under way."""
    scores = [values_of([result], ["accuracy"])[0] for result in ended]
    return (sum(scores) + accuracy) / (len(scores) + 1)
