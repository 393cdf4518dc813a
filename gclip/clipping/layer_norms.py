"""Where do gradients explode or vanish? The norm of each layer's, before and after clipping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gclip.clipping.dtensor import align, group, is_sharded, refuse_flat
from gclip.clipping.gradients import gradients
from gclip.clipping.layer_record import LayerRecord
from gclip.clipping.parameter_sources import ModuleSource, differing
from gclip.clipping.sparse import stored
from gclip.clipping.thinned_rows import NONE, ThinnedRows
from gclip.errors import UsageError, choose


class LayerNorms:
    """Records the L2 norm of each layer's gradient around whatever clips, in any loop.

    >>> import torch, gclip
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))
    >>> layers = gclip.LayerNorms(model)
    >>> for _ in range(3):
    ...     model(torch.ones(4, 2)).sum().backward()
    ...     layers.before()
    ...     norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)  # or clipper.step()
    ...     layers.after()
    ...     model.zero_grad()
    >>> record = layers.record()
    >>> record.names, record.before.shape
    (('0', '2'), (3, 2))
    >>> bool((record.after < record.before).all())
    True

    A layer is a module's own tensors, as for the scope ``layer``; its norm is that of all of them
    together. However long the run, the record has at most 256 points in time
    (`gclip.clipping.thinned_rows`), and nothing waits for a GPU until it is read.

    Args:
        modules: the model; or several by name, of which each makes steps of its own.

    Raises:
        UsageError: a module has no parameters, or parameters whose full norms cannot be told.
    """

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module]) -> None:
        each = {"": modules} if isinstance(modules, nn.Module) else dict(modules)
        if not each:
            raise UsageError("LayerNorms takes a model, or models by name, but got none")
        self._meters = {name: _Meter(module) for name, module in each.items()}
        pairs = [(p, layer) for p, meter in self._meters.items() for layer in meter.layers]
        several = len(each) > 1
        self.names = tuple(f"{p}.{layer}" if several else layer for p, layer in pairs)
        self._players = tuple(p if several else "" for p, _ in pairs)
        starts = np.cumsum([0, *(len(meter.layers) for meter in self._meters.values())])
        self._starts = dict(zip(each, map(int, starts), strict=False))
        self._rows = ThinnedRows(len(_PARTS) * len(self.names))
        self._wide = False  # whether any norm was float64
        self._open: tuple[str, Tensor] | None = None
        self._last: tuple[str, Tensor, Tensor] | None = None
        self._skipped: Tensor | bool | None = None

    def __len__(self) -> int:
        """How many steps were recorded."""
        return len(self._rows) + (self._last is not None)

    @torch.no_grad()
    def before(self, name: str | None = None) -> None:
        """Measure the gradients of a step before they are clipped.

        Args:
            name: of the module that makes the step, where there are several.

        Raises:
            UsageError: `after` was not called for the step before; an unknown name; the module has
                other parameters than when this began.
        """
        if self._open is not None:
            raise UsageError("LayerNorms.before() was called twice: call after() between")
        self._settle()
        if name is None and len(self._meters) == 1:
            name = next(iter(self._meters))
        if name not in self._meters:
            name = choose(name or "", list(self._meters), "name of LayerNorms")
        self._open = name, self._meters[name].measure()

    @torch.no_grad()
    def after(self, skipped: Tensor | bool | None = None) -> None:
        """Measure them again, when they have been clipped and before the optimizer's step.

        Args:
            skipped: whether the step is left out, bool or bool ``(1,)``: ``report.skipped``.

        Raises:
            UsageError: `before` was not called.
        """
        if self._open is None:
            raise UsageError("LayerNorms.after() needs before(), ahead of clipping")
        (name, before), self._open = self._open, None
        self._last = name, before, self._meters[name].measure()
        self._skipped = skipped

    def skip(self, skipped: Tensor | bool) -> None:
        """Say of the latest step whether it was left out, where that is known only afterwards."""
        self._skipped = skipped

    def record(self, steps: int | None = None) -> LayerRecord:
        """What there is of the first `steps` steps (all by default), as arrays; waits for a GPU."""
        self._settle()
        points = self._rows.points(steps)
        kind = np.float64 if self._wide else np.float32

        def part(key: str, index: int) -> Any:
            values = points[key].reshape(-1, len(_PARTS), len(self.names))
            return values[:, index].numpy().astype(kind)

        with np.errstate(invalid="ignore"):  # NaN where a player made no step
            skipped = part("positive", _SKIPPED) / part("count", _SKIPPED)
        return LayerRecord(
            names=self.names,
            players=self._players,
            step=points["step"].numpy(),
            before=part("mean", _BEFORE),
            after=part("mean", _AFTER),
            before_max=part("largest", _BEFORE),
            after_max=part("largest", _AFTER),
            skipped=skipped,
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it, on the CPU; loads with ``torch.load(weights_only=True)``."""
        self._settle()
        return {"names": list(self.names), "wide": self._wide, "rows": self._rows.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken.

        Raises:
            UsageError: it is of other layers.
        """
        if tuple(state["names"]) != self.names:
            raise UsageError(
                f"the saved norms are of {len(state['names'])} layers, from "
                f"{state['names'][0]!r} on, which are not those of this model"
            )
        self._open = self._last = None
        self._wide = state["wide"]
        self._rows.load_state_dict(state["rows"])

    def _settle(self) -> None:
        """Note the latest step, of which no more will be said."""
        if self._last is None:
            return
        (name, before, after), self._last = self._last, None
        skipped = self._skipped
        if isinstance(skipped, Tensor) and not skipped.is_cpu:
            flag = skipped.reshape(()).to(after.device)
            after = torch.where(flag, NONE, after)
            flags = flag.to(after.dtype).expand_as(after)
        else:
            after = torch.full_like(after, NONE) if skipped else after
            flags = torch.full_like(after, float(bool(skipped)))
        self._wide = self._wide or torch.float64 in (before.dtype, after.dtype)
        wide = torch.promote_types(before.dtype, after.dtype)
        own = torch.stack([before.to(wide), after.to(wide), flags.to(wide)])
        if len(self._meters) > 1:
            row = own.new_full((len(_PARTS), len(self.names)), NONE)
            start = self._starts[name]
            row[:, start : start + own.shape[1]] = own
            own = row
        self._rows.add(own.flatten())


class _Meter:
    """Measures the layers of one module."""

    def __init__(self, module: nn.Module) -> None:
        self._source = ModuleSource(module)
        self._named = self._source.read()
        refuse_flat(self._named.params)
        self._params = list(self._named.params)
        self._sharded = any(map(is_sharded, self._params))
        self._groups = group(self._named.names, self._params, "layer")
        self.layers = self._groups.labels
        self._present: dict[tuple[bool, ...], Tensor] = {}

    def measure(self) -> Tensor:
        """The norm of each layer, ``(layers,)``; `NONE` where none of its tensors has a gradient.

        Raises:
            UsageError: the module has other parameters than in the beginning.
        """
        if self._source.changed() and (other := differing(self._named, self._source.read())):
            raise UsageError(
                f"the model has other parameters than when its layers were first watched "
                f"({', '.join(other[:3])}): make another LayerNorms"
            )
        if self._sharded:
            align(self._params)
        grads = [_rows_of(grad) for grad in gradients(self._params)]
        device = next((g.device for g in grads if g is not None), None)
        if device is None:
            return torch.full((len(self.layers),), NONE)
        norms, _ = self._groups.measure(grads, 2.0, device)
        there = tuple(grad is not None for grad in grads)
        if all(there):
            return norms
        if there not in self._present:
            self._present[there] = self._groups.present(grads, device)
        return torch.where(self._present[there].to(norms.device), norms, NONE)


_PARTS = _BEFORE, _AFTER, _SKIPPED = 0, 1, 2
"""Of a row: norms before, norms after, and whether the step was skipped, a number a layer each."""


def _rows_of(grad: Tensor | None) -> Tensor | None:
    """A gradient's elements; of a sparse one its rows, each once."""
    if grad is None or not grad.is_sparse:
        return grad
    return stored(grad.coalesce())
