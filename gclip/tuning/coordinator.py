"""One process owns an Optuna study; workers train its trials and leave their results in the store.

Nothing but the coordinator touches the study's storage, and a trial's configs are written into it
before the trial trains. So any process may be killed at any moment: on the next start a trial that
was under way is told from its stored results, or given up and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.execution.events import Event, EventKind, Listener, ignore
from gclip.execution.job import Job
from gclip.execution.pool import Pool
from gclip.results.checkpoints import Checkpoints
from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.objectives import curve_score, finite_score, score_name, values_of
from gclip.tuning.optuna_internals import trial_of
from gclip.tuning.proposals import add_trial, free_places, place_of, replaced_by
from gclip.tuning.study_trials import ENDED, StudyTrials, may_be_repeated
from gclip.tuning.trials import complete, config_of, counted, superseded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from gclip.results import Store
    from gclip.training import Progress, RunConfig, RunResult

WORKERS_LOST = 6
"""A run that loses so many workers has failed."""


@dataclass
class _OpenTrial:
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
        metric: what the first of them is.
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
    metric: Metric = ACCURACY
    listener: Listener = ignore
    _open: dict[int, _OpenTrial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trials = StudyTrials(self.study)

    def run(self, pool: Pool, total: int) -> None:
        """Go on until `total` trials have ended, those of earlier commands among them.

        On Ctrl-C the trials under way are put back into the queue.
        """
        self._configure(pool)
        self.recover()
        pool.expect(self._waiting_keys())
        earlier = counted(self.study)
        for trial in earlier:
            self._notify_cached(trial)
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
                    next_job = self._handle_result(job, result)
                    if next_job is None:
                        ended += 1
                    else:
                        pool.submit(next_job)
        except KeyboardInterrupt:
            for trial in self.trials.running():
                self._recover_trial(trial, died=False)
            raise

    def _waiting_keys(self) -> list[str]:
        """The runs of trials that were under way when a command before this one ended."""
        trials = self.trials.select()
        replaced = (replaced_by(trial) for trial in self.trials.waiting())
        numbers = [number for number in replaced if number is not None]
        return [key for number in numbers for key in trials[number].user_attrs.get("keys", ())]

    def _configure(self, pool: Pool) -> None:
        """Make `pool` ask this process whether runs should go on."""
        pool.attempts = WORKERS_LOST
        by_epoch = self.pruner is not None and not self.prune_seeds
        pool.should_continue = self._should_continue if by_epoch else None
        if self.pruner is not None:
            self.study.pruner = self.pruner

    def recover(self) -> None:
        """Settle the trials that were under way when the last coordinator ended, and try those
        again whose runs failed."""
        self.study.sampler = self.sampler(0)
        for trial in self.trials.running():
            self._recover_trial(trial, died=True)
        for trial in self.trials.failed():
            self.trials.enqueue_again(trial, died=False)

    def _recover_trial(self, trial: FrozenTrial, *, died: bool) -> None:
        """End a trial that is under way in nobody's hands, and queue it again if need be.

        Args:
            died: its coordinator did, and perhaps by it; else somebody stopped them.
        """
        keys = trial.user_attrs.get("keys", ())
        if trial.number in superseded(self.study):  # we died just before this
            self._fail(trial.number, ENDED)
        elif "pruned_at" in trial.user_attrs:
            self._prune(_OpenTrial(trial.number, []))
        elif keys and all(self.store.has(key) for key in keys):
            results = [self.store.load(key) for key in keys]
            done = _OpenTrial(trial.number, [result.config for result in results], results)
            for place in range(len(results)):
                self._report_run(done, place)
            self._complete(done)
        else:
            # In this order: if this process dies in between, the next one finds the successor
            # and only has to fail the old one.
            saved = Checkpoints(self.store).saved_steps(keys)
            if not died or may_be_repeated(trial, saved):
                self.trials.enqueue_again(trial, died=died, saved=saved)
            self._fail(trial.number, ENDED)

    def _ask(self) -> Job | None:
        """The next trial's first job, or None if the trial has ended without training."""
        waiting = self.trials.waiting()
        if not waiting:
            add_trial(self.study, next(free_places(self.trials.select())))
            waiting = self.trials.waiting()
        number = waiting[0].number
        self.trials.claim(number)
        return self._begin(self._resume(number))

    def _resume(self, number: int) -> Trial:
        """A trial that is now running, about to be proposed by the sampler of its place."""
        trials = self.trials.select()
        self.study.sampler = self.sampler(place_of(trials, trials[number]))
        return trial_of(self.study, number)

    def _begin(self, trial: Trial) -> Job | None:
        """A trial's first job, or None if the trial has ended without training."""
        try:
            config = self.propose(trial)
        except UsageError as error:  # values that the strategy refuses together
            self._fail(trial.number, str(error))
            return None
        seeds = (config.seed,) if self.seeds is None else self.seeds
        configs = [config.replace(seed=seed) for seed in seeds]
        self.trials.set_attrs(
            trial.number,
            config=json.loads(configs[0].to_json()),
            key=configs[0].key,
            keys=[each.key for each in configs],
        )
        self._open[trial.number] = _OpenTrial(trial.number, configs)
        return self._next(self._open[trial.number])

    def _handle_result(self, job: Job, result: RunResult) -> Job | None:
        """A run has ended: the trial's next one, or None if the trial has ended with it."""
        trial = self._open[job.index // self._runs_per_trial]
        if result.status == "failed":
            self._fail(trial.number, result.message)
            return None
        trial.results.append(result)
        if result.status == "pruned":
            self._prune(trial)
            return None
        self._report_run(trial, len(trial.results) - 1)
        return self._next(trial)

    def _next(self, trial: _OpenTrial) -> Job | None:
        """The trial's next run that the store does not have; None if the trial has ended."""
        while len(trial.results) < len(trial.configs):
            if self._should_prune_between_runs(trial):
                self._prune(trial)
                return None
            place = len(trial.results)
            config = trial.configs[place]
            job = Job(self._index(trial.number) + place, config)
            if not self.store.has(config.key):
                self._notify("queued", job)
                return job
            trial.results.append(self.store.load(config.key))
            self._notify("cached", job, trial.results[-1])
            self._report_run(trial, place)
        self._complete(trial)
        return None

    def _should_continue(self, job: Job, progress: Progress) -> bool:
        """Whether a run is worth its next epoch; a worker waits for the answer."""
        trial = self._open[job.index // self._runs_per_trial]
        if progress.score is None:
            return True
        step = len(trial.results) * job.config.epochs + progress.epoch
        score = finite_score(progress.score, self.metric)
        self.trials.report(trial.number, {step: self._mean(trial.results, score)})
        return not self._should_prune(trial.number, step)

    def _should_prune_between_runs(self, trial: _OpenTrial) -> bool:
        """Whether a trial with seeds left is worth the next."""
        if self.pruner is None or not trial.results:
            return False
        epochs = trial.configs[0].epochs
        done = len(trial.results)
        return self._should_prune(trial.number, done - 1 if self.prune_seeds else done * epochs)

    def _should_prune(self, number: int, step: int) -> bool:
        trial = self.trials.get(number)
        if "pruned_at" in trial.user_attrs:  # before its worker, or the last coordinator, died
            return True
        if self.pruner is None or not self.pruner.prune(self.study, trial):
            return False
        # Before the run is stopped: whoever dies now, the trial is found to be pruned.
        self.trials.set_attrs(number, pruned_at=step)
        return True

    def _report_run(self, trial: _OpenTrial, place: int) -> None:
        """Report a run that has ended: one value, or one an epoch, as far as that was not done.

        After several seeds the value is the mean of what they came to, so that trials compare at
        equal steps.
        """
        if self.pruner is None:  # nobody would read it, and the store has the whole curve
            return
        result, ended = trial.results[place], trial.results[:place]
        if self.prune_seeds:
            values = {place: self._score(result)}
        else:
            before = place * result.config.epochs
            values = {
                before + p["epoch"]: self._mean(ended, curve_score(p, self.metric))
                for p in result.curve
            }
        self.trials.report(trial.number, values)

    def _complete(self, trial: _OpenTrial) -> None:
        """Tell a trial all of whose runs have ended."""
        results = trial.results
        self._record_results(trial)
        values = values_of(results, self.objectives, dearest=self._largest_cost())
        self._open.pop(trial.number, None)
        self.study.tell(trial.number, values)

    def _prune(self, trial: _OpenTrial) -> None:
        from optuna.trial import TrialState

        self._record_results(trial, status="pruned")
        self._open.pop(trial.number, None)
        self.study.tell(trial.number, state=TrialState.PRUNED)

    def _fail(self, number: int, message: str) -> None:
        from optuna.trial import TrialState

        self.trials.set_attrs(number, status="failed", message=message)
        self._open.pop(number, None)
        self.study.tell(number, state=TrialState.FAIL)

    def _record_results(self, trial: _OpenTrial, status: str = "") -> None:
        """Write down what came of the runs, before the value: a told trial cannot be written to."""
        results = trial.results
        diverged = [result for result in results if result.status == "diverged"]
        found: dict[str, Any] = {
            "status": status or ("diverged" if diverged else "finished"),
            "seconds": sum(result.seconds for result in results),
        }
        if results:
            name = "accuracies" if self.metric.name == ACCURACY.name else "scores"
            found[name] = [self._score(result) for result in results]
            found["clip_rate"] = values_of(results, ["clip_rate"])[0]
        if diverged:
            found["stopped_at"] = diverged[0].stopped_at
            found["diverged"] = len(diverged)
        self.trials.set_attrs(trial.number, **found)

    def _score(self, result: RunResult) -> float:
        """What a run that has ended counts with."""
        return values_of([result], [score_name(self.metric)])[0]

    def _mean(self, ended: Sequence[RunResult], score: float) -> float:
        """Over the runs that have ended and the one under way."""
        scores = [self._score(result) for result in ended]
        return (sum(scores) + score) / (len(scores) + 1)

    def _largest_cost(self) -> float:
        """The largest cost that a trial was told with."""
        if "cost" not in self.objectives:
            return 0.0
        place = list(self.objectives).index("cost")
        return max((t.values[place] for t in complete(counted(self.study))), default=0.0)

    @property
    def _runs_per_trial(self) -> int:
        """Runs a trial."""
        return 1 if self.seeds is None else len(self.seeds)

    def _index(self, number: int) -> int:
        return number * self._runs_per_trial

    def _notify_cached(self, trial: FrozenTrial) -> None:
        """Tell the listener of a trial that has ended, in an earlier command or elsewhere."""
        if "config" in trial.user_attrs:  # else nothing of it trained
            config = config_of(trial)
            for place in range(self._runs_per_trial):
                self._notify("cached", Job(self._index(trial.number) + place, config))

    def _notify(self, kind: EventKind, job: Job, result: RunResult | None = None) -> None:
        self.listener(Event(kind=kind, index=job.index, config=job.config, result=result))
