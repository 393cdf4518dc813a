"""Every shipped problem against every promise, and the promises against broken problems."""

from __future__ import annotations

import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import gclip
from gclip.problems import chars
from gclip.testing import ContractBroken
from gclip.testing.promises import Result
from gclip.training import Problem, check_problem, examine_problem, problem_promises
from gclip.training.problem_registry import PROBLEMS, find_problem

PROMISES = tuple(promise.name for promise in problem_promises())
SHIPPED = tuple(
    name for name in PROBLEMS.names() if PROBLEMS.get(name).__module__.startswith("gclip.problems.")
)
NEED_A_FOLDER = ("cifar10", "images", "torchvision")

# Each breaks exactly these.
BREAKS = {
    "undocumented": {"documented"},
    "rounds-its-spelling": {"spelled"},
    "reads-the-world": {"same_seed"},
    "one-seed": {"other_seed"},
    "forgets": {"resumed"},
    "seeds-the-world": {"global_state"},
    "writes-to-data": {"data_kept"},
    "draws-its-data": {"data_kept"},
    "leaves-its-range": {"measured"},
    "counts-evaluations": {"evaluates"},
    "hides-nan": {"diverges"},
    "idle": {"clipped"},
    "decays": {"moved"},
    "wants-momentum": {"optimizers"},
    "miscounts": {"counted"},
    "steps-twice": {"updates"},
    "hashes-text": {"another_process"},
    "smooths-at-random": {"general_path", "fleet"},
    "weighs-twice": {"fleet"},
}


def breaks(results: list[Result]) -> dict[str, str]:
    return {r.promise: " | ".join(r.said) for r in results if r.state == "broken"}


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in NEED_A_FOLDER])
def test_every_problem_keeps_every_promise(name: str, tmp_path: Path) -> None:
    results = check_problem(name, data=beginnings(tmp_path) if name == "chars" else None)
    assert [result.promise for result in results] == list(PROMISES)


def beginnings(folder: Path) -> Path:
    """Of the modules whose text `chars` reads, the first lines of each."""
    for module in chars.MODULES:
        text = (Path(sysconfig.get_path("stdlib")) / f"{module}.py").read_text()
        (folder / f"{module}.py").write_text("".join(text.splitlines(keepends=True)[:100]))
    return folder


@pytest.mark.parametrize("task", ["cifar10", "images(size=8)"])
def test_problems_of_class_folders_keep_them(task: str, folder: Path) -> None:
    check_problem(task, data=folder)


