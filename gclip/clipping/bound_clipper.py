"""A clipper's strategies bound to its parameters: followed as these change, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gclip.clipping.arrangement import Arrangement, ClipperOptions
from gclip.clipping.assignment import StrategyState, check_same, read_state, saved_state
from gclip.clipping.base_clipper import BaseClipper
from gclip.clipping.bound_strategy import BoundStrategy
from gclip.clipping.parameter_sources import ParameterSource, differing, source_of
from gclip.clipping.parameters import Named, Parameters
from gclip.clipping.record import Record
from gclip.clipping.report import ClipReport
from gclip.clipping.step_log import LogTarget, StepLog
from gclip.errors import UsageError


class BoundClipper(BaseClipper):
    """The base of `gclip.Clipper`: which strategies work on which parameters, and their state.

    Args:
        parameters: as `gclip.Clipper`.
        options: what it is made with beside them.
    """

    def __init__(self, parameters: Parameters | ParameterSource, options: ClipperOptions) -> None:
        super().__init__(options.nonfinite)
        self._options = options
        self.record = Record()
        self._logs: list[StepLog] = []
        self._source = source_of(parameters)
        self._fused = False
        self._arrange(self._source.read(), grown=False)

    def _arrange(
        self, named: Named, earlier: Sequence[StrategyState] = (), *, grown: bool = True
    ) -> None:
        """Bind the strategies to these parameters; they go on with the memory of `earlier` ones."""
        bound = Arrangement(self._options, named, earlier, grown=grown, fused=self._fused)
        self._bound, self.names, self.params = bound, named.names, named.params
        self._updates, self._samples = bound.updates, bound.samples
        self._rounds, self._on_gradients = bound.rounds, bound.on_gradients
        self._unmeasured, self._alone = bound.unmeasured, bound.alone

    def _follow(self) -> None:
        """The parameters may have become others: work on those that are there now."""
        named = self._source.read()
        if not differing(self._bound.named, named):
            return
        if self._samples is not None and self._samples.waiting:
            raise UsageError(
                "the model got other parameters between clipper.backward() and clipper.step()"
            )
        self.record.flush()  # the steps that wait have other groups
        self._arrange(named, self._bound.states())

    @property
    def parts(self) -> tuple[BoundStrategy, ...]:
        """Each strategy at work on its parameters, in the order in which they act."""
        return tuple(self._bound.all)

    def log_to(self, target: LogTarget, *, every: int = 50) -> StepLog:
        """Tell a logger what clipping does, every so many steps.

        >>> import torch, gclip
        >>> weight = torch.nn.Parameter(torch.zeros(2))
        >>> clipper = gclip.Clipper([weight], "norm(max_norm=1)")
        >>> log = clipper.log_to(lambda step, numbers: print(step, numbers["norm"]), every=2)
        >>> for size in (0.5, 4.0):
        ...     weight.grad = torch.tensor([0.0, size])
        ...     report = clipper.step()
        2 4.0

        The numbers are those of `ClipReport.scalars`: ``norm``, ``clipped_norm`` and ``limit`` of
        that step, ``clip_rate`` and ``skipped`` the means of the steps since the last time. They
        come from a GPU behind the work that is queued, and are told when they are there: nothing
        waits.

        Args:
            target: a ``torch.utils.tensorboard.SummaryWriter``, which gets ``clip/norm`` and so
                on; or any function of the number of steps made, and the numbers by name.
            every: so many steps.

        Returns:
            The log, whose ``flush()`` tells what is still on its way when training ends.

        Raises:
            UsageError: another target; or nothing is recorded.
        """
        if not self._options.recording:
            raise UsageError("log_to tells of the record: make the Clipper with record=True")
        log = StepLog(target, every, self.record)
        self._logs.append(log)
        return log

    def _refuse_misuse(self) -> None:
        """What the loop should have done since the last step."""
        if self._pending is not None and not self._updates.is_saved:
            skip = self._pending[1]
            if skip is not None and bool(skip):
                with self.updating():  # the loop has left the skipped step out, as it should
                    pass
        self._refuse_pending(", or use gclip.attach(optimizer, …)")
        if self._samples is not None and not self._samples.waiting:
            raise UsageError(
                "this clipper works on single examples: call clipper.backward(inputs, targets, "
                "loss) in place of loss.backward()"
            )

    def _complete(self, report: ClipReport) -> None:
        """A step is complete: tell those who log it."""
        for log in self._logs:
            log.note(self._step, report)

    def fold(self) -> None:
        """Leave the multiplication by the factor to an optimizer: see `gclip.clipping.fused`."""
        self._fused = True
        for part in self._bound.all:
            part.fuse()

    def state_dict(self) -> dict[str, Any]:
        """Every strategy's memory by its groups' names, the step count and the record.

        Loads with ``torch.load(weights_only=True)``, and from what
        ``torch.distributed.checkpoint`` has saved.
        """
        return saved_state(self._step, self._bound.states(), self.record)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where another clipper with the same strategies and parameters stopped.

        The parameters are found by name, in whatever order they are. Where nothing has been saved
        by name (``parameters()``), by number.

        Raises:
            UsageError: the state belongs to other strategies, or to other parameters.
        """
        step, states, record = read_state(state)
        named = self._bound.named
        check_same(named, self._options.assign(named, grown=True), states)
        self._arrange(named, states)
        self._step = step
        self.record.load_state_dict(record)

    def __repr__(self) -> str:
        parts = ", ".join(f"{p.strategy} on {p.groups.count} groups" for p in self.parts)
        return f"Clipper({parts}; {self._step} steps)"
