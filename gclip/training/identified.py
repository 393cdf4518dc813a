"""A config is trained only with the data and the code that it names."""

from __future__ import annotations

from gclip.core import registry
from gclip.core.digest import code_digest
from gclip.errors import UsageError
from gclip.training import models
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.problem_data import ProblemData
from gclip.training.problem_registry import problem_code
from gclip.training.tasks import problem_of


def identified_config(config: RunConfig, dataset: Dataset | ProblemData) -> RunConfig:
    """The config with the data's identity; an error where it was made for other data or code."""
    if dataset.name != config.task:
        raise UsageError(f"the config's task is {config.task}, but the data is {dataset.name}")
    if config.data and config.data != dataset.identity:
        raise UsageError(
            f"the config was made for the data {config.data}, but the data given is "
            f"{dataset.identity or 'the embedded ones'}"
        )
    if problem_code(problem_of(config.task)) != config.problem_code:
        raise UsageError(
            f"the code of task {config.task} is not what the config was made with; make it anew "
            "with config.replace(problem_code='')"
        )
    if code_digest(registry.parse_for_run(config.strategy)) != config.code:
        raise UsageError(
            f"the code of {config.strategy} is not what the config was made with; make it anew "
            "with config.replace(code='')"
        )
    if config.model and models.code_digest(config.model) != config.model_code:
        raise UsageError(
            f"the code of the model {config.model} is not what the config was made with; make it "
            "anew with config.replace(model_code='')"
        )
    if config.stepping != config.replace(stepping=None).stepping:
        raise UsageError(
            "the config is of a run made before skipped steps were left out and strategies saw the "
            "learning rate of their own step, which cannot be made again; make it anew with "
            "config.replace(stepping=None)"
        )
    return config.with_data(dataset)
