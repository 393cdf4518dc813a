"""The networks that are trained: those that ship with gclip, and any that a plugin registers.

::

    @gclip.register_model("mynet")
    def build(inputs, outputs, *, width: int = 64) -> nn.Module: ...

    models.build("mynet(width=128)", inputs=(3, 32, 32), outputs=10, seed=0)

A model's weights depend on its spelling, its inputs and outputs, and the seed alone.
"""

from gclip.training.models.builder import build as build
from gclip.training.models.identity import code_digest as code_digest
from gclip.training.models.registry import get as get
from gclip.training.models.registry import names as names
from gclip.training.models.registry import register_model as register_model
from gclip.training.models.settings import canonical as canonical
from gclip.training.models.settings import names_with as names_with
from gclip.training.models.settings import parse as parse
from gclip.training.models.settings import spelling_of as spelling_of

__all__ = [
    "build", "canonical", "code_digest", "get", "names", "names_with", "parse", "register_model",
    "spelling_of",
]  # fmt: skip
