"""What is wrong with a training loop's clipping? ``gclip.doctor`` watches some steps, and says.

The package can be called: ``gclip.doctor(model, optimizer)`` is `examination.doctor`.
"""

import sys
from types import ModuleType
from typing import Any

from gclip.doctor.examination import Doctor as Doctor
from gclip.doctor.examination import doctor as examine
from gclip.doctor.findings import Finding as Finding
from gclip.doctor.findings import Findings as Findings

__all__ = ["examine"]


class _Callable(ModuleType):
    """A package that is called like the function that it is named after."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        return examine(*args, **named)


sys.modules[__name__].__class__ = _Callable
