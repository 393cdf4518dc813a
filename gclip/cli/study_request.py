"""What a study is asked: the command line's options over those of a study file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gclip.cli.setting import Setting
from gclip.cli.study_options import FLAGS
from gclip.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

    from gclip.training import RunConfig
    from gclip.tuning.study_file import StudyFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyCommand:
    """What the command line and the study file say, put together.

    Attributes:
        study: the study's name.
        request: fields of a `gclip.tuning.study.Request`.
        run: what is trained, as options say it.
        config: fields of a `RunConfig` for which there is no option.
        plugins: what registers strategies.
        workers, fleet: how many runs at a time.
    """

    study: str
    request: dict[str, Any]
    run: Setting
    config: dict[str, Any]
    plugins: tuple[str, ...]
    workers: int | None
    fleet: int | str

    def base(self, study: ModuleType) -> RunConfig:
        """What is trained: as asked, then as the study wants it for the task, then the defaults.

        A study's own settings (`SETTINGS`, by task) are for the task's own recipe and optimizer.
        """
        own: dict[str, Any] = getattr(study, "SETTINGS", {}).get(self.run.task or "digits", {})
        if self.run.recipe is not None or self.run.optimizer is not None:
            own = {}
        unset = {name: own[name] for name in own if getattr(self.run, name, None) is None}
        return self.run.config(**unset, **self.config)


def combine(
    study: str | None,
    options: dict[str, Any],
    run: Setting,
    plugins: list[str] | None,
    workers: int | None,
    path: Path | None,
) -> StudyCommand:
    """The options over the study file's settings, what neither says left out.

    Args:
        study: the study's name, where the command says it.
        options: fields of a request; None where the command leaves one out.
        run: what is trained.
        plugins: what registers strategies.
        workers: how many runs at a time.
        path: the study file.

    Raises:
        UsageError: neither names a study, or the file cannot be read.
    """
    from gclip.tuning.study_file import StudyFile, read_study_file

    file = StudyFile() if path is None else read_study_file(path)
    asked = {name: value for name, value in options.items() if value is not None}
    request = {**_without_overridden(file, asked), **asked}
    if file.space:
        request["space"] = {**file.space, **asked.get("space", {})}
    in_file = request.pop("study", None)
    chosen = study or in_file
    if chosen is None:
        raise UsageError(
            "which study? gclip study run STUDY, or study = … in a --file; "
            "gclip study list names them"
        )
    fields = {field.name for field in dataclasses.fields(Setting)}
    settings = {name: value for name, value in file.run.items() if name in fields}
    if "data" in settings:
        settings["data"] = Path(str(settings["data"]))
    settings |= {name: getattr(run, name) for name in fields if getattr(run, name) is not None}
    plugins_in_file, workers_in_file = request.pop("plugins", ()), request.pop("workers", None)
    return StudyCommand(
        study=chosen,
        run=Setting(**settings),
        config={name: value for name, value in file.run.items() if name not in fields},
        plugins=tuple(plugins or plugins_in_file),
        workers=workers_in_file if workers is None else workers,
        fleet=request.pop("fleet", "auto"),
        request=request,
    )


def _without_overridden(file: StudyFile, asked: dict[str, Any]) -> dict[str, Any]:
    """The file's settings, but what is about the learning rate where an option is, too."""
    about = ("lr_range", "fixed_lr")
    overridden = about if any(name in asked for name in about) else ()
    return {name: value for name, value in file.settings.items() if name not in overridden}


def refuse_unused(name: str, settings: dict[str, Any]) -> None:
    """Raise `UsageError` for a setting that the study would ignore."""
    from gclip import studies

    for field, option in FLAGS.items():
        if field not in settings or field in studies.uses(name):
            continue
        others = [each for each in studies.names() if field in studies.uses(each)]
        where = f" (studies that do: {', '.join(others)})" if others else ""
        raise UsageError(f"the study {name} does not use {option}; leave it out{where}")
