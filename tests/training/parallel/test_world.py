"""Which process is this one, what does it compute on, and what if nobody else comes?"""

from __future__ import annotations

import datetime
import socket

import pytest
import torch

import gclip
from gclip.training import World
from gclip.training.parallel import world as worlds
from gclip.training.parallel.batch_share import BatchShare, own_rows
from gclip.training.parallel.world import LostProcess, own_device
from tests import processes

pytestmark = processes.NEEDED


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the second process of three on a machine."""
    for name, value in {
        "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"WORLD_SIZE": "1"}, "WORLD_SIZE is not above 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is not above 1"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        ({"RANK": ""}, "RANK is not set"),
    ],
)
def test_who_may_join(change: dict[str, str], words: str, launched: pytest.MonkeyPatch) -> None:
    for name, value in change.items():
        launched.setenv(name, value)
    with pytest.raises(gclip.UsageError, match="is started by torchrun .*" + words):
        World.join("cpu")


@pytest.mark.filterwarnings("ignore")
def test_nobody_comes(launched: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        launched.setenv("MASTER_PORT", str(free.getsockname()[1]))
    launched.setenv("RANK", "0")
    with pytest.raises(LostProcess, match="does not answer"):
        World.join("cpu", patience=datetime.timedelta(seconds=0.3))
    assert not torch.distributed.is_initialized()


def test_each_process_takes_a_gpu_of_its_own(launched: pytest.MonkeyPatch) -> None:
    launched.setattr(torch.cuda, "is_available", lambda: True)
    launched.setattr(torch.cuda, "device_count", lambda: 2)
    worlds._gpus.cache_clear()
    assert own_device("cuda") == torch.device("cuda", 1)
    assert own_device("auto") == torch.device("cuda", 1)
    assert own_device("cuda:0") == torch.device("cuda", 0)
    assert own_device("cpu") == torch.device("cpu")
    launched.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(gclip.UsageError, match="this machine has 2 for 3 processes"):
        own_device("cuda")
    worlds._gpus.cache_clear()


def test_a_macs_gpu_exchanges_nothing(launched: pytest.MonkeyPatch) -> None:
    launched.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(gclip.UsageError, match="device mps cannot exchange gradients"):
        own_device("mps")


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("count", [1, 4, 10, 23])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 10])
def test_every_row_of_every_batch_is_somebodys(size: int, count: int, batch_size: int) -> None:
    shares = [BatchShare(rank, size) for rank in range(size)]
    every = torch.cat([share.of_batches(count, batch_size) for share in shares])
    assert sorted(every.tolist()) == list(range(count))
    for share in shares:
        own = share.of_batches(count, batch_size).tolist()
        for start in range(0, count, batch_size):
            total = share.divide(min(batch_size, count - start)).total
            rows = [each - start for each in own if start <= each < start + total]
            assert rows == list(range(share.start, share.stop))
    counts = [stop - start for start, stop in (own_rows(count, r, size) for r in range(size))]
    assert max(counts) - min(counts) <= 1
