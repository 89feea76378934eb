"""The hand-made schedules that found ones are compared with."""

from __future__ import annotations

from ecad.schedules import CacheSchedule, heuristics

_EVERY = (2, 3, 4)


def baselines(template: CacheSchedule) -> dict[str, CacheSchedule]:
    """Name -> schedule that computes every n-th step; none if the template has no more steps than the largest n.

    >>> from ecad.schedules import pixart_sites
    >>> list(baselines(heuristics.none(pixart_sites(1), 20)))
    ['every-2', 'every-3', 'every-4']
    """
    if template.num_steps <= max(_EVERY):
        return {}
    return {
        f"every-{n}": heuristics.every_n(template.sites, template.num_steps, n).replace(config=template.config)
        for n in _EVERY
    }
