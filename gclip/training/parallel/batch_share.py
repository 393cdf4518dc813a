"""Which rows of a batch are whose?"""

from __future__ import annotations

import torch
from torch import Tensor


class BatchShare:
    """The rows of the batch at hand that this process computes: all processes have about as many.

    Batches are drawn by all processes alike, so that whose rows they are is all that differs.

    Args:
        rank, size: which process of how many.

    Attributes:
        total: how many rows the batch has.
        start, stop: of this process's rows in it.
        is_whole: whether every process computes all rows, so that nothing is shared.
    """

    def __init__(self, rank: int, size: int) -> None:
        self._rank, self._size = rank, size
        self.total = self.start = self.stop = 0
        self.is_whole = False

    @property
    def count(self) -> int:
        """How many rows this process has; none where there are more processes than rows."""
        return self.stop - self.start

    def divide(self, total: int) -> BatchShare:
        """The batch at hand has `total` rows from now on; returns itself."""
        self.total, self.is_whole = total, False
        self.start, self.stop = own_rows(total, self._rank, self._size)
        return self

    def keep_whole(self, total: int) -> BatchShare:
        """Every process computes all `total` rows of the batch at hand; returns itself."""
        self.total, self.is_whole = total, True
        self.start, self.stop = 0, total
        return self

    def of_batches(self, count: int, batch_size: int) -> Tensor:
        """Where this process's rows stand among `count`, of which each `batch_size` are a batch.

        The last batch may be smaller.
        """
        places = torch.arange(count)
        start, stop = own_rows(batch_size, self._rank, self._size)
        whole = count - count % batch_size
        within = places[:whole] % batch_size
        first, last = own_rows(count % batch_size, self._rank, self._size)
        mine = places[:whole][(within >= start) & (within < stop)]
        return torch.cat([mine, places[whole + first : whole + last]])


def own_rows(total: int, rank: int, size: int) -> tuple[int, int]:
    """Start and stop of one process's rows among `total`: the shares differ by one at most."""
    return total * rank // size, total * (rank + 1) // size
