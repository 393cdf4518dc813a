"""Spectral clipping: limit a matrix's singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gclip import Elements, Memory, Transform, register, tunable
from gclip.core.host import on_host


@register("spectral")
@dataclass(frozen=True, kw_only=True)
class Spectral(Transform):
    """Clamp the singular values of each gradient matrix: G = UΣVᵀ ← U·min(Σ, τ)·Vᵀ.

    The largest directions shrink to τ, all others keep their size; ‖G‖ ≤ τ in the spectral norm. A
    convolution's weights are seen as (filters, all the rest); biases and gains are left alone. A
    matrix whose largest singular value is at most τ keeps every bit. No memory.

    Cost: a full decomposition of every matrix at every step, O(rows·columns·min(rows, columns)).
    On a GPU ``torch.linalg.svd`` also waits for its result, the one strategy here that does; so
    would ``eigh``, and the eigenvalues of GᵀG lose half the digits. For large layers the paper
    computes the leading values only, by a randomized method, which is not done here.

    Yukhimchuk, Kolar, Takáč, Choudhury (2026), Gradient Clipping Beyond Vector Norms: A Spectral
    Approach for Matrix-Valued Parameters, arXiv:2605.11838.
    """

    equation = "G = UΣVᵀ ← U·min(Σ, τ)·Vᵀ"
    paper = "Yukhimchuk et al. 2026, arXiv:2605.11838"
    family = "changes elements"
    view = "matrix"
    excused: ClassVar[dict[str, str]] = {
        "no_waiting": "torch.linalg.svd waits for its result on a GPU"
    }

    threshold: float = tunable(1.0, low=1e-3, high=100.0, log=True, doc="largest singular value, τ")

    def transform(self, seen: Elements, memory: Memory) -> tuple[Tensor, Memory]:
        values = seen.values
        # No singular value is above the norm of all, with room for both roundings.
        most = torch.linalg.vector_norm(values, dim=(-2, -1)) * 1.001
        if on_host(most) and bool((most <= self.threshold).all()):
            return values, {}
        # The decomposition raises an error for what is not finite; the clipper has a policy for it.
        finite = torch.isfinite(values).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
        left, sigma, right = torch.linalg.svd(torch.where(finite, values, 0.0), full_matrices=False)
        clipped = (left * sigma.clamp(max=self.threshold).unsqueeze(-2)) @ right
        over = sigma.amax(dim=-1, keepdim=True).unsqueeze(-1) > self.threshold
        return torch.where(over, clipped, values), {}
