"""Cache schedules: the table of what to recompute and what to reuse, its file formats, and hand-made schedules."""

from ecad.schedules.schedule import CacheSchedule
from ecad.sites.names import Sites, flux_sites, pixart_sites

__all__ = ["CacheSchedule", "Sites", "flux_sites", "pixart_sites"]
