"""Characters of a text, each guessed from those before it."""

from __future__ import annotations

import hashlib
import math
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gclip.core.fields import setting
from gclip.errors import UsageError
from gclip.training.config import RunConfig
from gclip.training.metric import Metric
from gclip.training.problem import Losses, Problem, Source
from gclip.training.run_state import RunState
from gclip.training.tasks import register_problem

VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
"""The newline and all of ASCII that can be printed; a text's other characters are left out."""

# Pure Python since long before 3.11, and there in every version since.
MODULES = ("argparse", "ast", "bdb", "calendar", "cmd", "codecs", "configparser", "copy")

_HELD_OUT = 10  # a tenth is tested on, and the tenth before it is for validation
_ROWS = 20  # of the text that is measured on, read side by side


def encode(text: str) -> Tensor:
    """``text`` as indices into `VOCABULARY`, uint8 ``(characters,)``; others are left out."""
    kept = text.expandtabs(4).encode("ascii", "ignore")
    known = bytes(VOCABULARY, "ascii")
    table = bytes(known.index(code) if code in known else 255 for code in range(256))
    indices = torch.frombuffer(bytearray(kept.translate(table)), dtype=torch.uint8)
    return indices[indices != 255]


class CharacterModel(nn.Module):
    """An LSTM over characters.

    Args:
        hidden: units; half as many numbers stand for a character.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        size = len(VOCABULARY)
        self.embed = nn.Embedding(size, max(1, hidden // 2))
        self.recurrent = nn.LSTM(max(1, hidden // 2), hidden, batch_first=True)
        self.out = nn.Linear(hidden, size)

    def forward(self, characters: Tensor) -> Tensor:
        """int64 ``(rows, length)`` → logits of what comes next ``(rows, length, vocabulary)``."""
        states, _ = self.recurrent(self.embed(characters))
        logits: Tensor = self.out(states)
        return logits


@register_problem("chars")
@dataclass(frozen=True, kw_only=True)
class Chars(Problem):
    """Guess each character of Python source code from those before it (Mikolov, 2012).

    The text is that of eight modules of Python's own standard library, 330,000 characters, so that
    no network is needed; which version's they are is a part of a run's identity. An even guess
    takes log₂ 96 = 6.58 bits, which is what a diverged run scores.

    The defaults are found by a short search over rates of gradient descent: at ``--lr 2`` runs with
    and without clipping end alike (2.4 bits), at 4 they begin to differ, and at the default 8 a few
    steps at the start spoil a run without clipping, which ``norm`` clips: one step in 350.
    """

    hidden: int = setting(64, at_least=1, doc="units of the LSTM")
    context: int = setting(48, at_least=1, doc="characters that a gradient goes back over")

    metric = Metric("bits per character", better="lower", worst=math.log2(len(VOCABULARY)), low=0.0)
    defaults = {"optimizer": "sgd", "lr": 8.0, "batch_size": 32, "epochs": 2}
    small = {"epochs": 2, "hidden": 8, "batch_size": 256}

    def data(self, source: Source) -> dict[str, Tensor]:
        """The text as indices, uint8: the last tenth to test on, that before it to validate on."""
        folder = Path(sysconfig.get_path("stdlib")) if source.folder is None else source.folder
        texts = []
        for name in MODULES:
            file = folder / f"{name}.py"
            try:
                texts.append(file.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"the text is that of Python's standard library, but {file} cannot be read "
                    f"({error}); name the folder of a Python installation's library"
                ) from error
        text = encode("".join(texts))
        part = len(text) // _HELD_OUT
        return {
            "train": text[: -2 * part],
            "validation": text[-2 * part : -part],
            "test": text[-part:],
        }

    def identity(self, data: dict[str, Tensor]) -> str:
        """Digest of the text, which differs from one version of Python to the next."""
        together = torch.cat([data[name] for name in ("train", "validation", "test")])
        return hashlib.sha256(together.cpu().numpy().tobytes()).hexdigest()

    def players(self, config: RunConfig) -> nn.Module:
        """The LSTM."""
        return CharacterModel(self.hidden)

    def batches_per_epoch(self, state: RunState) -> int:
        """As many as together have the text's length."""
        return math.ceil(len(state.data["train"]) / (self.context * state.config.batch_size))

    def batches(self, state: RunState, epoch: int) -> Iterator[Tensor]:
        """Pieces of the text, from anywhere in it: int64 ``(batch, context + 1)``."""
        text, generator = state.data["train"], state.generator("batches")
        steps = torch.arange(self.context + 1)
        for _ in range(self.batches_per_epoch(state)):
            starts = torch.randint(
                0, len(text) - self.context, (state.config.batch_size, 1), generator=generator
            )
            yield text[(starts + steps).to(state.device)].long()

    def losses(self, players: Mapping[str, nn.Module], batch: Any) -> Losses:
        """The mean cross-entropy of every next character, in nats."""
        yield "model", cross_entropy(players["model"], batch)

    def evaluate(
        self, players: Mapping[str, nn.Module], state: RunState, split: str
    ) -> Mapping[str, float]:
        """Bits per character: the split's text read from beginning to end, as 20 rows."""
        text = state.data[split]
        length = (len(text) - 1) // _ROWS
        rows = text[: _ROWS * length + 1].long().unfold(0, length + 1, length)
        nats = float(cross_entropy(players["model"], rows))
        return {self.metric.name: nats / math.log(2), "loss": nats}


def cross_entropy(model: nn.Module, characters: Tensor) -> Tensor:
    """Of every character but each row's first, given those before it; in nats, ``()``."""
    logits = model(characters[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), characters[:, 1:].flatten())
