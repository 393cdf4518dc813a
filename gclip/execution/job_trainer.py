"""How a job is trained, in whichever process: its data found, its code checked, its result stored.

A result is in the store before anybody is told of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gclip.core import stopping
from gclip.execution.execution import Execution
from gclip.execution.job import Job

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.results.checkpoints import SavedRuns
    from gclip.training import Dataset, ProblemData, Progress, RunConfig, RunResult
    from gclip.training.checkpointer import Checkpointer

OnProgress = Callable[[Job, "Progress", bool], bool]
"""Is told how far a run is, and whether its answer, to continue or not, counts: at the end of every
epoch but the last."""


class JobTrainer:
    """Trains jobs in this process, and keeps the data sets that they need.

    What takes long is kept beside the store while it trains, and goes on from there: see
    `gclip.results.checkpoints`.

    Args:
        store: where results go.
        execution: with the device chosen.
        note: is told what is to be said of a job.
    """

    def __init__(
        self, store: Store, execution: Execution, note: Callable[[Job, str], None]
    ) -> None:
        from gclip.results.checkpoints import Checkpoints

        self._store, self._execution, self._note = store, execution, note
        self._checkpoints = Checkpoints(store)
        dataset = execution.dataset
        self._datasets = {} if dataset is None else {dataset.name: dataset}

    def train_one(self, job: Job, on_progress: OnProgress) -> RunResult:
        """Train one run.

        Raises:
            ValueError: code of the run's is not what it was planned with; or what training and
                storing raise.
        """
        from gclip.training import train

        changed = code_changed(job.config)
        if changed:
            raise ValueError(changed)
        if self._checkpoints.of_run(job.config.key) is None and self._fleet_of([job]) is not None:
            ended: list[RunResult] = []
            self.train_fleet([job], on_progress, lambda _, result: ended.append(result), _raise)
            return ended[0]
        config, dataset = job.config, self.dataset(job.config.task)
        keeper = self._checkpoints.keeper(
            [config], self._execution.checkpoint_every, functools.partial(self._note, job)
        )
        with stopping.at_a_good_place():
            result = train(
                config,
                dataset=dataset,
                device=self._execution.device,
                threads=self._execution.threads,
                on_progress=_asking_at_epochs(functools.partial(on_progress, job)),
                checkpoint=keeper,
            )
            self._store.save(result)
            self._checkpoints.drop([config])
        return result

    def train_fleet(
        self,
        jobs: Sequence[Job],
        on_progress: OnProgress,
        on_result: Callable[[Job, RunResult], None],
        on_failure: Callable[[Job, str], None],
    ) -> None:
        """Train runs of one shape as one program.

        Args:
            jobs: the runs.
            on_progress: as for one run.
            on_result: is given each result as soon as its run has ended.
            on_failure: is told which runs cannot be trained, and why.
        """
        from gclip.training.fleet.train import train_fleet

        able: list[Job] = []
        for job in jobs:
            changed = code_changed(job.config)
            if changed:
                on_failure(job, changed)
            else:
                able.append(job)
        if not able:
            return
        listeners = {
            job.config.key: _asking_at_epochs(functools.partial(on_progress, job)) for job in able
        }
        by_key = {job.config.key: job for job in able}
        dataset = self.dataset(able[0].config.task)
        tell = functools.partial(self._note, able[0])
        configs, keeper = self._going_on(able, tell)
        if keeper is None:
            configs = [job.config for job in able]
            keeper = self._checkpoints.keeper(configs, self._execution.checkpoint_every, tell)

        def listen(index: int, progress: Progress) -> bool:
            own = listeners.get(configs[index].key)
            return own is None or own(progress)

        def store_result(index: int, result: RunResult) -> None:
            job = by_key.get(configs[index].key)
            if job is not None:
                self._store.save(result)
                on_result(job, result)

        with stopping.at_a_good_place():
            try:
                train_fleet(
                    configs,
                    dataset=dataset,
                    device=self._execution.device,
                    threads=self._execution.threads,
                    on_progress=listen,
                    on_result=store_result,
                    checkpoint=keeper,
                )
            except Exception:
                self._checkpoints.drop(configs)  # its runs begin again one by one
                raise
            self._checkpoints.drop(configs)

    def _going_on(
        self, jobs: Sequence[Job], tell: Callable[[str], None]
    ) -> tuple[list[RunConfig], Checkpointer | None]:
        """A fleet as it was when it was saved: runs that have ended since train once more beside
        these. No runs where there is nothing to go on from."""
        from gclip.training import RunConfig, resolve_device
        from gclip.training.checkpointer import made_by

        saved = self._fleet_of(jobs)
        if saved is None:
            return [], None
        configs = [RunConfig.from_json(text) for text in saved.configs]
        keeper = self._checkpoints.keeper(configs, self._execution.checkpoint_every, tell)
        maker = made_by(resolve_device(self._execution.device), self._execution.threads)
        found = None if keeper is None else keeper.load(configs)
        if keeper is None or found is None or not keeper.accept(found, maker):
            return [], None
        return configs, keeper

    def _fleet_of(self, jobs: Sequence[Job]) -> SavedRuns | None:
        """The checkpoint of a fleet that these runs, and no others, go on from."""
        if self._execution.checkpoint_every is None or self._execution.fleet == 1:
            return None
        return self._checkpoints.fleet_of([job.config.key for job in jobs])

    def dataset(self, task: str) -> Dataset | ProblemData:
        """The data of a task, loaded once."""
        from gclip.training.tasks import load_data

        if task not in self._datasets:
            self._datasets[task] = load_data(task, self._execution.data, download=False)
        return self._datasets[task]


def describe_error(error: BaseException) -> str:
    """An exception in one line: the message of a user's mistake, else with the exception's name."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_changed(config: RunConfig) -> str | None:
    """A sentence if the code of the strategy, the problem or the model is not what `config` was
    planned with."""
    from gclip.core import registry
    from gclip.core.digest import code_digest
    from gclip.training import models
    from gclip.training.problem_registry import problem_code
    from gclip.training.tasks import problem_of

    if config.code and code_digest(registry.parse_for_run(config.strategy)) != config.code:
        edited = config.strategy
    elif config.problem_code and problem_code(problem_of(config.task)) != config.problem_code:
        edited = f"task {config.task}"
    elif config.model and models.code_digest(config.model) != config.model_code:
        edited = f"the model {config.model}"
    else:
        return None
    return (
        f"the code of {edited} was edited while the comparison ran; "
        "repeat the command to run it with the new code"
    )


def _raise(_job: Job, message: str) -> None:
    raise ValueError(message)


def _asking_at_epochs(on_progress: Callable[[Progress, bool], bool]) -> Callable[[Progress], bool]:
    """A listener for `train` that asks at an epoch's end whether to continue."""
    asked = 0

    def listen(progress: Progress) -> bool:
        nonlocal asked
        asks = progress.status == "running" and progress.epoch > asked
        asked = progress.epoch
        return on_progress(progress, asks)

    return listen
