"""Training: what a run is (`RunConfig`), running it (`train`), and what came of it (`RunResult`).

::

    result = train(RunConfig(strategy="agc", seed=3))
    result.accuracy, result.clipping["verdict"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip.training.batches import Epoch as Epoch
    from gclip.training.batches import Normalizer as Normalizer
    from gclip.training.batches import batches as batches
    from gclip.training.config import RunConfig as RunConfig
    from gclip.training.contract import check_model as check_model
    from gclip.training.contract import check_problem as check_problem
    from gclip.training.contract import examine_model as examine_model
    from gclip.training.contract import examine_problem as examine_problem
    from gclip.training.contract import model_promises as model_promises
    from gclip.training.contract import problem_promises as problem_promises
    from gclip.training.data import load_dataset as load_dataset
    from gclip.training.dataset import Dataset as Dataset
    from gclip.training.device import resolve_device as resolve_device
    from gclip.training.fleet.train import train_fleet as train_fleet
    from gclip.training.metric import Metric as Metric
    from gclip.training.parallel.world import World as World
    from gclip.training.problem import Problem as Problem
    from gclip.training.problem import Source as Source
    from gclip.training.problem_data import ProblemData as ProblemData
    from gclip.training.recipes import recipes as recipes
    from gclip.training.recipes import task_defaults as task_defaults
    from gclip.training.result import RunResult as RunResult
    from gclip.training.run_state import RunState as RunState
    from gclip.training.supervised import Supervised as Supervised
    from gclip.training.tasks import load_data as load_data
    from gclip.training.tasks import register_problem as register_problem
    from gclip.training.trainer import Progress as Progress
    from gclip.training.trainer import train as train

# Loaded on first use: what reads a metric's name need not wait for torch.
_HOME = {
    "Dataset": "dataset",
    "Epoch": "batches",
    "Metric": "metric",
    "Normalizer": "batches",
    "Problem": "problem",
    "ProblemData": "problem_data",
    "Progress": "trainer",
    "RunConfig": "config",
    "RunResult": "result",
    "RunState": "run_state",
    "Source": "problem",
    "Supervised": "supervised",
    "World": "parallel.world",
    "batches": "batches",
    "check_model": "contract",
    "check_problem": "contract",
    "examine_model": "contract",
    "examine_problem": "contract",
    "load_data": "tasks",
    "load_dataset": "data",
    "model_promises": "contract",
    "problem_promises": "contract",
    "recipes": "recipes",
    "register_problem": "tasks",
    "resolve_device": "device",
    "task_defaults": "recipes",
    "train": "trainer",
    "train_fleet": "fleet.train",
}

__all__ = sorted(_HOME)

__getattr__ = lazy_attributes(__name__, _HOME)
