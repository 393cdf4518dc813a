"""A record of many runs in a few small files, which pandas alone reads and figures are drawn from.

::

    record/
      sections.json         what was asked, how, with which versions, and which runs belong together
      runs.csv.gz           one row a run and role: its section, config, key, outcome, environment
      curves.csv.gz         one row a run and epoch, of the runs that are reported
      steps.csv.gz          one row a run and block of steps, of a few runs
      layers.csv.gz         one row a run, layer and point, of runs whose layers were watched
      trials.csv.gz         one row a trial of a search
      environments.json     what the runs ran on, by the ids in runs.csv.gz

It holds no weights and no single steps: those are in the store that it was made from.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.core.files import read_file
from gclip.errors import UsageError, choose
from gclip.results.frames import CURVE_COLUMNS, Results
from gclip.results.layer_frame import LAYER_COLUMNS
from gclip.results.step_frame import STEP_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from gclip.training import RunConfig

FRAMES = ("runs", "curves", "steps", "layers", "trials")
LABEL = "label "
"""Before the name of a column: what a section calls its runs."""
OWN = ("section", "role", "search", "of")
"""Of a row: whose it is, what it was for, which search it belongs to, and of which strategy."""
_APART = (*OWN, "environment", "source")
_TEXTS = (
    *("key", "strategy", "model", "code", "data", "model_code", "problem_code", "watch", "message"),
    *("player", "search", "spelling", "keys", "role", "section", "of", "unit"),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Runs of a record that are read and drawn together.

    Attributes:
        name: of it, and of the folder of its figures.
        section: whose it is.
        study: whose table and labels these are; empty for a comparison.
        rows: which rows: column to the values that are taken.
        figures: that are drawn of it.
        table: the rows of its table.
        columns: of the table as shown: heading to key.
        notes: sentences below the table.
        searched: whether the section's trials belong to it.
    """

    name: str
    section: str
    study: str = ""
    rows: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    figures: Sequence[str] = ()
    table: Sequence[Mapping[str, Any]] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    searched: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a record holds.

    Attributes:
        sections: what was asked, as data, by name.
        parts: what belongs together, by name.
        environments: what the runs ran on, by id.
        runs, curves, steps, layers, trials: as in this module's first lines.
    """

    sections: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Part]
    environments: Mapping[str, Mapping[str, Any]]
    runs: pd.DataFrame
    curves: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame
    trials: pd.DataFrame

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Record:
        """Read a record.

        Raises:
            UsageError: a file is missing, or is not what it should be.
        """
        path = Path(folder)
        told = _json(path / "sections.json")
        frames = {name: _frame(path / f"{name}.csv.gz") for name in FRAMES}
        try:
            parts = {each["name"]: Part(**each) for each in told["parts"]}
            sections = {each["name"]: each for each in told["sections"]}
        except (KeyError, TypeError) as error:
            raise UsageError(f"'{path / 'sections.json'}' is of no record: {error}") from error
        return cls(
            sections=sections,
            parts=parts,
            environments=_json(path / "environments.json"),
            **frames,
        )

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write it; equal records give equal bytes.

        Raises:
            UsageError: the folder cannot be written.
        """
        path = Path(folder)
        told = {
            "sections": [dict(each) for each in self.sections.values()],
            "parts": [dataclasses.asdict(each) for each in self.parts.values()],
        }
        files = {
            "sections.json": _dumped(told),
            "environments.json": _dumped(dict(self.environments)),
            **{f"{name}.csv.gz": _packed(getattr(self, name)) for name in FRAMES},
        }
        try:
            path.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                partial = path / f".{name}.{os.getpid()}"
                partial.write_bytes(content)
                partial.replace(path / name)
        except OSError as error:
            raise UsageError(f"cannot write the record '{path}': {error.strerror}") from error
        return [path / name for name in files]

    def results(self, part: str) -> Results:
        """A part of it, as figures read it.

        Raises:
            UsageError: an unknown part.
        """
        import pandas as pd

        chosen = self.parts[choose(part, tuple(self.parts), "part of the record")]
        rows = _taken(self.runs[self.runs["section"] == chosen.section], chosen.rows)
        runs = _labelled(rows, bool(chosen.study))
        keys = set(runs["key"])
        curves, steps, layers = (
            frame[frame["key"].isin(keys)].drop_duplicates().reset_index(drop=True)
            for frame in (self.curves, self.steps, self.layers)
        )
        trials = pd.DataFrame()
        if chosen.searched:
            own = self.trials[self.trials["section"] == chosen.section]
            wanted = {name: v for name, v in chosen.rows.items() if name in ("search", "of")}
            trials = _taken(own, wanted).drop(columns=["section", "search", "of"])
        return Results(
            runs=runs,
            curves=curves[list(CURVE_COLUMNS)],
            steps=steps[list(STEP_COLUMNS)],
            layers=layers[list(LAYER_COLUMNS)],
            trials=trials.reset_index(drop=True),
            table=pd.DataFrame(list(chosen.table), dtype=object),
            study=chosen.study,
        )

    def digest(self, part: str) -> str:
        """Of all that the figures of a part are drawn from."""
        found = self.results(part)
        names = ("runs", "curves", "steps", "layers", "trials", "table")
        texts = [getattr(found, name).to_csv(index=False) for name in names]
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _taken(frame: pd.DataFrame, rows: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    for name, values in rows.items():
        frame = frame[frame[name].isin(list(values))]
    return frame


def _labelled(rows: pd.DataFrame, named: bool) -> pd.DataFrame:
    """The rows as `gclip.results.load` has them; of a study, with what it calls them."""
    labels = [name for name in rows if str(name).startswith(LABEL)]
    runs = rows.drop(columns=[*labels, *(name for name in _APART if name in rows)])
    if named:
        runs = runs.assign(spelling=runs["strategy"])
        for name in labels:
            if rows[name].notna().any():
                runs[str(name).removeprefix(LABEL)] = rows[name]
    order = ["strategy", "seed", "key"]
    runs = runs if named else runs.drop_duplicates("key")
    return runs.sort_values(order, kind="stable").reset_index(drop=True)


def _json(path: Path) -> Any:
    try:
        return json.loads(read_file(path))
    except FileNotFoundError:
        raise UsageError(
            f"there is no record in '{path.parent}': it lacks {path.name}; name the folder of one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}") from error


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame: pd.DataFrame = pd.read_csv(path, low_memory=False, **_exact())
    except FileNotFoundError:
        raise UsageError(f"there is no record in '{path.parent}': it lacks {path.name}") from None
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"'{path}' cannot be read: {error}") from error
    texts = [name for name in _TEXTS if name in frame]
    return frame.astype(dict.fromkeys(texts, object)).fillna(dict.fromkeys(texts, ""))


