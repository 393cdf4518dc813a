"""The coordinator, with a pool that only pretends to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from gclip.errors import UsageError
from gclip.execution import Event, Job
from gclip.results import Store
from gclip.training import Progress, RunConfig, RunResult, checkpoint
from gclip.tuning.coordinator import Coordinator
from gclip.tuning.pruners import make_pruner
from gclip.tuning.samplers import Proposal, make_sampler
from gclip.tuning.sqlite import open_study, read_study, study_file, summary
from gclip.tuning.study_trials import MAX_ATTEMPTS
from gclip.tuning.trials import counted, counts, front_of, status_of
from tests.tuning.pools import PretendedPool

BASE = RunConfig(strategy="norm", split="validation", seed=1000)
CURVES = RunConfig(strategy="norm", split="validation", seed=1000, epochs=3)


class Pretended(PretendedPool):
    """Its runs end as they are told to."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.status: dict[int, str] = {}
        self.interrupt_at: int | None = None
        self.accuracy: Callable[[RunConfig], float] = lambda config: 1 - abs(config.lr - 0.3)
        self.trained: list[RunConfig] = []

    def end(self, job: Job) -> RunResult:
        if job.index == self.interrupt_at:
            raise KeyboardInterrupt
        status: Any = self.status.get(job.index, "finished")
        stopped = 7 if status == "diverged" else None
        reached = 0.1 if status == "diverged" else self.accuracy(job.config)
        curve = []
        for epoch in range(1, job.config.epochs + 1):
            accuracy = reached * epoch / job.config.epochs
            curve.append({"epoch": epoch, "step": 10 * epoch, "accuracy": accuracy})
            if epoch < job.config.epochs and not self._go_on(job, epoch, accuracy):
                status, stopped, reached = "pruned", 10 * epoch, accuracy
                break
        result = RunResult(
            config=job.config,
            status=status,
            accuracy=reached,
            stopped_at=stopped,
            curve=curve,
            seconds=2.0,
            clipping={"clip_rate": job.config.lr / 2},
        )
        if status == "failed":
            result = RunResult.failed(job.config, "no luck")
        self.trained.append(job.config)
        self.store.save(result)
        return result

    def _go_on(self, job: Job, epoch: int, accuracy: float) -> bool:
        if self.should_continue is None:
            return True
        epochs, status = job.config.epochs, "running"
        progress = Progress(
            epoch=epoch,
            epochs=epochs,
            step=10 * epoch,
            steps=10 * epochs,
            loss=1.0,
            accuracy=accuracy,
            status=status,  # type: ignore[arg-type]
        )
        return self.should_continue(job, progress)


@contextmanager
def coordinated(
    path: Path, base: RunConfig = BASE, **more: Any
) -> Iterator[tuple[Coordinator, Pretended]]:
    store = Store(path, create=True)
    objectives = more.get("objectives", ("accuracy",))

    def propose(trial: optuna.Trial) -> RunConfig:
        return base.replace(lr=trial.suggest_float("lr", 0.01, 1.0, log=True))

    with open_study(path, "trial-run", {"setting": 1}, objectives) as study:
        chosen = {
            "propose": propose,
            "sampler": lambda place: make_sampler("tpe", Proposal(place=place)),
            **more,
        }
        yield Coordinator(study=study, store=store, **chosen), Pretended(store)


def lrs(study: optuna.Study) -> list[float]:
    return [trial.params["lr"] for trial in counted(study)]


def test_a_total_of_trials_over_several_commands(tmp_path: Path) -> None:
    events: list[Event] = []
    for total in (3, 3, 8):
        with coordinated(tmp_path, listener=events.append) as (coordinator, pool):
            coordinator.run(pool, total)
            assert len(coordinator.study.trials) == total
            assert all(t.state == TrialState.COMPLETE for t in coordinator.study.trials)
    with read_study(study_file(tmp_path, "trial-run")) as study:
        assert len(set(lrs(study))) == 8, "a resumed study must not repeat its first proposals"
        assert study.best_value == max(1 - abs(lr - 0.3) for lr in lrs(study))


