"""What belongs into one figure? The runs of a store, comparison by comparison, study by study.

A study that was answered has written down which runs are its own, and what it calls them; of a
search that was not, the trials tell. What is left is grouped by setting: runs that differ only in
strategy and seed are one comparison. A single trial never gets a folder of its own.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.errors import UsageError

from ._found import FigureWarning

if TYPE_CHECKING:
    import pandas as pd

    from gclip.results import Results, Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that are drawn together.

    Attributes:
        folder: the name of the figures' folder; empty for the store's own.
        keys: of the runs.
        study: its name; empty for a comparison.
        labels: what the study calls its runs, each with its ``key``.
        table: the rows of its table.
        searches: files of the searches whose trials belong to it.
        entry: all that the study has written down.
    """

    folder: str
    keys: tuple[str, ...]
    study: str = ""
    labels: Sequence[Mapping[str, Any]] = ()
    table: Sequence[Mapping[str, Any]] = ()
    searches: tuple[Path, ...] = ()
    entry: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def read(self, store: Store | Path) -> Results:
        """All that its figures take."""
        import pandas as pd

        from gclip.results import Results

        if not self.study:
            return Results.read(store, self.keys)
        from gclip.tuning.trial_frame import trials_frame

        found = Results.read(store, self.keys)
        return dataclasses.replace(
            found,
            runs=labelled(found.runs, self.labels),
            table=pd.DataFrame(list(self.table), dtype=object),
            trials=trials_frame(self.searches) if self.searches else found.trials,
            study=self.study,
        )


def labelled(runs: pd.DataFrame, labels: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The runs with what their study calls them; ``spelling`` is what ``strategy`` was.

    A run that has several names is there several times; one that has none stays as it is.
    """
    import pandas as pd

    runs = runs.assign(spelling=runs["strategy"])
    if not labels:
        return runs
    names = pd.DataFrame(list(labels))
    own = names.merge(runs.drop(columns=[c for c in names if c != "key" and c in runs]), on="key")
    rest = runs[~runs["key"].isin(names["key"])]
    parts = [each for each in (own, rest) if len(each)]
    return pd.concat(parts, ignore_index=True) if parts else runs


def groups(store: Store, runs: pd.DataFrame) -> list[Group]:
    """All groups of a store: comparisons first, then studies.

    Args:
        store: the store.
        runs: all that finished or diverged (`gclip.results.load`).

    Raises:
        UsageError: there are runs, but no two of them belong together, and there is no study.
    """
    studies = list(_studies(store.path, set(runs["key"])))
    owned = {key for study in studies for key in study.keys}
    found = [*_comparisons(runs, owned, bool(studies)), *studies]
    names: dict[str, int] = {}
    unique = []
    for group in found:
        names[group.folder] = names.get(group.folder, 0) + 1
        again = names[group.folder]
        folder = group.folder if again == 1 else f"{group.folder}-{again}"
        unique.append(dataclasses.replace(group, folder=folder))
    return unique


def _studies(store: Path, present: set[str]) -> Iterator[Group]:
    from gclip.tuning.grid_answers import answers_in
    from gclip.tuning.sqlite import studies_in
    from gclip.tuning.sqlite_file import UnreadableStudy
    from gclip.tuning.trial_frame import trials_frame

    files = studies_in(store)
    answered: set[str] = set()
    for entry in answers_in(store).found:
        if "table" not in entry:
            continue  # of an earlier version, which kept no more than that there was one
        searches = [name for name in entry.get("searches", ()) if name in files]
        answered.update(searches)
        labels = [each for each in entry["labels"] if each["key"] in present]
        keys = [*(each["key"] for each in labels)]
        paths = tuple(files[name] for name in searches)
        keys += _trial_keys(paths, present)
        setting = entry["setting"]
        yield Group(
            folder=_named(entry["study"], str(setting.get("task", ""))),
            keys=tuple(dict.fromkeys(keys)),
            study=entry["study"],
            labels=labels,
            table=entry["table"],
            searches=paths,
            entry=entry,
        )
    for name, path in files.items():
        if name in answered:
            continue
        try:
            trials = trials_frame([path])
        except (UnreadableStudy, UsageError) as error:
            warnings.warn(f"left out: {error}", FigureWarning, stacklevel=4)
            continue
        if len(trials):
            keys = _keys_of(trials, present)
            yield Group(folder=_named(name), keys=tuple(keys), study=name, searches=(path,))


def _trial_keys(searches: Sequence[Path], present: set[str]) -> list[str]:
    from gclip.tuning.trial_frame import trials_frame

    return _keys_of(trials_frame(searches), present) if searches else []


def _keys_of(trials: pd.DataFrame, present: set[str]) -> list[str]:
    return [key for keys in trials["keys"] for key in keys.split() if key in present]


def _comparisons(runs: pd.DataFrame, owned: set[str], studied: bool) -> Iterator[Group]:
    from gclip.results import experiments, newest

    if runs.empty:
        return
    every = experiments(newest(runs))
    free = {name: rows for name, rows in every.items() if not set(rows["key"]) <= owned}
    found = {name: rows for name, rows in free.items() if len(rows) > 1}
    if not found:
        if len(free) > 1 and not studied:
            raise UsageError(
                f"the {len(free)} finished runs all differ in more than strategy and seed: "
                "there is nothing to compare in a figure"
            )
        found = free if not studied else {}
    elif len(found) < len(free):
        warnings.warn(
            f"{len(free) - len(found)} runs of other settings stand alone and are not drawn",
            FigureWarning,
            stacklevel=4,
        )
    for name, rows in found.items():
        folder = "" if len(found) == 1 else _named(name)
        yield Group(folder=folder, keys=tuple(rows["key"]))


def _named(*parts: str) -> str:
    """The name of a folder."""
    text = "-".join(part for part in parts if part)
    return text.replace(" ", ",").replace("/", "-")


def only_strategies(results: Results, strategies: Sequence[str]) -> Results:
    """The part about some strategies.

    Args:
        results: of a group.
        strategies: spellings, or names that stand for all their spellings.
    """
    there = {
        str(text)
        for frame in (results.runs, results.trials, results.table)
        if "strategy" in frame
        for text in frame["strategy"]
    }
    # A name that is itself among them is meant as it stands.
    wanted = {
        text
        for name in strategies
        for text in ({name} if name in there else {t for t in there if t.partition("(")[0] == name})
    }

    def chosen(frame: pd.DataFrame) -> pd.DataFrame:
        if "strategy" not in frame:
            return frame
        return frame[frame["strategy"].astype(str).isin(wanted)].reset_index(drop=True)

    parts: dict[str, Any] = {
        name: chosen(getattr(results, name))
        for name in ("runs", "curves", "steps", "layers", "trials", "table")
    }
    return dataclasses.replace(results, **parts)
