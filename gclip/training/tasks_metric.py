"""By what is a task measured, before any of its data is loaded?"""

from __future__ import annotations

from gclip.errors import choose
from gclip.training.checks import TASKS
from gclip.training.metric import ACCURACY, Metric


def metric_of_task(task: str) -> Metric:
    """The metric of a task: its name, its unit and which direction is better.

    The worst accuracy of image data depends on its classes, and so is known when it is loaded:
    here it is that of ten.

    Raises:
        UsageError: an unknown task.
    """
    choose(task, TASKS, "task")
    return ACCURACY