def test_diverged_trials_count_and_failed_ones_fail(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        pool.status = {1: "diverged", 2: "failed"}
        coordinator.run(pool, 4)
        trials = coordinator.study.trials
        assert [trial.state.name for trial in trials] == [
            *("COMPLETE", "COMPLETE", "FAIL", "COMPLETE")
        ]
        assert trials[1].value == 0.1
        assert trials[1].user_attrs["status"] == "diverged"
        assert trials[1].user_attrs["stopped_at"] == 7
        assert trials[2].user_attrs["message"] == "no luck"
    found = summary(study_file(tmp_path, "trial-run"))
    assert (found["trials"], found["failed"]) == (4, 1)


def test_trials_that_a_killed_coordinator_left_are_told_or_asked_again(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        # As kill -9 leaves them: one whose worker had stored the result, one without,
        # and one that had not even been proposed.
        done, lost = coordinator._ask(), coordinator._ask()
        assert done is not None
        assert lost is not None
        pool.submit(done)
        pool.wait()
        coordinator.study.ask()
    with coordinated(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 4)
        trials = coordinator.study.trials
        assert trials[0].state == TrialState.COMPLETE
        assert trials[0].value == 1 - abs(done.config.lr - 0.3)
        assert [trial.state for trial in trials[1:3]] == [TrialState.FAIL] * 2
        again = next(t for t in trials if t.user_attrs.get("replaces") == 1)
        assert again.params == trials[1].params
        assert again.user_attrs["attempt"] == 2
        assert again.state == TrialState.COMPLETE
        assert len(counted(coordinator.study)) == 4


def test_a_trial_that_kills_its_coordinator_is_not_asked_for_ever(tmp_path: Path) -> None:
    for _ in range(MAX_ATTEMPTS):
        with coordinated(tmp_path) as (coordinator, _pool):
            coordinator.recover()
            assert coordinator._ask() is not None
    with coordinated(tmp_path) as (coordinator, _pool):
        coordinator.recover()
        assert not coordinator.study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
        assert len(counted(coordinator.study)) == 1


def test_a_trial_that_comes_further_each_time_is_not_given_up(tmp_path: Path) -> None:
    """Its coordinators were killed, but not by it."""
    for step in range(10, 10 * (MAX_ATTEMPTS + 3), 10):
        with coordinated(tmp_path) as (coordinator, _pool):
            coordinator.recover()
            job = coordinator._ask()
            assert job is not None
            [trial] = coordinator.trials.running()
            assert trial.user_attrs.get("attempt", 1) == 1
            about = {
                "configs": [job.config.to_json()], "present": [0], "epoch": 0, "step": step,
                "steps": 1000,
            }  # fmt: skip
            checkpoint.save(tmp_path / "checkpoints" / job.config.key, {}, about)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with coordinated(tmp_path) as (coordinator, _pool):
            coordinator.recover()
            assert coordinator._ask() is not None
            [trial] = coordinator.trials.running()
            assert trial.user_attrs["attempt"] == attempt
    with coordinated(tmp_path) as (coordinator, _pool):
        coordinator.recover()
        assert len(counted(coordinator.study)) == 1


def test_ctrl_c_puts_trials_back_at_no_cost(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, pool):
        pool.interrupt_at = 2
        with pytest.raises(KeyboardInterrupt):
            coordinator.run(pool, 6)
        given_up = [t.params for t in coordinator.study.trials if t.state == TrialState.FAIL]
        assert len(given_up) == 2
    with coordinated(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 6)
        ended = counted(coordinator.study)
        assert len(ended) == 6
        assert all(trial.params in [t.params for t in ended] for trial in ended)
        replaced = [t for t in ended if "replaces" in t.user_attrs]
        assert [t.params for t in replaced] == given_up
        assert {t.user_attrs["attempt"] for t in replaced} == {1}


def test_a_study_belongs_to_one_process_and_one_setting(tmp_path: Path) -> None:
    def begin(setting: int) -> None:
        with open_study(tmp_path, "trial-run", {"setting": setting}):
            pass

    with coordinated(tmp_path), pytest.raises(UsageError, match="run by another process"):
        begin(1)
    with pytest.raises(UsageError, match="begun with setting 1, not setting 2"):
        begin(2)


def test_looking_at_a_study_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no study"), read_study(tmp_path / "none.db"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_study_file_is_one_sentence(tmp_path: Path) -> None:
    file = study_file(tmp_path, "trial-run")
    file.parent.mkdir()
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(UsageError, match="cannot be used"), open_study(tmp_path, "trial-run", {}):
        pass


def test_a_study_cannot_escape_from_its_folder(tmp_path: Path) -> None:
    for name in ("../up", "", ".hidden", "a:b"):
        with pytest.raises(UsageError, match="a study's name"), open_study(tmp_path, name, {}):
            pass
    assert list(tmp_path.iterdir()) == []


def pruning(path: Path, **more: Any) -> Any:
    return coordinated(path, CURVES, pruner=make_pruner("median", steps=3), **more)


def falling() -> Callable[[RunConfig], float]:
    """Each new learning rate is worse than the one before."""
    seen: list[float] = []

    def accuracy(config: RunConfig) -> float:
        if config.lr not in seen:
            seen.append(config.lr)
        return 0.9 - 0.05 * seen.index(config.lr)

    return accuracy


def test_a_bad_trial_is_pruned_after_an_epoch_and_counted_apart(tmp_path: Path) -> None:
    with pruning(tmp_path) as (coordinator, pool):
        pool.accuracy = falling()
        pool.status = {2: "failed"}
        coordinator.run(pool, 8)
        trials = counted(coordinator.study)
        # Five trials make the median, and the one that failed is none of them.
        statuses = [status_of(trial) for trial in trials]
        assert statuses == [*["finished"] * 2, "failed", *["finished"] * 3, *["pruned"] * 2]
        assert counts(trials).pruned == 2
        assert counts(trials).failed == 1
        pruned = trials[6]
        assert pruned.state == TrialState.PRUNED
        assert pruned.user_attrs["pruned_at"] == 1
        assert list(pruned.intermediate_values) == [1]
        assert pruned.intermediate_values[1] == pytest.approx(0.6 / 3)
        # Whole trials have the whole curve.
        assert trials[0].intermediate_values == pytest.approx({1: 0.3, 2: 0.6, 3: 0.9})
        assert coordinator.store.status(pruned.user_attrs["key"]) == "pruned"
        assert not coordinator.store.has(pruned.user_attrs["key"])
    found = summary(study_file(tmp_path, "trial-run"))
    assert (found["trials"], found["pruned"], found["failed"]) == (8, 2, 1)
    assert found["score"] == 0.9, "a pruned trial is no best trial"
    with pruning(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 8)
        assert [config.lr for config in pool.trained] == [trials[2].params["lr"]]


def test_a_trial_whose_run_failed_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    """At its place, as often as the command is repeated; the others are not touched."""
    proposed = []
    for status in ("failed", "failed", "finished"):
        with coordinated(tmp_path) as (coordinator, pool):
            pool.status = dict.fromkeys(range(20), status) if proposed else {1: "failed"}
            coordinator.run(pool, 4)
            trials = counted(coordinator.study)
            proposed.append([trial.params for trial in trials])
            assert len(pool.trained) == (1 if len(proposed) > 1 else 4)
        expected = "FAIL" if status == "failed" else "COMPLETE"
        assert [trial.state.name for trial in trials] == [
            *("COMPLETE", expected, "COMPLETE", "COMPLETE")
        ]
    assert proposed[0] == proposed[1] == proposed[2]


def test_hyperband_prunes_in_its_brackets(tmp_path: Path) -> None:
    base = CURVES.replace(epochs=9)
    with coordinated(tmp_path, base, pruner=make_pruner("hyperband", steps=9)) as (
        coordinator,
        pool,
    ):
        pool.accuracy = falling()
        coordinator.run(pool, 10)
        trials = counted(coordinator.study)
        assert len(trials) == 10
        at = [t.user_attrs["pruned_at"] for t in trials if status_of(t) == "pruned"]
        assert at
        assert set(at) <= {1, 3}, "the rungs of a reduction by three"


def test_a_coordinator_that_dies_between_the_verdict_and_the_end_finds_it_pruned(
    tmp_path: Path,
) -> None:
    class Killed(BaseException):
        pass

    with pruning(tmp_path) as (coordinator, pool):
        pool.accuracy = falling()

        def dies(*_: Any, **__: Any) -> None:
            raise Killed

        coordinator._prune = dies  # type: ignore[method-assign]
        with pytest.raises(Killed):
            coordinator.run(pool, 8)
        lost = coordinator.study.get_trials(states=(TrialState.RUNNING,))
        assert "pruned_at" in lost[0].user_attrs
    with pruning(tmp_path) as (coordinator, pool):
        coordinator.recover()
        assert coordinator.study.trials[lost[0].number].state == TrialState.PRUNED
        coordinator.run(pool, 8)
        assert len(counted(coordinator.study)) == 8


def test_a_trial_of_several_seeds_scores_their_mean(tmp_path: Path) -> None:
    scores = {1000: 0.9, 1001: 0.6, 1002: 0.3}
    with pruning(tmp_path, seeds=(1000, 1001, 1002)) as (coordinator, pool):
        pool.accuracy = lambda config: scores[config.seed]
        pool.status = {4: "diverged"}  # the second trial's second seed, which scores 0.1
        coordinator.run(pool, 3)
        trials = counted(coordinator.study)
        assert [trial.value for trial in trials] == pytest.approx([0.6, (0.9 + 0.1 + 0.3) / 3, 0.6])
        assert trials[0].user_attrs["accuracies"] == [0.9, 0.6, 0.3]
        assert trials[0].user_attrs["seconds"] == 6.0
        assert len(set(trials[0].user_attrs["keys"])) == 3
        assert [status_of(trial) for trial in trials] == ["finished", "diverged", "finished"]
        assert trials[1].user_attrs["stopped_at"] == 7
        # Epoch by epoch the mean of what the seeds came to so far.
        assert trials[0].intermediate_values == pytest.approx(
            {1: 0.3, 2: 0.6, 3: 0.9, 4: 0.55, 5: 0.65, 6: 0.75, 7: 1.6 / 3, 8: 1.7 / 3, 9: 0.6}
        )


def test_seeds_that_were_trained_before_a_kill_are_read(tmp_path: Path) -> None:
    seeds = (1000, 1001, 1002)
    with coordinated(tmp_path, seeds=seeds) as (coordinator, pool):
        first = coordinator._ask()
        assert first is not None
        pool.submit(first)
        [(job, result)] = pool.wait()
        second = coordinator._handle_result(job, result)
        assert second is not None
        assert (second.index, second.config.seed) == (1, 1001)
    with coordinated(tmp_path, seeds=seeds) as (coordinator, pool):
        coordinator.run(pool, 1)
        assert [config.seed for config in pool.trained] == [1001, 1002]
        [trial] = counted(coordinator.study)
        assert trial.number == 1
        assert trial.value == pytest.approx(1 - abs(trial.params["lr"] - 0.3))


def test_wilcoxon_gives_a_trial_up_between_seeds(tmp_path: Path) -> None:
    seeds = tuple(range(1000, 1006))
    pruner = make_pruner("wilcoxon", steps=6)
    with coordinated(tmp_path, pruner=pruner, prune_seeds=True, seeds=seeds) as (coordinator, pool):
        falls = falling()
        pool.accuracy = lambda config: falls(config) + 0.001 * (config.seed - 1000)
        pool.__class__ = OneByOne
        coordinator.run(pool, 3)
        trials = counted(coordinator.study)
        assert [status_of(trial) for trial in trials] == ["finished", "pruned", "pruned"]
        # Four pairs, all worse: p = 1/16, the first below 0.1.
        assert trials[1].user_attrs["pruned_at"] == 3
        assert list(trials[1].intermediate_values) == [0, 1, 2, 3]
        assert trials[1].intermediate_values[2] == pytest.approx(0.852)
        assert len(pool.trained) == 6 + 4 + 4


class OneByOne(Pretended):
    """A single worker."""

    workers = 1


def test_several_objectives_have_a_front_without_diverged_trials(tmp_path: Path) -> None:
    objectives = ("accuracy", "clip_rate", "cost")
    with coordinated(tmp_path, objectives=objectives) as (coordinator, pool):
        pool.status = {1: "diverged", 3: "failed"}
        pool.__class__ = OneByOne
        coordinator.run(pool, 8)
        trials = counted(coordinator.study)
        assert coordinator.study.metric_names == list(objectives)
        assert trials[1].values == [0.1, 1.0, 2.0], "the worst there is, and the dearest so far"
        lr = trials[0].params["lr"]
        assert trials[0].values == pytest.approx([1 - abs(lr - 0.3), lr / 2, 2.0])
        assert status_of(trials[3]) == "failed"
        front = front_of(trials, objectives)
        # Below 0.3 less clipping costs accuracy; above, it costs nothing: nobody stays there but
        # the one that is nearest to 0.3, if none below is nearer.
        rates = [trial.params["lr"] for t, trial in enumerate(trials) if t not in (1, 3)]
        best = min(rates, key=lambda each: abs(each - 0.3))
        wanted = {each for each in rates if each <= 0.3 and each <= best} | {best}
        assert {trial.params["lr"] for trial in front} == wanted
        assert front[0].params["lr"] == best
    assert summary(study_file(tmp_path, "trial-run"))["score"] == front[0].values[0]


def test_values_that_a_strategy_refuses_together_are_a_failed_trial(tmp_path: Path) -> None:
    def refuse(trial: optuna.Trial) -> RunConfig:
        if trial.suggest_float("lr", 0.01, 1.0, log=True) and trial.number == 0:
            raise UsageError("low must be below high")
        return BASE.replace(lr=trial.params["lr"])

    with coordinated(tmp_path, propose=refuse) as (coordinator, pool):
        coordinator.run(pool, 2)
        first, second = counted(coordinator.study)
        assert (status_of(first), status_of(second)) == ("failed", "finished")
        assert first.user_attrs["message"] == "low must be below high"


def test_a_retry_that_dies_before_it_is_proposed_keeps_its_parameters(tmp_path: Path) -> None:
    with coordinated(tmp_path) as (coordinator, _pool):
        assert coordinator._ask() is not None
        params = coordinator.study.trials[0].params
    with coordinated(tmp_path) as (coordinator, _pool):
        coordinator.recover()
        coordinator.study.ask()  # takes up the retry, and dies
    with coordinated(tmp_path) as (coordinator, pool):
        coordinator.run(pool, 1)
        [trial] = counted(coordinator.study)
        assert trial.params == params
        assert trial.user_attrs["attempt"] == 2, "only what trained can have killed its process"
