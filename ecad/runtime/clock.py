"""Which row of the schedule is running: read off the pipeline's scheduler, whatever the pipeline.

Every diffusers pipeline calls `scheduler.set_timesteps` once a generation and `scheduler.step` once a row (Heun: 2n-1
rows, some of them at the same timestep, so timesteps cannot be counted instead).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ecad.runtime.overrides import After, Override, override_of


class StepClock:
    """Follows one scheduler object.

    Arguments:
        on_timesteps: called when a generation's timesteps are set.
        on_end: called after the last row.

    Attributes:
        rows: rows of the generation under way.
        starting: its timesteps are set, and no denoiser has run since.
    """

    def __init__(self, on_timesteps: Callable[[], None], on_end: Callable[[], None]) -> None:
        self.scheduler: Any = None
        self.rows = 0
        self.starting = False
        self._on_timesteps, self._on_end = on_timesteps, on_end
        self._overrides: list[Override] = []
        self._row: int | None = None
        self._pinned: int | None = None

    @property
    def step(self) -> int | None:
        """The row that is running; None outside a generation."""
        return self._row if self._pinned is None else self._pinned

    @property
    def is_shared(self) -> bool:
        """Whether another clock follows the same scheduler, so that its generations are not all of this one's."""
        methods = vars(self.scheduler) if self.scheduler is not None else {}
        return any(methods.get(o.name) is not o.method or override_of(o.original) for o in self._overrides)

    def follow(self, scheduler: Any) -> None:
        """Leave the scheduler followed so far for another one, perhaps in the middle of a generation; None for none."""
        for override in self._overrides:
            override.remove()
        self.scheduler, self._overrides = scheduler, []
        self.stop()
        if scheduler is not None:
            if self._pinned is None and getattr(scheduler, "num_inference_steps", None) is not None:
                self._arm()
            self._overrides = [
                After(scheduler, "set_timesteps", self._timesteps_set),
                After(scheduler, "step", self._stepped),
            ]

    def start(self, rows_to_run: int | None = None, timestep: Any = None) -> None:
        """Begin to count: the first denoiser forward of a generation is about to run.

        Arguments:
            rows_to_run: how many of the scheduler's rows, the last ones, the pipeline says that it runs.
            timestep: what the forward is given, in any shape.
        """
        self.starting = False
        # Image-to-image pipelines enter the timesteps in the middle, and tell the scheduler where; some forget to.
        begin = getattr(self.scheduler, "begin_index", None)
        self._row = (self._row or 0) + (self._left_out(rows_to_run, timestep) if begin is None else begin)

    def stop(self) -> None:
        """Be outside any generation until the next one begins."""
        self.starting, self._row = False, None

    def pin(self, step: int | None) -> None:
        """Hold the clock at a row, whatever the scheduler does; None: until the next generation begins."""
        self.stop()
        self._pinned = step

    def _left_out(self, rows_to_run: int | None, timestep: Any) -> int:
        begin = self.rows - (rows_to_run or self.rows)
        if begin <= 0 or timestep is None:
            return 0
        # What a pipeline says of itself may be about an earlier call, so the timestep has to agree.
        agrees = float(torch.as_tensor(timestep).max()) == float(self.scheduler.timesteps[begin])
        return begin if agrees else 0

    def _arm(self) -> None:
        self.rows, self.starting, self._row = len(self.scheduler.timesteps), True, 0

    def _timesteps_set(self) -> None:
        self._arm()
        self._on_timesteps()

    def _stepped(self) -> None:
        if self._row is None:
            return
        self._row += 1
        if self._row >= self.rows:
            self.stop()
            self._on_end()
