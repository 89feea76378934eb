"""Which row of the schedule a denoiser forward belongs to: asked of the pipeline's scheduler and of the timestep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import torch

from ecad.runtime.overrides import After, Around, Override, override_of

_ROUNDING = 1e-5
_FEW = 16


class Numbers(NamedTuple):
    """What a timestep holds.

    Attributes:
        least, most: of its elements; they differ where every token or frame has a timestep of its own.
        rounding: how far off a number may be, relative to its size; None if it was cut to a whole number.
    """

    least: float
    most: float
    rounding: float | None


class Time:
    """The timestep that a forward is given.

    Args:
        value: a number, or a tensor of any shape.
    """

    def __init__(self, value: float | torch.Tensor) -> None:
        self._value = value

    @cached_property
    def numbers(self) -> Numbers:
        """Its numbers; to read them waits for the device.

        >>> Time(torch.tensor([0.5, 0.25])).numbers[:2]
        (0.25, 0.5)
        """
        value = self._value
        if not isinstance(value, torch.Tensor):
            return Numbers(float(value), float(value), None if isinstance(value, int) else _ROUNDING)
        rounding = max(torch.finfo(value.dtype).eps, _ROUNDING) if value.is_floating_point() else None
        # Small ones are read without an operator.
        few = value if value.numel() <= _FEW else torch.stack(torch.aminmax(value.detach()))
        found = few.tolist() if few.ndim == 1 else few.flatten().tolist()
        return Numbers(float(min(found)), float(max(found)), rounding)

    def place_in(self, timesteps: torch.Tensor) -> int | None:
        """Which element of a tensor this timestep is, in the same memory; None if it lies elsewhere.

        Args:
            timesteps: of shape (rows,).

        >>> timesteps = torch.tensor([3, 2, 1])
        >>> Time(timesteps[1].expand(2)).place_in(timesteps), Time(torch.tensor(2)).place_in(timesteps)
        (1, None)
        """
        value = self._value
        if not type(value) is type(timesteps) is torch.Tensor or value.is_meta:
            return None
        if value.dtype != timesteps.dtype or value.device != timesteps.device or timesteps.ndim != 1:
            return None
        if any(stride for size, stride in zip(value.shape, value.stride(), strict=True) if size > 1):
            return None
        size = timesteps.itemsize * max(1, timesteps.stride(0))
        place, rest = divmod(value.data_ptr() - timesteps.data_ptr(), size)
        return place if not rest and 0 <= place < len(timesteps) else None


def time_of(value: object) -> Time | None:
    """A forward's timestep argument as a `Time`; None if it holds no numbers."""
    if isinstance(value, torch.Tensor):
        return None if not value.numel() or value.is_complex() or value.is_meta else Time(value)
    return Time(value) if isinstance(value, (int, float)) else None


class GivenRow:
    """The row that a loop of one's own says."""

    def __init__(self) -> None:
        self._row: int | None = None

    @property
    def now(self) -> int | None:
        """The row that the loop is in; None outside of any."""
        return self._row

    @contextmanager
    def at(self, row: int) -> Iterator[None]:
        """Within the `with`, forwards belong to this row."""
        self._row = row
        try:
            yield
        finally:
            self._row = None

    def row_of(self, time: Time | None, is_known: bool = True) -> int | None:
        """The row of a forward; None outside of any."""
        return self._row


