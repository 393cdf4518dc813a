"""The records of a run's players, put together in the order of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gclip.clipping.nonfinite import FirstNonfinite
from gclip.clipping.record import Record


class PlayerRecords:
    """What clipping did to each player.

    Args:
        records: of each player, by name.

    Attributes:
        sequence: the player of each step.
    """

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = dict(records)
        self.sequence: list[str] = []

    def combined(self) -> Record:
        """One record with all players' steps, in the order in which they were made."""
        if len(self._records) == 1:
            return next(iter(self._records.values()))
        rows = {name: each.state_dict()["rows"] for name, each in self._records.items()}
        order = np.array(self.sequence)
        kinds = [each.dtype for each in rows.values() if len(each)] or [torch.float32]
        wide = torch.float64 if torch.float64 in kinds else torch.float32
        columns = next(iter(rows.values())).shape[1]
        together = torch.zeros(len(order), columns, dtype=wide)
        for name, own in rows.items():
            places = torch.from_numpy(np.flatnonzero(order == name))
            together[places] = own[: len(places)].to(wide)
        record = Record()
        record.load_state_dict({"rows": together})
        record.locate(self._first_not_finite(order))
        return record

    def _first_not_finite(self, order: npt.NDArray[np.str_]) -> FirstNonfinite | None:
        """Of all players, numbered as their steps follow one another."""
        found = []
        for name, each in self._records.items():
            own, places = each.first_not_finite, np.flatnonzero(order == name)
            if own is not None and own.step < len(places):
                names = tuple(f"{name}.{parameter}" for parameter in own.parameters)
                found.append(FirstNonfinite(int(places[own.step]), names))
        return min(found, key=lambda each: each.step, default=None)

    def players(self, steps: int) -> dict[str, Any] | None:
        """Of the first `steps` steps: each player's summary, by name, and whose step each was.

        None where there is one player.
        """
        if len(self._records) == 1:
            return None
        order = np.array(self.sequence[:steps])
        summaries = {}
        for name, record in self._records.items():
            count = int((order == name).sum())
            summaries[name] = record.first(count).summary().as_dict()
        names = list(self._records)
        return {
            "names": names,
            "summaries": summaries,
            "of_step": np.array([names.index(name) for name in order], dtype=np.int8),
        }