def _exact() -> dict[str, Any]:
    """What makes pandas read every digit: before version 3 its usual way rounds the last ones."""
    import pandas as pd

    return {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}


def _packed(frame: pd.DataFrame) -> bytes:
    text = io.StringIO()
    frame.to_csv(text, index=False, lineterminator="\n")
    return gzip.compress(text.getvalue().encode(), 9, mtime=0)


def _dumped(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def config_of(row: Mapping[str, Any]) -> RunConfig:
    """The config of a row of `Record.runs`: that whose key stands there.

    Raises:
        UsageError: the row is of no config.
    """
    from gclip.training import RunConfig

    values = {each.name: row[each.name] for each in dataclasses.fields(RunConfig)}
    for each in dataclasses.fields(RunConfig):
        value = values[each.name]
        value = value.item() if hasattr(value, "item") else value
        # An empty cell: what an optimizer does not have, such as Adam's momentum.
        values[each.name] = None if value != value else value
    values["optimizer_settings"] = json.loads(values["optimizer_settings"])
    return RunConfig.of(values)


def parts_of(record: Record, names: Iterable[str] = ()) -> list[Part]:
    """The parts with these names; all by default.

    Raises:
        UsageError: an unknown name.
    """
    wanted = [choose(name, tuple(record.parts), "part of the record") for name in names]
    return [record.parts[name] for name in wanted] or list(record.parts.values())
