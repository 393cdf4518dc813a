"""The options that make a ``gclip`` command train what a config says."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gclip.execution import Execution
    from gclip.training import RunConfig

# Given by other options, found out from the data, or the study's own.
_APART = {
    *("task", "data", "split", "selection", "strategy", "code", "model_code", "stepping"),
    *("seed", "lr"),
}
# These have no option: whoever sets them does so in a study file or in Python.
_UNSPOKEN = {"optimizer_settings", "nonfinite"}


def as_options(config: RunConfig, execution: Execution) -> str:
    """`` --fraction 0.1 --epochs 1 --lr 0.05``: what differs from the task's defaults.

    Without strategy, seed and split; the learning rate is always there.
    """
    from gclip.training import task_defaults

    usual = task_defaults(config.task).replace(optimizer=config.optimizer)
    usual_optimizer = task_defaults(config.task).optimizer
    parts = [] if config.task == "digits" else [f"--task {config.task}"]
    if execution.data is not None:
        parts.append(f"--data {shlex.quote(str(execution.data))}")
    for field in dataclasses.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name in _APART | _UNSPOKEN:
            continue
        if value == (usual_optimizer if name == "optimizer" else getattr(usual, name)):
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parts.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            parts.append(
                f"{flag} {value:g}"
                if isinstance(value, float)
                else f"{flag} {shlex.quote(str(value))}"
            )
    parts.append(f"--lr {config.lr:g}")
    parts += [f"--plugin {shlex.quote(str(plugin))}" for plugin in execution.plugins]
    return " " + " ".join(parts)
