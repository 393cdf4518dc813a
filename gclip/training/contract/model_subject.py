"""The model under test, the inputs that it takes, and examples of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from gclip.core.source_location import told
from gclip.errors import UsageError
from gclip.training import models
from gclip.training.contract.contract import Contract
from gclip.training.contract.world import world

OUTPUTS = 4
SHAPES = ((7,), (5, 6), (3, 16, 16), (1, 16, 16), (3, 32, 32))
"""Shapes of one example that are tried: features, a sequence, images."""


class ModelSubject:
    """A model, and what a promise needs to try it out.

    Attributes:
        spelling: of the model.
        seed: of the weights and the examples.
        inputs: shapes of one example that it takes, the smallest first.

    Raises:
        UsageError: it is no registered model, or takes none of the inputs.
    """

    def __init__(
        self,
        model: str | Callable[..., nn.Module],
        seed: int = 0,
        inputs: Iterable[tuple[int, ...]] | None = None,
    ) -> None:
        self.spelling, self.seed = models.spelling_of(model), seed
        self.builder = models.get(models.parse(self.spelling)[0])
        self._built: dict[tuple[tuple[int, ...], int, int], nn.Module] = {}
        self.inputs = self._taken(SHAPES if inputs is None else tuple(inputs), inputs is not None)

    @property
    def excused(self) -> Mapping[str, str]:
        """Promises that its function says it cannot keep: ``build.excused = {"saved": "…"}``."""
        excuses: Mapping[str, str] = getattr(self.builder, "excused", {})
        return excuses

    def model(
        self, inputs: tuple[int, ...], seed: int | None = None, outputs: int = OUTPUTS
    ) -> nn.Module:
        """A model of its own, as `gclip.build_model` makes it."""
        key = (inputs, self.seed if seed is None else seed, outputs)
        if key not in self._built:
            with world(0):
                self._built[key] = models.build(self.spelling, inputs, outputs, key[1])
        return copy.deepcopy(self._built[key])

    def examples(self, inputs: tuple[int, ...], count: int = 3) -> Tensor:
        """Standard normal examples, ``(count, *inputs)``."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, *inputs, generator=generator)

    def _taken(
        self, shapes: tuple[tuple[int, ...], ...], asked: bool
    ) -> tuple[tuple[int, ...], ...]:
        """The shapes that it can be built for and applied to; all of them where they were asked
        for. Of images the first that does is enough."""
        found: list[tuple[int, ...]] = []
        why = ""
        for shape in shapes:
            if not asked and len(shape) == 3 and any(len(each) == 3 for each in found):
                continue
            try:
                with world(0), torch.no_grad():
                    self.model(shape).eval()(self.examples(shape))
            except Exception as error:
                why = str(error) if isinstance(error, UsageError) else told(error)
                if asked:
                    break
                continue
            found.append(tuple(shape))
        if not found or (asked and why):
            raise UsageError(
                f"the model {self.spelling} cannot be tried with inputs of "
                f"{', '.join(map(str, shapes))}: {why}"
            )
        return tuple(found)


CONTRACT: Contract[ModelSubject] = Contract("model_forms", "model_bits", "model_training")
