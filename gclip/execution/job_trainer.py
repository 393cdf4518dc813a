"""How a job is trained, in whichever process: its data found, its code checked, its result stored.

A result is in the store before anybody is told of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gclip.execution.execution import Execution
from gclip.execution.job import Job

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.training import Dataset, ProblemData, Progress, RunConfig, RunResult

OnProgress = Callable[[Job, "Progress", bool], bool]
"""Is told how far a run is, and whether its answer, to continue or not, counts: at the end of every
epoch but the last."""


class JobTrainer:
    """Trains jobs in this process, and keeps the data sets that they need.

    Args:
        store: where results go.
        execution: with the device chosen.
    """

    def __init__(self, store: Store, execution: Execution) -> None:
        self._store, self._execution = store, execution
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
        result = train(
            job.config,
            dataset=self.dataset(job.config.task),
            device=self._execution.device,
            threads=self._execution.threads,
            on_progress=_asking_at_epochs(functools.partial(on_progress, job)),
        )
        self._store.save(result)
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
        listeners = [_asking_at_epochs(functools.partial(on_progress, job)) for job in able]

        def store_result(index: int, result: RunResult) -> None:
            self._store.save(result)
            on_result(able[index], result)

        train_fleet(
            [job.config for job in able],
            dataset=self.dataset(able[0].config.task),
            device=self._execution.device,
            threads=self._execution.threads,
            on_progress=lambda index, progress: listeners[index](progress),
            on_result=store_result,
        )

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


def _asking_at_epochs(on_progress: Callable[[Progress, bool], bool]) -> Callable[[Progress], bool]:
    """A listener for `train` that asks at an epoch's end whether to continue."""
    asked = 0

    def listen(progress: Progress) -> bool:
        nonlocal asked
        asks = progress.status == "running" and progress.epoch > asked
        asked = progress.epoch
        return on_progress(progress, asks)

    return listen
