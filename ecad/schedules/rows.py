"""Rows and steps: a schedule has rows, a user asks for steps, and the sampler says how many rows these make.

Most samplers make one row of each step. Heun makes 2n - 1 of n steps, SCM and PLMS make n + 1.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from ecad.errors import ScheduleError


def rows_of(sampler: Any, steps: int) -> int:
    """Return how many rows a sampler makes of a number of steps; a copy of it is asked.

    Args:
        sampler: A diffusers scheduler, which stays as it is.
        steps: What a pipeline calls `num_inference_steps`, at least 1.

    Raises:
        ScheduleError: The sampler cannot make so few or so many.

    >>> from diffusers import DDIMScheduler, HeunDiscreteScheduler
    >>> rows_of(DDIMScheduler(), 4), rows_of(HeunDiscreteScheduler(), 4)
    (4, 7)
    """
    # Made from its configuration: a deep copy would have what a cache has overridden on the instance.
    from_config = getattr(type(sampler), "from_config", None)
    asked = copy.deepcopy(sampler) if from_config is None else from_config(sampler.config)
    arguments = inspect.signature(asked.set_timesteps).parameters
    given: dict[str, Any] = {}
    if "mu" in arguments and getattr(asked.config, "use_dynamic_shifting", False):
        given["mu"] = 1.0  # moves the timesteps, and leaves their number
    if "intermediate_timesteps" in arguments and steps != 2:
        given["intermediate_timesteps"] = None
    try:
        asked.set_timesteps(steps, **given)
        return len(asked.timesteps)
    except Exception as error:  # each sampler has its own ways to refuse
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ScheduleError(f"{type(sampler).__name__} does not take {steps} steps: {reason}") from error


def steps_of(sampler: Any, rows: int, name: str = "unnamed") -> int:
    """Return the number of steps of which a sampler makes as many rows as a schedule has.

    Args:
        sampler: A diffusers scheduler, which stays as it is.
        rows: Rows of the schedule.
        name: Name of the schedule, for the message.

    Raises:
        ScheduleError: There is no such number; says which are next to it.

    >>> from diffusers import HeunDiscreteScheduler
    >>> steps_of(HeunDiscreteScheduler(), 7)
    4
    >>> steps_of(HeunDiscreteScheduler(), 6, "every_2")
    Traceback (most recent call last):
    ecad.errors.ScheduleError: schedule 'every_2' has 6 rows, and HeunDiscreteScheduler makes 5 of 3 steps, 7 of 4 \
steps: resample it for this sampler, `ecad schedule resample --steps 3 --image-generator NAME`
    """
    for steps in (rows, (rows + 1) // 2, rows - 1):
        if steps > 0 and _rows_or_none(sampler, steps) == rows:
            return steps
    made = {steps: found for steps in range(1, rows + 2) if (found := _rows_or_none(sampler, steps)) is not None}
    fitting = [steps for steps, found in made.items() if found == rows]
    if fitting:
        return fitting[0]
    fewer = [steps for steps, found in made.items() if found < rows][-1:]
    more = [steps for steps, found in made.items() if found > rows][:1]
    near = fewer + more
    if not near:
        raise ScheduleError(f"schedule {name!r} has {rows} rows, which {type(sampler).__name__} cannot make")
    told = ", ".join(f"{made[steps]} of {steps} steps" for steps in near)
    raise ScheduleError(
        f"schedule {name!r} has {rows} rows, and {type(sampler).__name__} makes {told}: resample it for this sampler, "
        f"`ecad schedule resample --steps {near[0]} --image-generator NAME`"
    )


def _rows_or_none(sampler: Any, steps: int) -> int | None:
    try:
        return rows_of(sampler, steps)
    except ScheduleError:
        return None