class SchedulerRows:
    """The rows of one generation of a scheduler.

    A scheduler's own index comes first, and where it has none, the timestep of its last step. The timestep of the
    forward must be that row's: it is the very element of the scheduler's timesteps, or its number is, as far as
    pipelines hand it on in a way that is known (whole, as a fraction, turned round, as a sigma). Before the first step,
    the timestep alone tells the row.

    Args:
        scheduler: whose timesteps have been set.
        rows_to_run: how many of the rows, the last ones, the pipeline says that it runs; None if it says nothing.
    """

    def __init__(self, scheduler: Any, rows_to_run: Callable[[], int | None] = lambda: None) -> None:
        self.scheduler = scheduler
        self._rows_to_run = rows_to_run
        self._stepped: int | None = None
        self._tables: list[_Table] | None = None
        self._first: int | None = None
        self._times: dict[int, Numbers] = {}

    def __len__(self) -> int:
        return len(self.scheduler.timesteps)

    @property
    def now(self) -> int | None:
        """The row that the scheduler's steps have come to; None before the first one."""
        return self._index()

    @property
    def has_moved(self) -> bool:
        """Whether the scheduler has taken any step of this generation."""
        return self._index() is not None

    def stepped(self, timestep: Any) -> None:
        """Note a step of a scheduler that has no index.

        Args:
            timestep: that it was told, one of its own.
        """
        at = [row for row, known in enumerate(self.scheduler.timesteps.tolist()) if known == float(timestep)]
        counted = (self._first or 0) if self._stepped is None else self._stepped
        self._stepped = 1 + (at[0] if len(at) == 1 else counted)

    def row_of(self, time: Time | None, is_known: bool = True) -> int | None:
        """The row of a forward; None if it belongs to no row, or it cannot be told.

        Args:
            time: the timestep that it is given.
            is_known: whether it is called from where a forward of an earlier row was. Only such a forward shows that
                the way in which the pipeline writes timesteps was taken for another one.
        """
        place = None if time is None else time.place_in(self.scheduler.timesteps)
        if place is not None:
            return self._row_of_element(place)
        numbers = None if time is None else time.numbers
        near = self._near(numbers)
        fitting = None if not near else sorted({row for _, rows in near for row in rows})
        row = self._row(fitting)
        if row is None and is_known and self.has_moved and len(self._times) == 1:
            # One row alone may agree with a table by chance.
            self._tables, near, fitting = [], [], None
            row = self._row(None)
        if row is None or not (self._first or 0) <= row < len(self):
            return None
        if numbers is not None:
            if fitting is None and not self._is_new_or_same(row, numbers):
                return None
            self._times[row] = numbers
            self._tables = [table for table, rows in near if row in rows]
        return self._counted(row)

    def _row_of_element(self, place: int) -> int | None:
        """The row of a forward whose timestep is an element of the scheduler's; nothing needs to be read for it."""
        index = self._index()
        row = place if index is None else index
        if row != place and (row >= len(self) or self._whole[row] != self._whole[place]):
            return None
        return self._counted(row) if row >= (self._first or 0) else None

    def _counted(self, row: int) -> int:
        if self._first is None:
            self._first = row
        return row

    @cached_property
    def _whole(self) -> list[float]:
        return [float(timestep) for timestep in self.scheduler.timesteps.tolist()]

    def _index(self) -> int | None:
        index = getattr(self.scheduler, "step_index", None)
        return self._stepped if index is None else int(index)

    def _row(self, fitting: list[int] | None) -> int | None:
        index = self._index()
        if index is None:
            index = getattr(self.scheduler, "begin_index", None)
        if index is not None:
            return index if fitting is None or index in fitting else None
        first = self._first or 0
        if fitting is None or first in fitting:
            return first
        return fitting[0] if len(fitting) == 1 else None

    def _near(self, time: Numbers | None) -> list[tuple[_Table, list[int]]]:
        """The rows whose timestep this is, by the ways in which the pipeline may write timesteps; none if unknown."""
        if time is None:
            return []
        if self._tables is None:
            self._tables = self._tables_of(time)
        return [(table, table.rows_near(time)) for table in self._tables]

    def _tables_of(self, time: Numbers) -> list[_Table]:
        """In which tables the first timestep of a generation stands where it should."""
        whole, *others = _tables(self.scheduler)
        index = self._index()
        begin = getattr(self.scheduler, "begin_index", None) if index is None else index
        if begin is not None:
            return [table for table in (whole, *others) if begin in table.rows_near(time)]
        # Image-to-image begins in the middle, and some pipelines do not tell the scheduler where.
        near, at_first = whole.rows_near(time), [table for table in others if 0 in table.rows_near(time)]
        if 0 in near:
            return [whole, *at_first]
        if len(near) != 1:
            return at_first
        # Two tables that disagree: row 0, unless the pipeline says how many rows it runs. A first row computes
        # everything, so the scheduler's first step corrects a wrong guess before anything is reused.
        return [whole] if not at_first or self._rows_to_run() == len(self) - near[0] else at_first

    def _is_new_or_same(self, row: int, time: Numbers) -> bool:
        """Whether a timestep that cannot be looked up is one timestep a row, as the scheduler's are."""
        if row in self._times:
            return self._times[row] == time
        now = self.scheduler.timesteps[row]
        others = [other for other, known in self._times.items() if known == time]
        return all(bool((self.scheduler.timesteps[other] == now).all()) for other in others)


