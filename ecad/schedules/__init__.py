"""What to recompute and what to reuse: cache schedules, their files, and the hand-made ones."""

from ecad.schedules.schedule import CacheSchedule
from ecad.sites.names import Sites, flux_sites, pixart_sites

__all__ = ["CacheSchedule", "Sites", "flux_sites", "pixart_sites"]
