"""Study files: whatever their names, they stay in their folder; one bad file stops no other."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from gclip.cli import main
from gclip.errors import UsageError
from gclip.results import Store
from gclip.studies import thresholds
from gclip.studies._tuned import tuned_in
from gclip.text.streams import printable
from gclip.training import RunConfig
from gclip.tuning.plan import Plan
from gclip.tuning.space import space_of
from gclip.tuning.sqlite import (
    LONGEST_NAME,
    check_name,
    open_study,
    read_study,
    studies_in,
    study_file,
    summary,
)
from gclip.tuning.sqlite_file import UnreadableStudy, storage_url
from gclip.tuning.study import Request

TINY = RunConfig(fraction=0.05, epochs=1, batch_size=64)


def begun(store: Path, name: str, strategy: str = "norm", trials: int = 2) -> Path:
    """A study with complete trials, which nothing was trained for."""
    plan = Plan(name=name, base=TINY, space=space_of(strategy, lr_range=(0.01, 0.1)))
    with open_study(store, name, plan.settings) as study:
        for _ in range(trials):
            trial = study.ask()
            config = plan.propose(trial)
            trial.set_user_attr("config", json.loads(config.to_json()))
            study.tell(trial, 0.5)
    return study_file(store, name)


@pytest.mark.parametrize(
    "folder", ["what?x", "100%25", "a%2fb", "tag#1", "{x}", "a b&c=d", "ü", "file:x?mode=memory"]
)
def test_a_path_is_a_path_whatever_is_in_it(folder: str, tmp_path: Path) -> None:
    store = tmp_path / folder
    other = tmp_path / folder.partition("?")[0].partition("%")[0].partition("#")[0]
    file = begun(store, "mine")
    assert sorted(each.name for each in tmp_path.iterdir()) == [folder]
    assert sorted(each.name for each in file.parent.iterdir()) == ["mine.db", "mine.lock"]
    assert summary(file)["trials"] == 2
    if other != store:
        begun(other, "mine", trials=1)
        assert summary(file)["trials"] == 2, "two stores share a study"
        assert summary(study_file(other, "mine"))["trials"] == 1
    # The URL that is printed is the file's, for Optuna's own tools.
    assert optuna.load_study(study_name="mine", storage=storage_url(file)).trials[1].value == 0.5


@pytest.mark.parametrize("name", ["%2e%2e%2fup", "a%b", "a#b", "{SCHEMA_VERSION}", "$x^$", "v1.2"])
def test_a_name_is_a_name_whatever_is_in_it(name: str, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    file = begun(store, name)
    assert list(tmp_path.iterdir()) == [store]
    assert list(studies_in(store)) == [name]
    assert file.parent == store / "studies"
    assert summary(file)["name"] == name


def test_a_name_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "$x^$ %41#{b} " + "n" * (LONGEST_NAME - 13)
    check_name(name)
    begun(tmp_path, name)
    assert main(["study", "show", name, "--store", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}: 2 trials")
    url = shlex.split(said.splitlines()[-1].partition("&& ")[2])[-1]
    assert optuna.load_study(study_name=name, storage=url).trials[0].value == 0.5


def test_two_names_with_dots_are_not_locked_as_one(tmp_path: Path) -> None:
    with open_study(tmp_path, "v1.1", {"a": 1}), open_study(tmp_path, "v1.2", {"a": 1}):
        assert list(studies_in(tmp_path)) == ["v1.1", "v1.2"]


@pytest.mark.parametrize(
    "name",
    ["../up", "a/b", "a\\b", "", ".hidden", "a?b", "x\x1b[2Jy", "x\ny", "x\x7f", "x\u202ey",
     "\udcff", "n" * (LONGEST_NAME + 1), "ü" * (LONGEST_NAME // 2 + 1)],
)  # fmt: skip
def test_names_that_are_none_are_refused_before_anything_runs(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "runs", create=True)
    with pytest.raises(UsageError, match="a study's name") as caught:
        thresholds.plans(Request(base=TINY, store=store, strategies=("norm",), name=name))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    assert studies_in(store.path) == {}


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert printable("norm-digits ü") == "norm-digits ü"
    assert printable("a\x1b[2J\n\u202e") == "a\\x1b[2J\\n\\u202e"


def _text(file: Path) -> None:
    file.write_bytes(b"this is no database" * 100)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:30_000])


def _other_tables(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    database.close()


def _own_study(file: Path) -> None:
    file.unlink()
    study = optuna.create_study(study_name=file.stem, storage=f"sqlite:///{file}")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)


def _another_name(file: Path) -> None:
    _own_study(file)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE studies SET study_name = 'theirs'")
    database.close()


def _sql(statement: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with sqlite3.connect(file) as database:
            assert database.execute(statement).rowcount > 0
        database.close()

    return damage


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def _payload(file: Path) -> None:
    content = pickle.dumps(Payload(file.with_name("mark")))
    with sqlite3.connect(file) as database:
        database.execute("UPDATE trial_user_attributes SET value_json = ?", (content,))
        database.execute("UPDATE study_user_attributes SET value_json = ?", (content,))
    database.close()


BAD = {
    "text": _text,
    "empty": _empty,
    "folder": _folder,
    "torn": _torn,
    "other tables": _other_tables,
    "own study": _own_study,
    "another name": _another_name,
    "another Optuna": _sql("UPDATE alembic_version SET version_num = 'v9.9.9'"),
    "no version": _sql("DELETE FROM alembic_version"),
    "no settings": _sql("UPDATE study_user_attributes SET value_json = '{}'"),
    "settings of another kind": _sql("UPDATE study_user_attributes SET value_json = '[1]'"),
    "settings cut off": _sql("UPDATE study_user_attributes SET value_json = '{\"a'"),
    "a strategy of another version": _sql(
        """UPDATE study_user_attributes SET value_json = replace(value_json, '"norm"', '"nrm"')"""
    ),
    "a config cut off": _sql("UPDATE trial_user_attributes SET value_json = '{\"epo'"),
    "a config of another version": _sql(
        """UPDATE trial_user_attributes SET value_json = '{"strategy": "norm", "warp": 9}'"""
    ),
    "no configs": _sql("DELETE FROM trial_user_attributes"),
    "a config of other settings": _sql(
        """UPDATE trial_user_attributes SET value_json = replace(value_json, '0.05', '0.25')"""
    ),
    "an accuracy that cannot be": _sql("UPDATE trial_values SET value = 7.5 WHERE trial_id = 1"),
    "an accuracy that no run had": _sql(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
        "VALUES (1, 'accuracies', '[0.25]')"
    ),
    "a range that is none": _sql("UPDATE trial_params SET distribution_json = '{}'"),
    "bytes that are no text": _sql(
        "UPDATE trial_user_attributes SET value_json = CAST(x'7bff' AS TEXT)"
    ),
    "a trial that repeats itself": _sql(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'replaces', '0')"
    ),
    "a pickle for a config": _payload,
    "settings a thousand deep": _sql(
        "UPDATE study_user_attributes SET value_json = replace(hex(zeroblob(50000)), '0', '[')"
    ),
    "a config a thousand deep": _sql(
        "UPDATE trial_user_attributes SET value_json = replace(hex(zeroblob(50000)), '0', '[')"
    ),
    "a number of thousands of digits": _sql(
        "UPDATE trial_user_attributes SET value_json = replace(hex(zeroblob(5000)), '0', '9')"
    ),
    "a range that names code": _sql(
        """UPDATE trial_params SET distribution_json = '{"name": "os.mkdir", "attributes": {}}'"""
    ),
    "a state that is none": _sql("UPDATE trials SET state = 'ASLEEP'"),
}


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two")
    begun(path, "good", "none")
    begun(path, "bad", "norm")
    return path


@pytest.fixture
def store(two_studies: Path, tmp_path: Path) -> Path:
    """A copy of its own of a store with two studies."""
    return Path(shutil.copytree(two_studies, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_named_and_stops_no_other(
    kind: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(store, "bad")
    BAD[kind](file)
    before = file.read_bytes() if file.is_file() else b""
    # Named: one sentence, with the file in it.
    for command in (["show", "bad"], ["export", "bad"], ["report", "bad", "--seeds", "1"]):
        assert main(["study", *command, "--store", str(store)]) == 2, command
        said = capsys.readouterr().err.strip()
        assert str(file) in said
        assert len(said.splitlines()) == 1
    # Among others: left out, and said so.
    left = []
    found = tuned_in(store, on_left_out=left.append)
    assert [each.plan.name for each in found] == ["good"]
    assert len(left) == 1
    assert str(file) in left[0]
    assert main(["study", "list", "--store", str(store), "--json"]) == 0
    answer, said = capsys.readouterr()
    listed = json.loads(answer)
    assert "good" in [each["name"] for each in listed["begun"]]
    for message in listed["left_out"]:
        assert str(file) in message
        assert message in said
    assert not file.with_name("mark").exists(), "a payload was run"
    # Nobody who looks at a file writes into it.
    assert (file.read_bytes() if file.is_file() else b"") == before


@pytest.mark.parametrize("kind", sorted(BAD.keys() - {"empty", "no version"}))
def test_a_study_does_not_go_on_in_a_bad_file(kind: str, store: Path) -> None:
    file = study_file(store, "bad")
    BAD[kind](file)
    plan = Plan(name="bad", base=TINY, space=space_of("norm", lr_range=(0.01, 0.1)))
    with pytest.raises(UsageError) as caught, open_study(store, "bad", plan.settings):
        pass
    assert str(file) in str(caught.value) or "was begun with" in str(caught.value)


def test_flipped_bytes_never_raise_anything_else(store: Path) -> None:
    file = study_file(store, "bad")
    whole = file.read_bytes()
    generator = random.Random(0)
    told = 0
    for _ in range(40):
        torn = bytearray(whole)
        for _ in range(generator.choice([1, 8, 200])):
            torn[generator.randrange(len(torn))] ^= 1 << generator.randrange(8)
        file.write_bytes(bytes(torn))
        left: list[str] = []
        with contextlib.suppress(UnreadableStudy):  # which only may be
            summary(file)
        found = tuned_in(store, on_left_out=left.append)
        assert "good" in [each.plan.name for each in found]
        assert len(found) + len(left) == 2
        told += len(left)
        assert all(str(file) in message and message.isprintable() for message in left)
    assert told > 5, "damage went unnoticed"


def test_reading_needs_no_permission_to_write(store: Path) -> None:
    file = study_file(store, "good")
    file.chmod(0o444)
    with read_study(file) as study:
        assert len(study.trials) == 2
