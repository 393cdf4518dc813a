"""``gclip train``: one model, one strategy, and what clipping did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli import screen
from gclip.cli.options import Json, Place, Plugins, Setting, expand, load_data, load_plugins

if TYPE_CHECKING:
    from gclip.training import Progress, RunConfig, RunResult


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


@expand
def train(
    run: Setting,
    place: Place,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help='A name or a spelling such as "norm(max_norm=0.1)"; none by default.',
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Weights, order of images, augmentation (0).")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Save here after each epoch, and go on from here if it exists.",
        ),
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Train one model with one strategy, and say what clipping did.

    The run is kept in the store; the same command again reads it.

    \b
    Examples:
      gclip train -s agc
      gclip train -s "norm(max_norm=0.1)" --lr 0.4 --seed 3
      gclip train --recipe tutorial --data cifar-10-batches-py
    """
    place.alone()
    from gclip.results import Store
    from gclip.training import resolve_device
    from gclip.training import train as train_run

    load_plugins(plugin)
    more: dict[str, Any] = {"strategy": strategy, "seed": seed}
    config = run.config(**{name: value for name, value in more.items() if value is not None})
    device = resolve_device(place.device)
    config, dataset = load_data(config, run.data)
    store = Store(place.store, create=True)
    known = store.has(config.key)
    if known:
        result = store.load(config.key)
    else:
        with screen.interruptible(lambda: _kept(checkpoint)), _Bar(config) as bar:
            result = train_run(
                config,
                dataset=dataset,
                device=str(device),
                threads=place.threads,
                checkpoint=checkpoint,
                on_progress=bar.update,
            )
        store.save(result)
    folder = store.path / config.key
    if json:
        stored = {key: value for key, value in result.to_dict().items() if key != "steps"}
        screen.say_json({"key": config.key, "folder": str(folder), "read": known, **stored})
        return
    for line in report(result):
        screen.say(line)
    screen.say(f"{'read from' if known else 'stored in'} {folder}")


def report(result: RunResult) -> list[str]:
    """What there is to say about a run, in two or three lines."""
    config, clipping = result.config, result.clipping
    where = f"{config.strategy} on {config.task}, {config.model}, seed {config.seed}"
    score = f"{screen.percent(result.accuracy)} % {config.split} accuracy"
    if result.status == "diverged":
        score = f"diverged at step {result.stopped_at}; scored as chance, {score}"
    lines = [f"{where}: {score} in {screen.duration(result.seconds)}"]
    rate, verdict = clipping.get("clip_rate"), clipping.get("verdict")
    if verdict:
        lines.append(f"clipped {screen.percent(rate)} % of the steps: {verdict}")
    if result.status == "finished" and result.message:
        lines.append(result.message)
    return lines


def _kept(checkpoint: Path | None) -> str:
    if checkpoint is not None and checkpoint.exists():
        return f"the epochs so far are in {checkpoint}; the same command goes on from there"
    return "nothing of this run is kept (--checkpoint FILE would keep its epochs)"


class _Bar:
    """A bar over the steps of one run; nothing where stderr is no terminal."""

    def __init__(self, config: RunConfig) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = screen.console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._line = self._bars.add_task(config.strategy, total=None, said="")

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def update(self, progress: Progress) -> None:
        said = f"epoch {min(progress.epoch + 1, progress.epochs)} of {progress.epochs}"
        if progress.loss is not None:
            said += f" · loss {progress.loss:.3g}"
        if progress.accuracy is not None:
            said += f" · {screen.percent(progress.accuracy)} %"
        self._bars.update(self._line, total=progress.steps, completed=progress.step, said=said)
