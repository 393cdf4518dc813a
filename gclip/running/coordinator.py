"""One process owns an Optuna study; workers train its trials and leave their results in the store.

Nothing but the coordinator touches the study's SQLite file, and a trial's config is written into
it before the trial trains. So any process may be killed at any moment: on the next start a trial
that was under way is told from its stored result, or given up and asked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError
from gclip.running.events import Event, Kind, Listener, ignore
from gclip.running.pool import Job, Pool

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

    from gclip.results import Store
    from gclip.training import RunConfig, RunResult

MAX_ATTEMPTS = 3
"""A trial whose coordinator died this often under it has failed: perhaps it killed it."""

SUFFIX = ".db"


def study_file(store: Path, name: str) -> Path:
    """Where the study `name` is kept: beside the runs of `store`."""
    return store / "studies" / f"{name}{SUFFIX}"


@contextmanager
def open_study(store: Path, name: str, settings: dict[str, Any]) -> Iterator[Study]:
    """The study `name` of `store`, new or as it was left, for this process alone.

    Args:
        settings: what makes trials comparable, JSON-serialisable. A study goes on only under the
            settings it was begun with.

    Raises:
        UsageError: another process runs the study, or it was begun with other settings.
    """
    import optuna

    from gclip.results.lock import hold

    path = study_file(store, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot keep a study in '{path.parent}': {error.strerror}") from error
    with hold(path.with_suffix(".lock"), exclusive=True, patience=0.0) as held:
        if held == "no":
            raise UsageError(f"the study {name!r} is being run by another process; wait for it")
        with _quiet(optuna), _storage(path) as storage:
            study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
            _check_settings(study, name, settings)
            yield study


def seeded(seed: int, trial: int) -> int:
    """The sampler's seed for one trial.

    Each trial has its own, so that a study that was interrupted proposes what it would have
    proposed, and not its first trials again.
    """
    digest = hashlib.sha256(f"{seed}/{trial}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass
class Coordinator:
    """Asks, lets train, and tells, until a study has a total number of trials.

    Attributes:
        study: owned by this process alone.
        store: where results are.
        propose: suggests parameters on a trial and makes its config of them.
        sampler: makes the sampler for a trial, from a seed of that trial's own.
        listener: is told what happens; an event's index is its trial's number.
    """

    study: Study
    store: Store
    propose: Callable[[Trial], RunConfig]
    sampler: Callable[[int], BaseSampler]
    seed: int = 0
    listener: Listener = ignore
    _open: dict[int, Trial] = field(default_factory=dict)

    def run(self, pool: Pool, total: int) -> None:
        """Go on until `total` trials have ended, those of earlier commands among them.

        On Ctrl-C the trials under way are put back into the queue.
        """
        from gclip.training import RunConfig

        self.recover()
        earlier = counted(self.study)
        for trial in earlier:
            if "config" in trial.user_attrs:
                config = RunConfig.of(trial.user_attrs["config"])
                self._say("cached", Job(trial.number, config))
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
                    self._tell(self._open.pop(job.index), result)
                    ended += 1
        except KeyboardInterrupt:
            for number in list(self._open):
                self._again(self._frozen(number), died=False)
            raise

    def recover(self) -> None:
        """Settle the trials that were under way when the last coordinator ended."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            key = trial.user_attrs.get("key")
            if key is not None and self.store.has(key):
                self.study.tell(trial.number, _score(self.store.load(key)))
            else:
                self._again(trial, died=True)

    def _ask(self) -> Job | None:
        """The next trial's job, or None if its result is there already and was told."""
        count = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = self.sampler(seeded(self.seed, count))
        trial = self.study.ask()
        config = self.propose(trial)
        trial.set_user_attr("config", json.loads(config.to_json()))
        trial.set_user_attr("key", config.key)
        job = Job(trial.number, config)
        if self.store.has(config.key):
            result = self.store.load(config.key)
            self._tell(trial, result)
            self._say("cached", job, result)
            return None
        self._open[trial.number] = trial
        self._say("queued", job)
        return job

    def _tell(self, trial: Trial, result: RunResult) -> None:
        from optuna.trial import TrialState

        # Before the value: a trial that is told can no longer be written to.
        trial.set_user_attr("status", result.status)
        trial.set_user_attr("seconds", result.seconds)
        if result.stopped_at is not None:
            trial.set_user_attr("stopped_at", result.stopped_at)
        if result.status == "failed":
            trial.set_user_attr("message", result.message)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, _score(result))

    def _again(self, trial: FrozenTrial, *, died: bool) -> None:
        """Fail a trial that will not end, and queue its parameters for another attempt.

        In this order: if this process dies in between, the next one finds the successor and
        only has to fail the old one.
        """
        from optuna.trial import TrialState

        attempt = int(trial.user_attrs.get("attempt", 1))
        if trial.number not in superseded(self.study) and (not died or attempt < MAX_ATTEMPTS):
            # With nothing suggested yet there is nothing to keep: then it is a new proposal.
            more = {"attempt": attempt + died, "replaces": trial.number}
            self.study.enqueue_trial(dict(trial.params), user_attrs=more)
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _say(self, kind: Kind, job: Job, result: RunResult | None = None) -> None:
        self.listener(Event(kind=kind, index=job.index, config=job.config, result=result))


