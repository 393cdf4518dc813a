"""One worker process: it reads runs from its standard input, trains them, and stores the results.

A worker owns nothing that cannot be lost. A result is in the store before it is reported, so a
worker may be killed at any moment at the cost of the run in its hands. When its standard input
closes, its parent has finished or died, and the worker ends at once: it never outlives the parent.

The protocol is a JSON object a line. In: first the `WorkerSettings`, then ``{"runs": [{"index",
"config"}, …], "ask"}``; several runs are one fleet. Out: ``ready``, and for each run ``progress``
…, then ``done`` or ``failed``; or ``broken`` when a fleet raised, for all of it that has not ended.
With ``ask``, a ``progress`` at an epoch's end has ``asks``, and the worker waits for ``{"go": …}``.
To ``{"measure": …}``, between runs, the answer is ``measured``: how fast fleets are there.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gclip.training import Dataset, Progress, RunConfig, RunResult

# Started with ``-P -c``: the settings carry the parent's import path, so that a worker finds the
# same gclip and the same plugins however the parent was started, and never imports its script.
BOOT = (
    "import json, sys; settings = json.loads(sys.stdin.readline()); "
    "sys.path[:] = settings.pop('import_path'); "
    "from gclip.execution.worker import serve; serve(settings)"
)


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What a worker must know before its first run; `fleet`: how many it is given at once."""

    store: str
    device: str = "cpu"
    data: str | None = None
    plugins: tuple[str, ...] = ()
    threads: int = 1
    fleet: int = 1

    def line(self) -> str:
        """The first line of a worker's input."""
        return json.dumps({**dataclasses.asdict(self), "import_path": sys.path}) + "\n"


def serve(settings: dict[str, Any]) -> None:
    """The worker's life: set up, say ready, then one run after another until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    out = _claim_stdout()
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    chosen = WorkerSettings(**{**settings, "plugins": tuple(settings["plugins"])})

    import torch

    from gclip.core.plugins import load_plugins

    torch.set_num_threads(chosen.threads)
    for plugin in chosen.plugins:
        load_plugins(plugin)
    _say(out, kind="ready")
    datasets: dict[str, Dataset] = {}
    while True:
        order = jobs.get()
        if "measure" in order:
            _say(out, kind="measured", finding=_measured(order["measure"], chosen, datasets))
            continue
        runs = order["runs"]
        try:
            if len(runs) == 1:
                _run(order, chosen, datasets, jobs, out)
            else:
                _run_fleet(order, chosen, datasets, jobs, out)
        except Exception as error:
            kind = "failed" if len(runs) == 1 else "broken"
            _say(out, kind=kind, index=runs[0]["index"], message=describe(error))


def _measured(
    order: dict[str, Any], settings: WorkerSettings, datasets: dict[str, Dataset]
) -> dict[str, Any] | None:
    """How fast fleets are here; None where that is not worth knowing, or cannot be known."""
    from gclip.execution import fleet_sizing
    from gclip.training import RunConfig

    try:
        configs = [RunConfig.from_json(each) for each in order["configs"]]
        work = fleet_sizing.Workload(
            configs=configs, device=settings.device, threads=settings.threads, **order["work"]
        )
        dataset = _dataset(configs[0].task, settings, datasets)
        found = fleet_sizing.measure(configs, dataset, work, order["cap"], order["steps"])
    except Exception:  # what is wrong is said by the run that fails of it
        return None
    return None if found is None else found.to_json()


def describe(error: BaseException) -> str:
    """An exception in one line: the message of a user's mistake, else with the exception's name."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_changed(config: RunConfig) -> str | None:
    """A sentence if the strategy's code is not the one that `config` was planned with."""
    from gclip.core import registry
    from gclip.core.digest import code_digest

    if not config.code or code_digest(registry.parse(config.strategy)) == config.code:
        return None
    return (
        f"the code of {config.strategy} was edited while the comparison ran; "
        "repeat the command to run it with the new code"
    )


