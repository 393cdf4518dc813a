"""Who trains ends at a good place; who does not, at once."""

from __future__ import annotations

import pytest

from gclip.core import stopping


def test_nobody_stops_by_themselves_unless_they_say_so() -> None:
    assert not stopping.request(KeyboardInterrupt())
    assert not stopping.is_wanted()
    stopping.obey()


def test_a_request_waits_for_a_good_place() -> None:
    done = []

    def train() -> None:
        with stopping.at_a_good_place():
            assert stopping.request(KeyboardInterrupt("first"))
            assert stopping.request(KeyboardInterrupt("second"))
            done.append("step")
            assert stopping.is_wanted()
            stopping.obey()
            done.append("never")

    with pytest.raises(KeyboardInterrupt, match="first"):
        train()
    assert done == ["step"]
    assert not stopping.is_wanted()


def test_the_outermost_end_is_the_latest_place() -> None:
    done = []

    def train() -> None:
        with stopping.at_a_good_place():
            with stopping.at_a_good_place():
                stopping.request(KeyboardInterrupt())
                done.append("trained")
            done.append("stored")

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["trained", "stored"]
    assert not stopping.request(KeyboardInterrupt())
