"""What a strategy, a problem or a model is, as data: read from its code, and from running it.

Nothing here names one of them: whatever is registered describes itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gclip.core.lazy import lazy_attributes

if TYPE_CHECKING:
    from gclip.describe.costs import costs_file as costs_file
    from gclip.describe.costs import read_costs as read_costs
    from gclip.describe.costs import write_costs as write_costs
    from gclip.describe.examples import NORMS as NORMS
    from gclip.describe.examples import Example as Example
    from gclip.describe.examples import example as example
    from gclip.describe.memory import Footprint as Footprint
    from gclip.describe.memory import footprint as footprint
    from gclip.describe.models import ModelDescription as ModelDescription
    from gclip.describe.models import describe_model as describe_model
    from gclip.describe.parameters import Parameter as Parameter
    from gclip.describe.parameters import format_value as format_value
    from gclip.describe.parameters import number as number
    from gclip.describe.problems import ProblemDescription as ProblemDescription
    from gclip.describe.problems import describe_problem as describe_problem
    from gclip.describe.strategies import FAMILIES as FAMILIES
    from gclip.describe.strategies import SIDE_WORDS as SIDE_WORDS
    from gclip.describe.strategies import Description as Description
    from gclip.describe.strategies import describe as describe
    from gclip.describe.strategies import families as families

# Loaded on first use: what is kept of a description is shown without torch.
_HOME = {
    "Description": "strategies",
    "Example": "examples",
    "FAMILIES": "strategies",
    "Footprint": "memory",
    "ModelDescription": "models",
    "NORMS": "examples",
    "Parameter": "parameters",
    "ProblemDescription": "problems",
    "SIDE_WORDS": "strategies",
    "costs_file": "costs",
    "describe": "strategies",
    "describe_model": "models",
    "describe_problem": "problems",
    "example": "examples",
    "families": "strategies",
    "footprint": "memory",
    "format_value": "parameters",
    "number": "parameters",
    "read_costs": "costs",
    "write_costs": "costs",
}

__all__ = sorted(_HOME)

__getattr__ = lazy_attributes(__name__, _HOME)
