"""Findings as text and as data."""

from __future__ import annotations

import json

from gclip.doctor import Finding, Findings

WORSE = Finding(
    code="a", severity="wrong", sentence="It is wrong.", where="train.py:3", why="It matters.",
    advice="Change it.", numbers={"steps": 3},
)  # fmt: skip
NOTE = Finding(code="b", severity="note", sentence="It is so.")
DOUBTFUL = Finding(code="c", severity="doubtful", sentence="It may be meant.")


def test_worst_first() -> None:
    found = Findings([NOTE, DOUBTFUL, WORSE], "3 steps of SGD watched")
    assert found.codes == ("a", "c", "b")
    assert found.wrong
    assert not Findings([NOTE, DOUBTFUL]).wrong
    assert (len(found), found[0], list(found[1:])) == (3, WORSE, [DOUBTFUL, NOTE])
    assert found.of("c") is DOUBTFUL


def test_text() -> None:
    found = Findings([NOTE, WORSE], "3 steps of SGD watched")
    assert str(found) == (
        "3 steps of SGD watched: 1 wrong, 1 note\n"
        "\n"
        "wrong: It is wrong. (train.py:3)\n"
        "  It matters.\n"
        "  → Change it.\n"
        "\n"
        "note: It is so."
    )
    assert all(len(line) <= 20 for line in found.text(20).splitlines())
    assert str(Findings([], "3 steps")) == "3 steps: nothing to say against its clipping"


def test_data() -> None:
    found = Findings([WORSE], "3 steps of SGD watched")
    assert json.loads(json.dumps(found.as_dict())) == {
        "setting": "3 steps of SGD watched",
        "wrong": True,
        "findings": [
            {
                "code": "a", "severity": "wrong", "sentence": "It is wrong.",
                "where": "train.py:3", "why": "It matters.", "advice": "Change it.",
                "numbers": {"steps": 3},
            }
        ],
    }  # fmt: skip
