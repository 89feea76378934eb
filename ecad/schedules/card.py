"""A schedule's card: what it is, what it was made for, what it is worth, how to use it. Markdown, as hubs show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ecad.errors import printable
from ecad.schedules.provenance import Provenance, made_for
from ecad.schedules.schedule import CacheSchedule


def card(schedule: CacheSchedule) -> str:
    """Everything that a schedule's file says, for people.

    Raises:
        ScheduleError: its provenance is malformed.

    >>> from ecad.schedules import heuristics, pixart_sites
    >>> print(card(heuristics.every_n(pixart_sites(2), 6, 3)))
    # every_3
    <BLANKLINE>
    A cache schedule: 6 steps, 2 blocks of attn1, attn2, ff; 33.3% recomputed, the rest reused.
    <BLANKLINE>
    It does not say what it was made for.
    """
    # Files come from strangers: what they say must not do things to a terminal.
    return "\n".join(map(printable, _text(schedule).split("\n")))


def _text(schedule: CacheSchedule) -> str:
    provenance, steps = made_for(schedule.attributes)
    components = ", ".join(schedule.components)
    parts = [
        f"# {schedule.name}",
        f"A cache schedule: {schedule.num_steps} steps, {len(schedule.blocks)} blocks of {components}; "
        f"{schedule.share_recomputed:.1%} recomputed, the rest {'forecast' if schedule.forecast else 'reused'}.",
    ]
    if provenance is None:
        return "\n\n".join([*parts, "It does not say what it was made for."])
    if steps is not None:
        parts.append(f"Resampled from {steps} steps. The scores are those of the schedule it was resampled from.")
    parts += ["## Made for", "\n".join(f"- {name}: {value}" for name, value in _conditions(provenance))]
    parts += ["## Worth", "\n".join(_worth(schedule, provenance))]
    if provenance.search:
        parts += ["## Found by", "\n".join(f"- {name}: {value}" for name, value in provenance.search.items())]
    return "\n\n".join(parts)


def _conditions(provenance: Provenance) -> Iterator[tuple[str, object]]:
    yield "model", provenance.model or "not said"
    yield "denoiser", f"{provenance.denoiser}, layout {provenance.layout}, configuration {provenance.configuration}"
    rest = {
        "weights": provenance.weights,
        "sampler": provenance.sampler,
        "image": f"{provenance.width} x {provenance.height} pixels" if provenance.width and provenance.height else None,
        "guidance scale": provenance.guidance_scale,
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    yield from ((name, value) for name, value in rest.items() if value)


def _worth(schedule: CacheSchedule, provenance: Provenance) -> Iterator[str]:
    """Only what was measured: MACs and time are among the metrics once `ecad macs` and `ecad latency` were run."""
    macs, latency = schedule.metrics.get("total_macs"), schedule.metrics.get("latency")
    if macs is not None:
        yield f"- MACs of an image: {macs:,}" if isinstance(macs, int) else f"- MACs of an image: {macs}"
    if isinstance(latency, Mapping):
        speedup = latency.get("speedup", "not said")
        shown = f"{speedup:.3g}" if isinstance(speedup, float) else speedup
        yield f"- measured speed-up: {shown} on {latency.get('gpu', 'a device not named')}"
    for scorer, score in provenance.held_out.items():
        images = f"{provenance.held_out_images} held-out images"
        yield f"- {scorer}: {score.mean:.2f} [{score.low:.2f}, {score.high:.2f}], 95% interval, {images}"
    if not provenance.held_out:
        yield "- no score on held-out prompts"
