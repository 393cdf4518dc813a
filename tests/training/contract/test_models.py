"""Every shipped model against every promise, and the promises against broken models."""

from __future__ import annotations

import pytest
from torch import nn

import gclip
from gclip.core.digest import ships_with_gclip
from gclip.testing import ContractBroken
from gclip.testing.promises import Result
from gclip.training import check_model, examine_model, model_promises, models

PROMISES = tuple(promise.name for promise in model_promises())
SHIPPED = tuple(name for name in models.names() if ships_with_gclip(models.get(name)))

# Each breaks exactly this promise.
BREAKS = {
    "undocumented-net": "documented",
    "wide": "shapes",
    "needs-two": "batches",
    "mixes": "evaluates",
    "reads-memory": "channels_last",
    "draws-elsewhere": "same_seed",
    "one-seed-net": "same_seed",
    "seeds-the-world-net": "global_state",
    "remembers": "saved",
    "unused": "gradients",
    "keeps-its-graph": "trains",
}


def breaks(results: list[Result]) -> dict[str, str]:
    return {r.promise: " | ".join(r.said) for r in results if r.state == "broken"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_model_keeps_every_promise(name: str) -> None:
    results = check_model(name)
    assert [result.promise for result in results] == list(PROMISES)


def test_what_the_broken_ones_derive_from_is_sound() -> None:
    assert {result.state for result in check_model("sound-net")} == {"ok"}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_model_breaks_this_promise_and_no_other(name: str) -> None:
    found = breaks(examine_model(name))
    assert set(found) == {BREAKS[name]}, found


def test_every_promise_can_be_broken() -> None:
    assert set(BREAKS.values()) == set(PROMISES)


def test_functions_inputs_and_excuses(monkeypatch: pytest.MonkeyPatch) -> None:
    build = models.get("unused")
    with pytest.raises(ContractBroken, match=r"inputs \(3,\): no gradient reaches other.weight"):
        check_model(build, inputs=[(3,)], only="gradients")
    monkeypatch.setattr(build, "excused", {"gradients": "a part of another net"}, raising=False)
    [result] = check_model("unused", only="gradients")
    assert (result.state, result.said) == ("does not apply", ("a part of another net",))


def test_wrong_input() -> None:
    with pytest.raises(gclip.UsageError, match="unknown model 'soun-net'; did you mean"):
        check_model("soun-net")
    with pytest.raises(gclip.UsageError, match="unknown promise 'save'; did you mean 'saved'"):
        check_model("sound-net", only=["save"])
    with pytest.raises(gclip.UsageError, match="decorated, but got <class"):
        check_model(nn.Linear)
    with pytest.raises(gclip.UsageError, match=r"lenet cannot be tried .*\(3, 8, 8\).* 16×16"):
        check_model("lenet", inputs=[(3, 8, 8)])


def test_lazy_layers_get_their_shapes() -> None:
    """And the caller's random state is left alone, as are batch statistics."""

    def build(inputs, outputs):
        """A lazy net."""
        return nn.Sequential(
            nn.Flatten(), nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(outputs)
        )

    gclip.register_model("lazy-net")(build)
    first, again = (gclip.build_model("lazy-net", (2, 3), 5) for _ in range(2))
    assert first[1].weight.shape == (4, 6)
    assert first[1].weight.equal(again[1].weight)
    assert first.training
    assert first[2].num_batches_tracked == 0
    assert "batches" in breaks(examine_model("lazy-net"))  # of one example: BatchNorm1d
    assert set(breaks(examine_model("lazy-net"))) == {"batches"}