class _Table(NamedTuple):
    """What a pipeline gives a denoiser in each row.

    Attributes:
        numbers: by row.
        size: of what the timesteps were subtracted from; 0 if they are not turned round.
    """

    numbers: list[float]
    size: float = 0.0

    def rows_near(self, time: Numbers) -> list[int]:
        most, rounding, size = time.most, time.rounding, self.size
        if rounding is None:
            cut = min(1.0, 1e-2 * max(map(abs, self.numbers), default=0.0))
            return [row for row, number in enumerate(self.numbers) if abs(number - most) <= cut]
        return [
            row for row, number in enumerate(self.numbers) if abs(number - most) <= rounding * max(abs(number), size)
        ]


def _tables(scheduler: Any) -> list[_Table]:
    whole = [float(timestep) for timestep in torch.as_tensor(scheduler.timesteps).flatten().tolist()]
    training = float(getattr(getattr(scheduler, "config", None), "num_train_timesteps", None) or 1000)
    sigmas = (
        torch.as_tensor(() if (found := getattr(scheduler, "sigmas", None)) is None else found)
        .flatten()
        .tolist()[: len(whole)]
    )
    tables = [_Table([t * scale for t in whole]) for scale in (1, 1 / training, training)]
    tables += [
        _Table([full - t * scale for t in whole], full) for full, scale in ((training, 1), (1, 1 / training), (1, 1))
    ]
    if len(sigmas) == len(whole):
        tables += [_Table(sigmas), _Table([s * training for s in sigmas]), _Table([1 - s for s in sigmas], size=1)]
    return tables


class SchedulerWatch:
    """Follows one scheduler object, and tells when its timesteps are set.

    Args:
        on_timesteps: called when timesteps are set.
    """

    def __init__(self, on_timesteps: Callable[[], None]) -> None:
        self.scheduler: Any = None
        self._rows: SchedulerRows | None = None
        self._on_timesteps = on_timesteps
        self._overrides: list[Override] = []

    @property
    def is_shared(self) -> bool:
        """Whether another one follows the same scheduler, so that its generations are not all of this one's."""
        methods = vars(self.scheduler) if self.scheduler is not None else {}
        return any(methods.get(o.name) is not o.method or override_of(o.original) for o in self._overrides)

    def follow(self, scheduler: Any, of: object = None) -> None:
        """Leave the scheduler followed so far for another one.

        Args:
            scheduler: the other one; None for none.
            of: the run that it is followed for.
        """
        for override in self._overrides:
            override.remove()
        self.scheduler, self._rows, self._overrides = scheduler, None, []
        if scheduler is None:
            return
        self._overrides = [After(scheduler, "set_timesteps", self._on_timesteps)]
        if not hasattr(scheduler, "step_index") and hasattr(scheduler, "step"):
            self._overrides.append(Around(scheduler, "step", self._step))
        for override in self._overrides:
            override.of = of

    def begin(self, rows_to_run: Callable[[], int | None] = lambda: None) -> SchedulerRows:
        """The rows of the generation whose timesteps were set last; its steps are noted from now on.

        Args:
            rows_to_run: as for `SchedulerRows`.
        """
        self._rows = SchedulerRows(self.scheduler, rows_to_run)
        return self._rows

    def _step(self, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        if self._rows is not None:
            self._rows.stepped(args[1] if len(args) > 1 else kwargs["timestep"])
        return result
