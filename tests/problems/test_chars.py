"""Characters: the text as numbers, its parts, and bits per character."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from gclip.errors import UsageError
from gclip.problems.chars import MODULES, VOCABULARY, Chars, cross_entropy, encode
from gclip.training import RunConfig, load_data
from gclip.training.problem import Source
from gclip.training.run_state import RunState


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(MODULES):
        (tmp_path / f"{name}.py").write_text(f"x = {number}\n" * 40, encoding="utf-8")
    return tmp_path


def decode(indices: torch.Tensor) -> str:
    return "".join(VOCABULARY[index] for index in indices.tolist())


def test_a_text_comes_back_but_for_what_the_vocabulary_lacks() -> None:
    assert decode(encode("def f(é):\n\treturn '~'\r\n")) == "def f():\n    return '~'\n"
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 96


def test_parts_are_of_the_text_in_its_order(folder: Path) -> None:
    parts = Chars().data(Source(folder=folder))
    whole = "".join(f"x = {number}\n" * 40 for number in range(len(MODULES)))
    tenth = len(whole) // 10
    assert [len(parts[name]) for name in ("validation", "test")] == [tenth, tenth]
    assert "".join(decode(parts[name]) for name in ("train", "validation", "test")) == whole


def test_the_text_is_part_of_a_runs_identity(folder: Path) -> None:
    before = load_data("chars", folder).identity
    (folder / "copy.py").write_text("y = 1\n" * 40, encoding="utf-8")
    after = load_data("chars", folder).identity
    assert len(before) == len(after) == 16
    assert before != after


def test_a_folder_without_the_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="argparse.py cannot be read"):
        load_data("chars", tmp_path)


def test_batches_are_pieces_of_the_text_that_is_learned_from(folder: Path) -> None:
    task = Chars(context=6)
    config = RunConfig(task=str(task), batch_size=5)
    state = RunState(config, task.data(Source(folder=folder)), torch.device("cpu"))
    text = decode(state.data["train"])
    batches = list(task.batches(state, 0))
    assert len(batches) == task.batches_per_epoch(state) == math.ceil(len(text) / 30)
    for batch in batches:
        assert batch.shape == (5, 7)
        assert all(decode(row) in text for row in batch)


class Uniform(nn.Module):
    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*characters.shape, len(VOCABULARY))


def test_an_even_guess_takes_the_logarithm_of_the_vocabulary(folder: Path) -> None:
    task = Chars()
    config = RunConfig(task=str(task))
    state = RunState(config, task.data(Source(folder=folder)), torch.device("cpu"))
    scores = task.evaluate({"model": Uniform()}, state, "test")
    assert scores["bits per character"] == pytest.approx(math.log2(96), rel=1e-6)
    assert Chars.metric.worst == pytest.approx(math.log2(96))


def test_every_character_is_guessed_from_those_before_it() -> None:
    class Counts(nn.Module):
        def forward(self, characters: torch.Tensor) -> torch.Tensor:
            # Sure that 1 follows 0; else even between all.
            logits = torch.zeros(*characters.shape, 4)
            logits[..., 1] = torch.where(characters == 0, 100.0, 0.0)
            return logits

    # 0 → 1 costs nothing; 1 → 2 and 2 → 3 cost log 4 each.
    found = cross_entropy(Counts(), torch.tensor([[0, 1, 2, 3]]))
    assert float(found) == pytest.approx(2 * math.log(4) / 3)
