"""What an author's mistake is answered with: method, promise, and the line of the file."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import gclip
from gclip.errors import UsageError

HEAD = """
from dataclasses import dataclass
import torch
import gclip

"""

STRATEGY = '''
@gclip.register("{name}")
@dataclass(frozen=True, kw_only=True)
class Mine(gclip.Strategy):
    """Of the test."""
    scope: gclip.Scope = "tensor"

    def remember(self, like):
        {remember}

    def limit(self, seen, memory):
        {limit}  # LIMIT

    def learn(self, seen, clipped_norm, memory):
        {learn}  # LEARN
'''

TRANSFORM = '''
@gclip.register("{name}")
@dataclass(frozen=True, kw_only=True)
class Mine(gclip.Transform):
    """Of the test."""

    def remember(self, like):
        {remember}

    def transform(self, seen, memory):
        {transform}  # TRANSFORM
'''
FINE = {
    "remember": 'return {"mean": like}',
    "limit": "return 0.5 * seen.norm",
    "learn": 'return {"mean": seen.norm}',
    "transform": 'return seen.values / 2, {"mean": seen.values}',
}


def clipper_of(folder: Path, form: str, name: str, **wrong: str) -> tuple[gclip.Clipper, Any]:
    file = folder / f"{name}.py"
    file.write_text(HEAD + textwrap.dedent(form).format(name=name, **{**FINE, **wrong}))
    gclip.load_plugins(file)
    net = nn.Linear(3, 2)
    for param in net.parameters():
        param.grad = torch.ones_like(param)
    return gclip.Clipper(net, name), file


WRONG = [
    ({"limit": "return torch.ones(5)"}, r"limit\(\) must return a number or a tensor .* shape is "
     r"\(2,\), but returned a tensor of shape \(5,\), float32"),
    ({"limit": "return torch.ones(2, 2)"}, r"but returned a tensor of shape \(2, 2\)"),
    ({"limit": "return None"}, r"limit\(\) must return a number, .* but returned None"),
    ({"limit": "return 'much'"}, r"limit\(\) must return .* but returned a str"),
    ({"limit": "return True"}, r"limit\(\) must return .* but returned a bool"),
    ({"limit": "return seen.norm > 0"}, r"of a real dtype, but returned .* bool"),
    ({"limit": "return float('nan')"}, r"limit\(\) must return numbers of at least 0, .* nan"),
    ({"limit": "return 0 / (seen.norm * 0)"}, r"numbers of at least 0, but returned nan"),
    ({"limit": "return -seen.norm"}, r"numbers of at least 0, but returned -"),
    ({"limit": "return memory['men']"}, r"limit\(\) raised KeyError: 'men'"),
    ({"limit": "raise SystemExit(3)"}, r"limit\(\) raised SystemExit: 3"),
    ({"learn": "return None"}, r"learn\(\) must return a dict of .* None; return {} where nothing"),
    ({"learn": "return {'men': seen.norm}"},
     r"learn\(\) returned 'men', which remember\(\) does not declare \(declared: mean\)"),
    ({"learn": "return [1]"}, r"learn\(\) must return a dict .* but returned a list"),
    ({"learn": "return {'mean': seen.norm.double()}"},
     r"must keep the shape and dtype of 'mean', a tensor of shape \(2,\), float32 .* float64"),
    ({"learn": "return {'mean': seen.norm.sum()}"}, r"but returned a tensor of shape \(\)"),
    ({"learn": "return {'mean': 1.0}"}, r"but returned a float"),
    ({"learn": "return 1 / 0"}, r"learn\(\) raised ZeroDivisionError"),
    ({"remember": "return None"}, r"remember\(\) must return a dict .* but returned None"),
    ({"remember": "return {'m': open}"}, r"remember\(\) may keep .* but 'm' is a builtin_f"),
    ({"remember": "raise KeyError('m')"}, r"remember\(\) raised KeyError: 'm'"),
]  # fmt: skip

WRONG_TRANSFORMS = [
    ({"transform": "return seen.values"}, r"transform\(\) must return two things, .* a tensor"),
    ({"transform": "return None"}, r"transform\(\) must return two things, .* returned None"),
    ({"transform": "return seen.values[:1], {}"}, r"values like seen.values, .* of shape \(1,\)"),
    ({"transform": "return seen.values.double(), {}"}, r"values like seen.values, .* float64"),
    ({"transform": "return seen.values, None"}, r"beside the values, .* but returned None"),
    ({"transform": "return seen.values, {'n': 1}"}, r"transform\(\) returned 'n', which remember"),
    ({"transform": "return memory['n'], {}"}, r"transform\(\) raised KeyError: 'n'"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda each: str(each))
def test_a_strategys_mistake_is_a_sentence_with_its_line(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    name = f"wrong{WRONG.index((wrong, said))}"
    clipper, file = clipper_of(tmp_path, STRATEGY, name, **wrong)
    before = [param.grad.clone() for param in clipper.params]
    with pytest.raises(UsageError, match=said) as caught:
        clipper.step()
    _check_place(str(caught.value), file, next(iter(wrong)))
    if "limit" in wrong or "learn" in wrong:
        for param, grad in zip(clipper.params, before, strict=True):
            assert torch.equal(param.grad, grad), "nothing was clipped by a wrong limit"


@pytest.mark.parametrize(("wrong", "said"), WRONG_TRANSFORMS, ids=lambda each: str(each))
def test_a_transforms_mistake_is_a_sentence_with_its_line(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    name = f"wrongly{WRONG_TRANSFORMS.index((wrong, said))}"
    clipper, file = clipper_of(tmp_path, TRANSFORM, name, **wrong)
    with pytest.raises(UsageError, match=said) as caught:
        clipper.step()
    _check_place(str(caught.value), file, "transform")


def _check_place(said: str, file: Path, method: str) -> None:
    lines = file.read_text().splitlines()
    first = next(i for i, line in enumerate(lines, 1) if f"def {method}(" in line)
    assert said.startswith(f"{file.stem}: {method}() ")
    place = re.search(r"\(line (\d+) of (\w+\.py)\)$", said)
    assert place is not None, said
    assert place[2] == file.name
    assert int(place[1]) in (first, first + 1), said


def test_a_strategy_without_mistakes_is_heard(tmp_path: Path) -> None:
    clipper, _ = clipper_of(tmp_path, STRATEGY, "rightly")
    clipper.step()
    for param in clipper.params:
        assert torch.allclose(param.grad, torch.full_like(param, 0.5))


def test_a_mistake_that_comes_late_is_told_too(tmp_path: Path) -> None:
    clipper, _ = clipper_of(
        tmp_path, STRATEGY, "later", limit="return 1.0 if seen.step < 2 else memory['men']"
    )
    clipper.step()
    clipper.step()
    with pytest.raises(UsageError, match=r"later: limit\(\) raised KeyError: 'men' \(line"):
        clipper.step()


def test_a_limit_is_heard_after_the_warmup(tmp_path: Path) -> None:
    clipper, _ = clipper_of(tmp_path, STRATEGY, "waiting", limit="return -1.0")
    waiting = gclip.Clipper(clipper._source.read().params, "waiting(warmup=1)")
    waiting.step()
    with pytest.raises(UsageError, match="but returned -1"):
        waiting.step()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import gclip\nraise SystemExit(2)\n", "it ends the program (line 2 of ends.py)"),
        ("import gclip\n\n1 / 0\n", "ZeroDivisionError: division by zero (line 3 of ends.py)"),
        ("import gclip\nimport nowhere\n", "No module named 'nowhere' (line 2 of ends.py)"),
        ("import gclip\n@gclip.register('end s')\nclass A: ...\n", "(line 2 of ends.py)"),
    ],
)
def test_a_plugin_that_does_not_load_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "ends.py"
    file.write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        gclip.load_plugins(file)