def ask_at_epochs(say: Callable[[Progress, bool], bool]) -> Callable[[Progress], bool]:
    """A listener for `train` that says everything to `say`, and asks at an epoch's end.

    `say` is told the progress and whether its answer, to go on or not, counts: at the end of every
    epoch but the last.
    """
    asked = 0

    def listen(progress: Progress) -> bool:
        nonlocal asked
        asks = progress.status == "running" and progress.epoch > asked
        asked = progress.epoch
        return say(progress, asks)

    return listen


def train_together(
    configs: Sequence[RunConfig],
    dataset: Dataset,
    settings: WorkerSettings,
    *,
    say: Callable[[int, Progress, bool], bool],
    keep: Callable[[int, RunResult], None],
) -> None:
    """Train a fleet; `say` and `keep` are told the place in `configs` first.

    Args:
        say: as that of `ask_at_epochs`.
        keep: is given each result as soon as its run has ended.
    """
    from gclip.training.fleet.train import train_fleet

    listeners = [ask_at_epochs(functools.partial(say, place)) for place in range(len(configs))]
    train_fleet(
        configs,
        dataset=dataset,
        device=settings.device,
        threads=settings.threads,
        on_progress=lambda place, progress: listeners[place](progress),
        on_result=keep,
    )


def _run(
    order: dict[str, Any],
    settings: WorkerSettings,
    datasets: dict[str, Dataset],
    inbox: queue.SimpleQueue[dict[str, Any]],
    out: IO[str],
) -> None:
    from gclip.results import Store
    from gclip.training import RunConfig, train

    [job] = order["runs"]
    index, config = job["index"], RunConfig.from_json(job["config"])
    changed = code_changed(config)
    if changed:
        raise ValueError(changed)

    def say(progress: Progress, asks: bool) -> bool:
        return _report_progress(index, progress, asks and order["ask"], inbox, out)

    result = train(
        config,
        dataset=_dataset(config.task, settings, datasets),
        device=settings.device,
        threads=settings.threads,
        on_progress=ask_at_epochs(say),
    )
    Store(settings.store).save(result)
    _say(out, kind="done", index=index)


def _run_fleet(
    order: dict[str, Any],
    settings: WorkerSettings,
    datasets: dict[str, Dataset],
    inbox: queue.SimpleQueue[dict[str, Any]],
    out: IO[str],
) -> None:
    from gclip.results import Store
    from gclip.training import RunConfig

    store = Store(settings.store)
    going: list[int] = []
    configs: list[RunConfig] = []
    for job in order["runs"]:
        config = RunConfig.from_json(job["config"])
        changed = code_changed(config)
        if changed:
            _say(out, kind="failed", index=job["index"], message=changed)
        else:
            going.append(job["index"])
            configs.append(config)

    def say(place: int, progress: Progress, asks: bool) -> bool:
        return _report_progress(going[place], progress, asks and order["ask"], inbox, out)

    def keep(place: int, result: RunResult) -> None:
        store.save(result)
        _say(out, kind="done", index=going[place])

    if configs:
        dataset = _dataset(configs[0].task, settings, datasets)
        train_together(configs, dataset, settings, say=say, keep=keep)


def _report_progress(
    index: int,
    progress: Progress,
    asks: bool,
    inbox: queue.SimpleQueue[dict[str, Any]],
    out: IO[str],
) -> bool:
    """Say how far a run is, and whether it should go on: the parent's answer, if it is asked."""
    _say(out, kind="progress", index=index, progress=dataclasses.asdict(progress), asks=asks)
    return bool(inbox.get()["go"]) if asks else True


def _dataset(task: str, settings: WorkerSettings, known: dict[str, Dataset]) -> Dataset:
    from gclip.training import load_dataset

    if task not in known:
        known[task] = load_dataset(task, settings.data, download=False)
    return known[task]


def _listen(jobs: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    # The parent closed the pipe, or died. Nothing here needs tidying: stop in mid-step.
    os._exit(0)


def _claim_stdout() -> IO[str]:
    """Keep the real standard output for the protocol; whatever else prints goes to stderr."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _say(out: IO[str], **message: Any) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
