"""A small vision transformer."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from gclip.errors import UsageError
from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, at_least, sequence_shape


class Attention(nn.Module):
    """Self-attention of several heads, in plain products, which torch differentiates and maps over
    runs and examples alike."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """The mixed tokens, ``(batch, tokens, dim)``."""
        query, key, value = (
            each.unflatten(2, (self.heads, -1)).transpose(1, 2) for each in self.qkv(x).chunk(3, 2)
        )
        weights = (query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])).softmax(-1)
        return cast(Tensor, self.out((weights @ value).transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention and a two-layer net, each beside a shortcut and after a layer norm."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The tokens, of the shape of `x`."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + cast(Tensor, self.dropout(self.mlp(self.norm2(x))))


class ViT(nn.Module):
    """Tokens of patches or of a sequence's steps, blocks, a layer norm, the mean, and a head."""

    def __init__(
        self,
        tokens: int,
        embed: nn.Module,
        outputs: int,
        *,
        dim: int,
        depth: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed = embed
        self.position = nn.Parameter(torch.empty(1, tokens, dim))
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.fc = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, ``(batch, outputs)``."""
        x = self.embed(x)
        if x.ndim == 4:
            x = x.flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(self.dropout(x + self.position)))
        return cast(Tensor, self.fc(x.mean(1)))


@register_model("vit")
def build(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    patch: int = 4,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
) -> nn.Module:
    """A small vision transformer (Dosovitskiy et al., 2021): tokens are `patch`×`patch` pixels.

    Of a sequence each step is a token. Layer norms come first in each block, and the mean of the
    tokens is read. Dropout after the embedding and on each branch.
    """
    at_least(1, patch=patch, dim=dim, heads=heads)
    at_least(0, depth=depth)
    a_share(dropout=dropout)
    if dim % heads:
        raise UsageError(f"heads must divide dim {dim}, but got {heads}")
    if len(inputs) == 3:
        channels, height, width = inputs
        if height % patch or width % patch:
            raise UsageError(f"patch must divide the image's height and width, but got {patch}")
        tokens = (height // patch) * (width // patch)
        embed: nn.Module = nn.Conv2d(channels, dim, patch, stride=patch)
    else:
        tokens, features = sequence_shape(inputs)
        embed = nn.Linear(features, dim)
    return ViT(tokens, embed, outputs, dim=dim, depth=depth, heads=heads, dropout=dropout)
