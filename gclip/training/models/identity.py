"""Which code a model is: a part of the identity of every run of a plugin's model."""

from __future__ import annotations

from gclip.core.digest import digest_of_function, ships_with_gclip
from gclip.training.models.registry import get
from gclip.training.models.settings import parse


def code_digest(spelling: str) -> str:
    """12 hex digits that change when the code of a plugin's model does, though not when its
    comments do; "" for a model that ships with gclip, for which the library answers.

    What counts is the module in which its function is defined; in a notebook the function, and the
    functions, classes and plain values of the notebook that it names.

    Raises:
        UsageError: an unknown model or setting.
    """
    builder = get(parse(spelling)[0])
    return "" if ships_with_gclip(builder) else digest_of_function(builder)