def test_problems_that_download_do_not() -> None:
    with pytest.raises(gclip.UsageError, match="torchvision.s FashionMNIST"):
        check_problem("torchvision:FashionMNIST")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of random images: of a fiftieth, there are two of every class."""
    from PIL import Image

    root, chance = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 100), ("test", 4)):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for place in range(count):
                pixels = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / f"{place}.png")
    return root


@pytest.mark.parametrize("name", ["sound", "sound-supervised"])
def test_what_the_broken_ones_derive_from_is_sound(name: str) -> None:
    results = check_problem(name)
    outside = {r.promise for r in results if r.state == "does not apply"}
    assert outside == (set() if name == "sound-supervised" else {"general_path", "fleet"})


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_problem_breaks_this_promise_and_no_other(name: str) -> None:
    found = breaks(examine_problem(name))
    assert set(found) == BREAKS[name], found


def test_every_promise_can_be_broken() -> None:
    assert set().union(*BREAKS.values()) == set(PROMISES)


@pytest.mark.parametrize(
    ("name", "promise", "sentence"),
    [
        ("reads-the-world", "same_seed", "step 0: the loss is .*, but .* with other global random"),
        ("forgets", "resumed", "step 3: the loss is .*what changes .* belongs into state.keep"),
        ("seeds-the-world", "global_state", "^Python's random module is another after a run"),
        ("writes-to-data", "data_kept", r"a run writes to the data: value\['scale'\] is another"),
        ("leaves-its-range", "measured", "epoch 1 on validation: the error is -.* range is 0 to"),
        ("counts-evaluations", "evaluates", r"evaluate on test changes .*generators.*batches"),
        ("hides-nan", "diverges", "at lr 1e\\+38 without clipping it has finished"),
        ("idle", "clipped", "critic is never stepped"),
        ("decays", "moved", r"0.weight of model moves by .* is yielded by losses"),
        ("wants-momentum", "optimizers", r"setup raised TypeError.*line \d+ of broken_problems.py"),
        ("miscounts", "counted", "epoch 0 has 3 batches, but batches_per_epoch is 4"),
        ("steps-twice", "updates", r"batch 0 of epoch 0 steps model 2 times.*{'model': 2}"),
        ("hashes-text", "another_process", "step 0: the loss is .* in another process, but"),
        ("weighs-twice", "fleet", r"step 0: the loss is .* in a fleet.*reduction='none'"),
    ],
)
def test_a_breach_is_told_with_its_numbers(name: str, promise: str, sentence: str) -> None:
    with pytest.raises(ContractBroken, match=f"{name} breaks 1 promise of 1") as error:
        check_problem(name, only=promise)
    [result] = error.value.results
    assert isinstance(error.value, AssertionError)
    assert re.search(sentence, " | ".join(result.said)), result.said


def test_an_excuse_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PROBLEMS.get("idle"), "excused", {"clipped": "the critic comes later"})
    [result] = check_problem("idle", only=["clipped"])
    assert (result.state, result.said) == ("does not apply", ("the critic comes later",))
    monkeypatch.setattr(PROBLEMS.get("idle"), "excused", {"cliped": "the critic comes later"})
    with pytest.raises(gclip.UsageError, match="excused 'cliped'; did you mean 'clipped'"):
        check_problem("idle")


def test_what_is_small_is_what_runs_are_made_of() -> None:
    from gclip.training.contract.problem_subject import ProblemSubject
    from gclip.training.tasks import problem_of

    config = ProblemSubject(problem_of("sound"), seed=3).config()
    assert (config.task, config.epochs, config.lr, config.seed) == ("sound(points=5)", 2, 0.05, 3)
    spelled = ProblemSubject(problem_of("sound(points=7, slope=1)")).config()
    assert spelled.task == "sound(slope=1, points=7)"


def test_wrong_input() -> None:
    with pytest.raises(gclip.UsageError, match="unknown promise 'sames_eed'; did you mean"):
        check_problem("sound", only=["sames_eed"])
    with pytest.raises(gclip.UsageError, match="unknown task 'sond'; did you mean 'sound'"):
        check_problem("sond")
    with pytest.raises(gclip.UsageError, match="its class or an instance of it, but got 3"):
        check_problem(3)
    with pytest.raises(gclip.UsageError, match="Problem is not registered"):
        check_problem(Problem)
    cls = PROBLEMS.get("sound")
    assert breaks(examine_problem(cls, only="documented")) == {}
    assert breaks(examine_problem(cls(slope=2.0), only="spelled")) == {}
    small = type("Small", (cls,), {"__module__": __name__, "small": {"epoch": 1}})
    with pytest.raises(gclip.UsageError, match=r"small: unknown field of RunConfig 'epoch'; did"):
        gclip.register_problem("small")(dataclass(frozen=True, kw_only=True)(small))


NOISE = '''
from dataclasses import dataclass
import gclip, torch


@gclip.register_problem("noise")
@dataclass(frozen=True, kw_only=True)
class {name}(gclip.Problem):
    """Bring a number to noise around {at}."""

    metric = gclip.Metric("squared error", better="lower", worst=100.0, low=0)
    defaults = {{"optimizer": "sgd", "lr": 0.1, "batch_size": 4, "epochs": 2}}

    def players(self, config):
        return torch.nn.Linear(1, 1)

    def batches(self, state, epoch):
        draws = state.generator("noise")
        return ({at} + torch.randn(4, 1, generator=draws) for _ in range(3))

    def losses(self, players, batch):
        yield "model", (players["model"](torch.ones(4, 1)) - batch).square().mean()

    def evaluate(self, players, state, split):
        return {{"squared error": (players["model"](torch.ones(1, 1)) - {at}).square().mean()}}
'''


def test_another_process_tells_files_that_take_the_same_name_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in one session, as pages, notebooks and copies of a file do."""
    for at, name in enumerate(("First", "Second")):
        file = tmp_path / f"{name.lower()}.py"
        file.write_text(NOISE.format(name=name, at=at))
        monkeypatch.delitem(PROBLEMS._entries, "noise", raising=False)
        find_problem.cache_clear()
        assert gclip.load_plugins(file) == ("noise",)
        [result] = check_problem("noise", only=["another_process"])
        assert result.state == "ok", result.said
