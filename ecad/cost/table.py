"""An additive cost table: a fixed cost per step, and a cost for each site that computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecad.errors import ScheduleError
from ecad.schedules import Sites
from ecad.schedules.plan import executed
from ecad.sites.names import DENOISER_SITES

OUTSIDE = "outside the blocks"


@dataclass(frozen=True, eq=False)
class CostTable:
    """The cost of one image, in MACs or nanoseconds.

    Args:
        sites: (block, component) of each site, in gene order.
        fixed_per_step: cost of a step outside the sites.
        per_site: int64 (sites,), cost of a site whenever it computes.
        readers: int (sites,), as `sites.readers.readers` returns them, if outputs that nothing reads are not computed;
            None if they are computed and counted.
        without_denoiser: the part of `fixed_per_step` that remains in a step whose output is extrapolated; 0 for MACs.
        active: bool (rows, sites), in which rows the denoiser of a site runs, where that is not every row: of several
            denoisers each runs in its own rows, and image-to-image begins in the middle. None for all rows.
        fixed_by_row: int64 (rows,), the cost of each row outside the sites, with `active`.
    """

    sites: Sites
    fixed_per_step: int
    per_site: np.ndarray = field(repr=False)
    readers: np.ndarray | None = field(default=None, repr=False)
    without_denoiser: int = 0
    active: np.ndarray | None = field(default=None, repr=False)
    fixed_by_row: np.ndarray | None = field(default=None, repr=False)

    def price(self, recompute: np.ndarray, forecast: np.ndarray | bool = False) -> np.ndarray:
        """The cost of one image under each of many schedules, exact.

        Args:
            recompute: bool (..., steps, sites), at least one step.
            forecast: bool (...), which schedules extrapolate.

        Returns:
            int64 (...).

        Raises:
            ScheduleError: the last axis does not have the number of sites.

        >>> table = CostTable((("0", "attn1"), ("0", "ff")), 1, np.array([10, 100]))
        >>> bits = np.array([[[1, 1], [0, 1]], [[0, 0], [0, 0]]], dtype=bool)
        >>> table.price(bits).tolist(), table.price(bits, forecast=True).tolist()
        ([212, 112], [212, 111])
        """
        runs = self._runs(recompute)
        steps = runs.shape[-2]
        # Adding up the steps as bytes first leaves a small product in integers, exact to 2**63 (float64: 2**53).
        times = np.add.reduce(runs.view(np.uint8), axis=-2, dtype=np.uint8 if steps < 256 else np.int64)
        is_uniform = self.active is None and not np.any(forecast)
        outside = steps * self.fixed_per_step if is_uniform else self._outside(runs, forecast).sum(axis=-1)
        return np.asarray(times.astype(np.int64) @ self.per_site + outside)

    def price_components(self, recompute: np.ndarray, forecast: np.ndarray | bool = False) -> dict[str, np.ndarray]:
        """The cost of each step by component.

        Args:
            recompute, forecast: as for `price`.

        Returns:
            component, or `OUTSIDE` for everything outside the sites -> int64 (..., steps).
        """
        runs = self._runs(recompute)
        costs = runs * self.per_site
        names = np.array([component for _, component in self.sites])
        found = {name: costs[..., names == name].sum(axis=-1) for name in dict.fromkeys(names.tolist())}
        return found | {OUTSIDE: self._outside(runs, forecast)}

    def _outside(self, runs: np.ndarray, forecast: np.ndarray | bool) -> np.ndarray:
        """The cost of each step outside the sites, int64 (..., steps)."""
        is_forecast = np.asarray(forecast)[..., None] & ~runs.any(axis=-1)
        if self.active is not None:
            is_forecast &= self.active.any(axis=1)
        fixed = np.int64(self.fixed_per_step) if self.fixed_by_row is None else self.fixed_by_row
        return np.asarray(np.where(is_forecast, np.int64(self.without_denoiser), fixed))

    def whole(self) -> CostTable:
        """The table of the same denoiser, one of one, as one site, its own output."""
        kept = self.without_denoiser
        if self.active is None or self.fixed_by_row is None:
            runs = self.fixed_per_step - kept + int(self.per_site.sum())
            return CostTable(DENOISER_SITES, kept, np.array([runs]), None, kept)
        active = np.asarray(self.active.any(axis=1))
        runs = int(self.fixed_by_row.max()) - kept + int(self.per_site.sum())
        fixed = np.where(active, np.int64(kept), 0)
        return CostTable(DENOISER_SITES, 0, np.array([runs]), None, kept, active=active[:, None], fixed_by_row=fixed)

    def to_json(self) -> dict[str, object]:
        """The JSON value that `from_json` reads."""
        return {
            "sites": [list(site) for site in self.sites],
            "fixed_per_step": self.fixed_per_step,
            "without_denoiser": self.without_denoiser,
            "per_site": self.per_site.tolist(),
            "readers": None if self.readers is None else self.readers.tolist(),
            **({} if self.active is None else {"active": self.active.astype(int).tolist()}),
            **({} if self.fixed_by_row is None else {"fixed_by_row": self.fixed_by_row.tolist()}),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> CostTable:
        """Read the table that `to_json` returned.

        Raises:
            KeyError, TypeError, ValueError: the document is malformed.
        """
        sites = tuple((str(block), str(component)) for block, component in document["sites"])
        try:
            per_site, readers = np.array(document["per_site"], dtype=np.int64), document["readers"]
            fixed, without = (int(np.int64(int(document[key]))) for key in ("fixed_per_step", "without_denoiser"))
            by_row = _rows_of(document, len(sites))
        except OverflowError as error:
            raise ValueError("a cost exceeds 64 bits") from error
        if per_site.shape != (len(sites),):
            raise ValueError(f"costs of shape {per_site.shape} for {len(sites)} sites")
        return cls(sites, fixed, per_site, None if readers is None else np.array(readers), without, *by_row)

    def _runs(self, recompute: np.ndarray) -> np.ndarray:
        if recompute.ndim < 2 or recompute.shape[-1] != len(self.sites) or not recompute.shape[-2]:
            raise ScheduleError(
                "the bits have another shape",
                expected=f"(..., steps, {len(self.sites)})",
                found=str(recompute.shape),
            )
        if self.active is None:
            return executed(recompute, self.readers)
        if recompute.shape[-2] != len(self.active):
            raise ScheduleError(
                "the cost is known for one number of rows only",
                expected=f"{len(self.active)} rows",
                found=str(recompute.shape[-2]),
                remedy=f"take the costs from generator.architecture_for({recompute.shape[-2]})",
            )
        # What ran before a denoiser's first row did not run: that row computes.
        first = self.active & (self.active.cumsum(axis=0) == 1)
        return np.asarray(executed(recompute | first, self.readers) & self.active)


def _rows_of(document: dict[str, Any], sites: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`active` and `fixed_by_row` of a table's JSON value, which has both or neither."""
    if "active" not in document and "fixed_by_row" not in document:
        return None, None
    active, fixed = np.array(document["active"], dtype=np.int64), np.array(document["fixed_by_row"], dtype=np.int64)
    if active.ndim != 2 or active.shape[1] != sites or fixed.shape != active.shape[:1] or not len(active):
        raise ValueError(f"rows of shapes {active.shape} and {fixed.shape} for {sites} sites")
    if not np.isin(active, (0, 1)).all():
        raise ValueError("`active` has other numbers than 0 and 1")
    return active.astype(bool), fixed
