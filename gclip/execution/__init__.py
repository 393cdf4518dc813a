"""Many runs at a time: pools of worker processes, comparisons, and resuming both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip.execution.compare import choose_baseline as choose_baseline
    from gclip.execution.compare import compare as compare
    from gclip.execution.compare import compare_configs as compare_configs
    from gclip.execution.comparison import Comparison as Comparison
    from gclip.execution.events import Event as Event
    from gclip.execution.events import Listener as Listener
    from gclip.execution.execution import Execution as Execution
    from gclip.execution.in_process import InProcess as InProcess
    from gclip.execution.job import Job as Job
    from gclip.execution.machine import cores as cores
    from gclip.execution.machine import workers_for as workers_for
    from gclip.execution.pool import Pool as Pool
    from gclip.execution.processes import Processes as Processes
    from gclip.execution.processes import WorkersFailed as WorkersFailed
    from gclip.execution.run_all import open_pool as open_pool
    from gclip.execution.run_all import run_all as run_all

_HOME = {
    "Comparison": "comparison",
    "Event": "events",
    "Execution": "execution",
    "InProcess": "in_process",
    "Job": "job",
    "Listener": "events",
    "Pool": "pool",
    "Processes": "processes",
    "WorkersFailed": "processes",
    "choose_baseline": "compare",
    "compare": "compare",
    "compare_configs": "compare",
    "cores": "machine",
    "open_pool": "run_all",
    "run_all": "run_all",
    "workers_for": "machine",
}

__all__ = sorted(_HOME)

__getattr__ = lazy_attributes(__name__, _HOME)
