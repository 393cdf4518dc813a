"""Lightning, Transformers and Accelerate on two processes clip as a loop by hand on one.

Only under ``make frameworks``: two processes that load all three take most of a minute.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from tests import processes
from tests.integrations import distributed_child as child
from tests.integrations.frameworks import STEPS, by_hand

pytestmark = pytest.mark.skipif(
    not os.environ.get("GCLIP_FRAMEWORKS"), reason="make frameworks runs it"
)
CASES = [
    *(f"{name} ddp {kind}" for name in ("lightning", "transformers", "accelerate")
      for kind in child.STRATEGIES),
    *(f"{name} fsdp2 {kind}" for name in ("lightning", "accelerate") for kind in child.STRATEGIES),
    "transformers ddp resumed",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("frameworks")
    done = processes.torchrun(2, child.__file__, str(folder), folder=folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return processes.found(folder, 2)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_clip_as_one(case: str, found: list[dict[str, Any]]) -> None:
    first, second = (each[case] for each in found)
    strategy = child.STRATEGIES.get(case.split()[-1], child.STRATEGIES["memory"])
    model, clipper = by_hand(strategy)
    columns = clipper.record.arrays()
    assert columns["clipped"].any()
    for name in ("clipped", "skipped"):
        assert first[name].tolist() == columns[name].tolist()
    for name in ("norm", "clipped_norm"):
        mine, theirs = first[name], torch.from_numpy(columns[name])
        assert len(mine) == STEPS
        torch.testing.assert_close(mine[:20], theirs[:20], rtol=1e-6, atol=0)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)  # rounding has grown by then
    assert bool(first["sharded"]) == ("fsdp2" in case)
    for name, weight in model.named_parameters():
        assert torch.equal(first["weights"][name], second["weights"][name])
        off = (first["weights"][name] - weight.detach()).norm()
        assert off <= 1e-5 * weight.detach().norm()
