"""A recurrent net."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gclip.training.models.registry import register_model
from gclip.training.models.shapes import a_share, at_least, sequence_shape


class LSTM(nn.Module):
    """Long short-term memory over a sequence; the head reads the last step's state."""

    def __init__(
        self, features: int, outputs: int, hidden: int, layers: int, dropout: float
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # torch warns of any where there is no between
        self.lstm = nn.LSTM(features, hidden, layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, ``(batch, outputs)``, of ``(batch, length, features)`` or of images."""
        if x.ndim == 4:
            x = x.transpose(1, 2).flatten(2)  # a row, its channels side by side, is a step
        states, _ = self.lstm(x)
        return cast(Tensor, self.fc(self.dropout(states[:, -1])))


@register_model("lstm")
def build(
    inputs: tuple[int, ...],
    outputs: int,
    *,
    hidden: int = 64,
    layers: int = 1,
    dropout: float = 0.0,
) -> nn.Module:
    """LSTM (Hochreiter & Schmidhuber, 1997) over a sequence, or over the rows of an image.

    Dropout between the layers and before the head, as in Zaremba et al. (2014).
    """
    at_least(1, hidden=hidden, layers=layers)
    a_share(dropout=dropout)
    return LSTM(sequence_shape(inputs)[1], outputs, hidden, layers, dropout)
