"""``gclip train``: one model, one strategy, and what clipping did."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gclip.cli.interrupts import interruptible
from gclip.cli.options import (
    Json,
    KeptPlace,
    Player,
    Plugins,
    expand,
    load_data,
    load_plugins,
    with_players,
)
from gclip.cli.processes import in_turn, joined, told
from gclip.cli.progress import StepsDisplay
from gclip.cli.setting import Setting
from gclip.clipping.verdicts import DEFINITION
from gclip.core.launcher import speaks
from gclip.errors import UsageError
from gclip.results.metric_text import score_with_unit, worst_words
from gclip.results.table_text import verdict_text
from gclip.text import screen

if TYPE_CHECKING:
    from gclip.training import RunResult


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


@expand
def train(
    run: Setting,
    place: KeptPlace,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            "-s",
            metavar="STRATEGY",
            help='A name or a spelling such as "norm(max_norm=0.1)".',
            show_default="none, or the recipe's",
        ),
    ] = None,
    player: Player = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Of weights, batches and augmentation.", show_default="0"),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="Save here after each epoch, and go on from here if it exists.",
            show_default="STORE/checkpoints, where it is removed when the run has ended",
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard",
            metavar="DIR",
            help="Write the run's curve, norms, limit and clip rate for TensorBoard.",
            show_default="none is written",
        ),
    ] = None,
    plugin: Plugins = None,
    json: Json = False,
) -> None:
    """Train one model with one strategy, and say what clipping did.

    The run is kept in the store; the same command again reads it. One that is stopped is saved, and
    the same command goes on from there, to the same bits; so it does after a kill, from the last
    checkpoint of a run that takes minutes. Under torchrun its processes share each batch.

    \b
    Examples:
      gclip train -s agc
      gclip train -s "norm(max_norm=0.1)" --lr 0.4 --seed 3
      gclip train --model plain -s agc --watch layer
      gclip train -s zclip --tensorboard boards
      gclip train --task chars -s norm --checkpoint-every 30
      gclip train --recipe tutorial --data cifar-10-batches-py
      gclip train --task gan-digits --player generator=agc --player discriminator=norm
      torchrun --nproc-per-node 2 -m gclip train -s agc --batch-size 128
    """
    every = place.checkpoint_seconds
    under_way = _UnderWay(checkpoint)
    with interruptible(under_way.told), StepsDisplay(silent=not speaks()) as show:
        show.load("torch")
        from gclip.core import stopping
        from gclip.results import Store
        from gclip.results.checkpoints import Checkpoints
        from gclip.results.tensorboard import write, writer_class
        from gclip.training import resolve_device
        from gclip.training import train as train_run

        with joined(place.device) as world:
            load_plugins(plugin)
            if tensorboard is not None:
                writer_class()
            if strategy is not None and player:
                raise UsageError("give -s or --player, not both: a run has one strategy a player")
            named = with_players([strategy] if strategy else None, player)
            more: dict[str, Any] = {"strategy": named[0] if named else None, "seed": seed}
            given = {name: value for name, value in more.items() if value is not None}
            config = run.config(**given)
            device = resolve_device(place.device)
            show.doing("reading data")
            config, dataset = in_turn(world, partial(load_data, config, run.data))
            store = Store(place.store, create=True) if speaks() else None
            is_stored = told(world, lambda: store is not None and store.has(config.key))
            kept = None if store is None else Checkpoints(store)
            keeper = None if kept is None else kept.keeper([config], every, show.say)
            if checkpoint is None and keeper is not None:
                under_way.path = keeper.path
            # Processes that wait for each other cannot each end at a place of their own.
            with stopping.at_a_good_place() if world is None else nullcontext():
                if is_stored and store is not None:
                    result = store.load(config.key)
                elif not is_stored:
                    show.begin(f"training {config.strategy}")
                    result = train_run(
                        config,
                        dataset=dataset,
                        device=str(device),
                        threads=place.threads,
                        checkpoint=checkpoint or keeper,
                        on_progress=show.train,
                        world=world,
                    )
                if store is None or kept is None:  # the first keeps what all have trained
                    return
                if not is_stored:
                    store.save(result)
                under_way.is_stored = True
                kept.drop_ended([config.key])
            written = None if tensorboard is None else write(result, tensorboard)
    folder = store.path / config.key
    if json:
        stored = {key: value for key, value in result.to_dict().items() if key != "steps"}
        measured = {"score": result.score, "metric": result.metric.to_dict()}
        if result.layers is not None:
            measured["layer_profiles"] = [each.as_dict() for each in result.layers.profiles()]
        stored = {**stored, **measured}
        screen.echo_json({"key": config.key, "folder": str(folder), "read": is_stored, **stored})
        return
    for line in report(result):
        screen.echo_wrapped(line)
    screen.echo_wrapped(f"{'read from' if is_stored else 'stored in'} {folder}")
    if written is not None:
        screen.echo_wrapped(f"for TensorBoard in {written}: tensorboard --logdir {tensorboard}")


def report(result: RunResult) -> list[str]:
    """What there is to say about a run: its score, what clipping did, and what that word means."""
    config, clipping = result.config, result.clipping
    model = f", {config.model}" if config.model else ""
    where = f"{config.strategy} on {config.task}{model}, seed {config.seed}"
    metric = result.metric
    score = f"{score_with_unit(metric, result.score)} {config.split} {metric.name}"
    if result.status == "diverged":
        worst = worst_words(metric).partition(",")[0]
        score = f"diverged at step {result.stopped_at}; scored as {worst}, {score}"
    lines = [f"{where}: {score} in {screen.duration(result.seconds)}"]
    if clipping.get("verdict"):
        lines += _clipping(clipping)
    if result.layers is not None:
        lines += map(str, result.layers.profiles())
    if result.status == "finished" and result.message:
        lines.append(result.message)
    return lines


def _clipping(clipping: dict[str, Any]) -> list[str]:
    steps = max(int(clipping["steps"]), 1)
    shares = {name: clipping.get(name, 0) / steps for name in ("skipped", "not_finite")}
    verdict = verdict_text({**clipping, **shares}, "skipped", "not_finite")
    sentence = f"limited {screen.percent(clipping['limited_rate'])} % of the steps: {verdict}"
    if clipping["clip_rate"] != clipping["limited_rate"]:
        sentence += f"; something was clipped in {screen.percent(clipping['clip_rate'])} %"
    from gclip.clipping.nonfinite import FirstNonfinite

    first = FirstNonfinite.from_dict(clipping.get("first_not_finite"))
    if first is None:
        return [sentence, DEFINITION]
    count = int(clipping.get("not_finite", 0))
    many = f" in {screen.plural(count, 'step')}," if count else ""
    return [sentence, DEFINITION, f"Gradients were not finite{many} {first}."]


class _UnderWay:
    """What is kept of a run when the command is stopped.

    Attributes:
        path: of its checkpoint, if there is one.
        is_stored: it has ended, and is in the store.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.is_stored = path, False

    def told(self) -> str:
        """In words."""
        from gclip.training.checkpoint import read_about

        if self.is_stored:
            return "the run has ended and is stored; the same command shows it"
        if self.path is None or not os.path.exists(self.path):
            return "nothing of this run is kept; the same command begins it again"
        about = read_about(self.path) or {}
        saved = f"step {about['step']} of {about['steps']} is" if "steps" in about else "it is"
        return f"{saved} saved in {self.path}; the same command goes on from there"