def superseded(study: Study) -> frozenset[int]:
    """The numbers of failed trials that have a successor with the same parameters."""
    trials = study.get_trials(deepcopy=False)
    return frozenset(t.user_attrs["replaces"] for t in trials if "replaces" in t.user_attrs)


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that have ended for good, in their order: complete, or failed and not replaced."""
    gone = superseded(study)
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.number not in gone
    ]


def studies_in(store: Path) -> dict[str, Path]:
    """The studies kept beside a store, by name; none where the folder does not exist."""
    folder = study_file(store, "").parent
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


@contextmanager
def read_study(path: Path) -> Iterator[Study]:
    """A study that exists, to look at. Never creates a file, as a mistyped path otherwise would."""
    import optuna

    if not path.is_file():
        raise UsageError(f"there is no study in '{path}'")
    with _quiet(optuna), _storage(path) as storage:
        yield optuna.load_study(study_name=path.stem, storage=storage)


def summary(path: Path) -> dict[str, Any]:
    """A study at a glance: its name, how many trials ended and failed, the best score and how."""
    with read_study(path) as study:
        ended = counted(study)
    complete = [trial for trial in ended if trial.value is not None]
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    how = None
    if best is not None:
        config = best.user_attrs["config"]
        how = f"{config['strategy']}, lr {config['lr']:g}"
    return {
        "name": path.stem,
        "trials": len(ended),
        "failed": len(ended) - len(complete),
        "score": None if best is None else best.value,
        "best": how,
    }


def _score(result: RunResult) -> float:
    """What the sampler learns from: validation accuracy; chance, never NaN, for a diverged run."""
    return result.accuracy if math.isfinite(result.accuracy) else 0.0


def _check_settings(study: Study, name: str, settings: dict[str, Any]) -> None:
    begun = study.user_attrs.get("settings")
    wanted = json.loads(json.dumps(settings))
    if begun is None:
        study.set_user_attr("settings", wanted)
        return
    differing = sorted(k for k in begun.keys() | wanted.keys() if begun.get(k) != wanted.get(k))
    if differing:
        was = ", ".join(f"{key} {begun.get(key)!r}" for key in differing)
        now = ", ".join(f"{key} {wanted.get(key)!r}" for key in differing)
        raise UsageError(
            f"the study {name!r} was begun with {was}, not {now}; repeat it as it was, "
            "or give this one another --name"
        )


@contextmanager
def _storage(path: Path) -> Iterator[RDBStorage]:
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    storage: RDBStorage | None = None
    try:
        storage = RDBStorage(f"sqlite:///{path}")
        yield storage
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise UsageError(f"the study file '{path}' cannot be used: {cause}") from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's own log lines, which would break the progress display."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with contextlib.ExitStack() as stack:
        stack.callback(optuna.logging.set_verbosity, before)
        yield
