"""The registry of problems: known by name, whatever a problem is.

A config is checked with it, and a problem is asked for a config's runs: so neither file imports the
other.
"""

from __future__ import annotations

import functools
from typing import Any

from gclip.core.digest import class_digest
from gclip.core.fields import field_names
from gclip.core.named_registry import NamedRegistry
from gclip.core.spelling import read
from gclip.errors import UsageError, suggestion, unknown

PROBLEMS: NamedRegistry[Any] = NamedRegistry("problem", "gclip.problems", "gclip.problems")

SETTINGS = (
    *("fraction", "split", "model", "dropout", "optimizer", "lr", "momentum", "weight_decay"),
    *("optimizer_settings", "schedule", "batch_size", "accumulate", "epochs", "precision"),
    *("augment", "normalize", "nonfinite", "label_noise", "gradient_noise", "spikes", "watch"),
)
"""The fields of `gclip.training.RunConfig` that a problem may give defaults for."""

_EXAMPLE = "adding(length=200)"


@functools.lru_cache(maxsize=256)
def find_problem(task: str) -> Any:
    """The `gclip.Problem` that a task's spelling means; see `gclip.training.tasks.problem_of`.

    Raises:
        UsageError: an unknown name or field, or a value that a field refuses.
    """
    name, colon, rest = task.partition(":") if isinstance(task, str) else (task, "", "")
    if colon and "(" not in name and PROBLEMS.has(name.strip()):
        cls = PROBLEMS.get(name.strip())
        return cls(**{field_names(cls)[0]: rest.strip()})
    call = read(task, what="task", example=_EXAMPLE)
    if not PROBLEMS.has(call.name):
        unknown("task", call.name, PROBLEMS.names())
    cls = PROBLEMS.get(call.name)
    known = field_names(cls)
    for key in call.named:
        if key not in known:
            choices = ", ".join(known) or "none"
            raise UsageError(
                f"{cls.name}: unknown field {key!r}{suggestion(key, known)} (choices: {choices})"
            )
    return cls(**call.named)


def problem_code(problem: Any) -> str:
    """12 hex digits that change when a problem's code does, though not when its comments do; ""
    for the tasks whose code is the trainer's own."""
    return "" if problem.answers_for_itself else class_digest(type(problem))
