"""One worker process: it reads runs from its standard input, trains them, and stores the results.

A worker owns nothing that cannot be lost. A result is in the store before it is reported, so a
worker may be killed at any moment at the cost of the run that it trains. When its standard input
closes, its parent has finished or died, and the worker ends at once: it never outlives the parent.

The protocol is a JSON object a line. In: first `first_line`, then ``{"runs": [{"index",
"config"}, …], "ask"}``; several runs are one fleet. Out: ``ready``, and for each run ``progress``
…, then ``done`` or ``failed``; or ``broken`` when a fleet raised, for all of it that has not ended.
With ``ask``, a ``progress`` at an epoch's end has ``asks``, and the worker waits for ``{"go": …}``.
To ``{"measure": …}``, between runs, the answer is ``measured``: how fast fleets are there. A
``note`` is what there is to say of a run. After ``{"stop": true}``, or SIGTERM, the worker finishes
its step, saves the state of its runs and ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from gclip.core import stopping
from gclip.execution.execution import Execution
from gclip.execution.job import Job
from gclip.execution.job_trainer import JobTrainer, describe_error

if TYPE_CHECKING:
    from gclip.results import Store
    from gclip.training import Progress, RunResult

# Started with ``-P -c``: the settings carry the parent's import path, so that a worker finds the
# same gclip and the same plugins however the parent was started, and never imports its script.
BOOT = (
    "import json, sys; settings = json.loads(sys.stdin.readline()); "
    "sys.path[:] = settings.pop('import_path'); "
    "from gclip.execution.worker import serve; serve(settings)"
)
_OWN = ("dataset", "listener")
"""What of an `Execution` is the parent's alone."""


def first_line(store: Store, execution: Execution) -> str:
    """The first line of a worker's input: all that it must know before its first run."""
    names = [field.name for field in dataclasses.fields(Execution) if field.name not in _OWN]
    shared = {name: getattr(execution, name) for name in names}
    shared["data"] = None if execution.data is None else str(execution.data)
    settings = {**shared, "store": str(store.path.resolve()), "import_path": sys.path}
    return json.dumps(settings) + "\n"


def serve(settings: dict[str, Any]) -> None:
    """The worker's life: set up, say ready, then one run after another until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, _terminate)
    out = _claim_stdout()
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox,), daemon=True).start()

    import torch

    from gclip.core.plugins import load_plugins
    from gclip.results import Store

    store = Store(settings.pop("store"))
    execution = Execution(**settings)
    torch.set_num_threads(execution.threads)
    for plugin in execution.plugins:
        load_plugins(plugin)
    server = _Server(store, execution, inbox, out)
    server.send(kind="ready")
    try:
        while True:
            server.answer(inbox.get())
    except KeyboardInterrupt as stop:
        if isinstance(stop, _Terminated):  # as it would have ended without our handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        os._exit(0)


class _Server:
    """Answers the parent's orders."""

    def __init__(
        self,
        store: Store,
        execution: Execution,
        inbox: queue.SimpleQueue[dict[str, Any]],
        out: IO[str],
    ) -> None:
        self._execution, self._inbox, self._out = execution, inbox, out
        self._trainer = JobTrainer(store, execution, self._send_note)
        self._parent_decides = False

    def answer(self, order: dict[str, Any]) -> None:
        """Train the runs of an order, or measure; what goes wrong is said, not raised."""
        from gclip.training import RunConfig

        if "stop" in order:
            raise KeyboardInterrupt
        if "measure" in order:
            self.send(kind="measured", speedup=self._measure(**order["measure"]))
            return
        self._parent_decides = order["ask"]
        try:
            jobs = [Job(run["index"], RunConfig.from_json(run["config"])) for run in order["runs"]]
            if len(jobs) == 1:
                self._send_done(jobs[0], self._trainer.train_one(jobs[0], self._on_progress))
            else:
                self._trainer.train_fleet(
                    jobs, self._on_progress, self._send_done, self._send_failed
                )
        except (Exception, SystemExit) as error:
            kind = "failed" if len(order["runs"]) == 1 else "broken"
            self.send(kind=kind, index=order["runs"][0]["index"], message=describe_error(error))

    def send(self, **message: Any) -> None:
        """Tell the parent something."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def _send_done(self, job: Job, _: RunResult) -> None:
        self.send(kind="done", index=job.index)

    def _send_failed(self, job: Job, message: str) -> None:
        self.send(kind="failed", index=job.index, message=message)

    def _send_note(self, job: Job, message: str) -> None:
        self.send(kind="note", index=job.index, message=message)

    def _on_progress(self, job: Job, progress: Progress, asks: bool) -> bool:
        """Say how far a run is; whether it should go on is the parent's answer, if it is asked."""
        asks = asks and self._parent_decides
        self.send(kind="progress", index=job.index, progress=progress.to_dict(), asks=asks)
        # Told to stop instead, it goes on as far as it can be saved.
        return bool(self._inbox.get().get("go", True)) if asks else True

    def _measure(self, configs: list[str], cap: int, steps: float) -> dict[str, Any] | None:
        """How fast fleets are here; None where that is not worth knowing, or cannot be known."""
        from gclip.execution.fleet_measurement import measure
        from gclip.training import RunConfig

        try:
            chosen = [RunConfig.from_json(each) for each in configs]
            dataset = self._trainer.dataset(chosen[0].task)
            speedup = measure(chosen, dataset, self._execution, cap, steps)
        except Exception:  # what is wrong is said by the run that fails of it
            return None
        return None if speedup is None else speedup.to_json()


class _Terminated(KeyboardInterrupt):
    """SIGTERM, from whoever ends all processes of a job."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """Finish the step; the second time, or with nothing under way, end at once."""
    if stopping.is_wanted() or not stopping.request(_Terminated()):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)


def _listen(inbox: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        message = json.loads(line)
        if "stop" in message:
            stopping.request(KeyboardInterrupt())
        inbox.put(message)
    # The parent closed the pipe, or died. Nothing here needs tidying: stop in mid-step.
    os._exit(0)


def _claim_stdout() -> IO[str]:
    """Keep the real standard output for the protocol; whatever else prints goes to stderr."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private
