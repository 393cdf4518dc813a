"""What is known about the trials of a study, from the study alone.

A trial carries, as Optuna's user attributes: ``config`` (of its first run) and ``keys`` (of all
its runs in the store), written before it trains; ``status``, ``accuracies`` (run by run; ``scores``
where the metric is another),
``clip_rate``, ``seconds`` (of all runs together), and ``stopped_at`` (steps; of the first run that
diverged) or ``message`` (why it failed) when it has ended; ``pruned_at`` when it was given up;
``place`` among the study's proposals, or, when it repeats a lost one, ``attempt`` and ``replaces``
(that trial's number); ``worker`` (host and process id) where many machines work on the study.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gclip.training.metric import ACCURACY, Metric
from gclip.tuning.objectives import directions
from gclip.tuning.proposals import place_of, replaced_by

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from gclip.training import RunConfig


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How the trials that ended, ended. `trials` is the sum of the others."""

    trials: int
    finished: int
    diverged: int
    pruned: int
    failed: int

    def __str__(self) -> str:
        """``20 trials, 2 diverged``; what did not happen is left out, but divergence."""
        text = f"{self.trials} trial{'' if self.trials == 1 else 's'}, {self.diverged} diverged"
        for name in ("pruned", "failed"):
            if getattr(self, name):
                text += f", {getattr(self, name)} {name}"
        return text


def counted(study: Study) -> list[FrozenTrial]:
    """The trials that have ended for good, by their place: complete, pruned, or failed.

    A failed one that was replaced by another attempt has not: its successor counts, at its place,
    so an interruption changes nothing about the order.
    """
    replaced = superseded(study)
    everything = study.get_trials(deepcopy=False)
    ended = [
        trial for trial in everything if trial.state.is_finished() and trial.number not in replaced
    ]
    return sorted(ended, key=lambda trial: (place_of(everything, trial), trial.number))


def superseded(study: Study) -> frozenset[int]:
    """The numbers of failed trials that have a successor with the same parameters."""
    replaced = (replaced_by(trial) for trial in study.get_trials(deepcopy=False))
    return frozenset(number for number in replaced if number is not None)


def status_of(trial: FrozenTrial) -> str:
    """``finished``, ``diverged``, ``pruned`` or ``failed``; ``waiting`` or ``running`` before."""
    if not trial.state.is_finished():
        return str(trial.state.name.lower())
    if trial.state.name == "PRUNED":
        return "pruned"
    if trial.state.name != "COMPLETE":
        return "failed"
    return str(trial.user_attrs.get("status", "finished"))


def counts(trials: Sequence[FrozenTrial]) -> Counts:
    """How these trials ended."""
    statuses = [status_of(trial) for trial in trials]
    each = {name: statuses.count(name) for name in ("finished", "diverged", "pruned", "failed")}
    return Counts(trials=len(trials), **each)


def complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that have values: finished or diverged, in their order."""
    return [trial for trial in trials if status_of(trial) in ("finished", "diverged")]


def best_of(trials: Sequence[FrozenTrial], metric: Metric = ACCURACY) -> FrozenTrial | None:
    """The complete trial with the best first objective, the earliest of equals.

    None where all of them diverged, in all their runs: what they scored is the worst there is.
    """
    ended = complete(trials)
    if all(_all_diverged(trial) for trial in ended):
        return None
    return max(ended, key=lambda trial: metric.sign * trial.values[0], default=None)


def no_best(trials: Counts) -> str:
    """Why there is no best trial, in a sentence."""
    if not trials.diverged:
        return "No trial was completed, so there is no best."
    return (
        "All completed trials diverged, so there is no best; try a smaller learning rate, or other "
        "ranges (--lr, --lr-range, --space)."
    )


def _all_diverged(trial: FrozenTrial) -> bool:
    runs = len(trial.user_attrs.get("keys", ())) or 1
    return status_of(trial) == "diverged" and int(trial.user_attrs.get("diverged", 1)) >= runs


def front_of(
    trials: Sequence[FrozenTrial], objectives: Sequence[str], metric: Metric = ACCURACY
) -> list[FrozenTrial]:
    """The Pareto front: finished trials that no other beats in one objective at no cost in another.

    The best score first. A diverged trial is never on it.
    """
    signs = [1 if each == "maximize" else -1 for each in directions(objectives, metric)]

    def gains(trial: FrozenTrial) -> tuple[float, ...]:
        return tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))

    finished = [trial for trial in trials if status_of(trial) == "finished"]
    all_gains = {gains(trial) for trial in finished}
    front: dict[tuple[float, ...], FrozenTrial] = {}
    for trial in finished:
        own = gains(trial)
        beaten = any(
            other != own and all(a >= b for a, b in zip(other, own, strict=True))
            for other in all_gains
        )
        if not beaten:
            front.setdefault(own, trial)
    return sorted(front.values(), key=gains, reverse=True)


def config_of(trial: FrozenTrial) -> RunConfig:
    """The config of a trial's (first) run."""
    from gclip.training import RunConfig

    return RunConfig.of(trial.user_attrs["config"])


def summary_of(
    name: str, trials: Sequence[FrozenTrial], metric: Metric = ACCURACY
) -> dict[str, Any]:
    """A study at a glance: its name, how its trials ended, its metric, the best score and how."""
    ended = counts(trials)
    best = best_of(trials, metric)
    how = None
    if best is not None:
        config = best.user_attrs["config"]
        how = f"{config['strategy']}, lr {config['lr']:g}"
    return {
        "name": name,
        "trials": ended.trials,
        "diverged": ended.diverged,
        "pruned": ended.pruned,
        "failed": ended.failed,
        "score": None if best is None else float(best.values[0]),
        "metric": metric.to_dict(),
        "best": how,
    }
