"""The number of rows of a schedule, which depends on the sampler and the number of steps.

Most samplers have one row per step. For n steps, Heun has 2n - 1 rows, and SCM and PLMS have n + 1.
"""

from __future__ import annotations

import copy
import inspect

from ecad.errors import ScheduleError
from ecad.utils.protocols import Sampler


def rows_of(sampler: Sampler, steps: int) -> int:
    """Return the number of rows that a sampler has for a number of steps.

    Args:
        sampler: a diffusers scheduler; not modified.
        steps: what a pipeline calls `num_inference_steps`, at least 1.

    Raises:
        ScheduleError: the sampler does not support this number of steps.

    >>> from diffusers import DDIMScheduler, HeunDiscreteScheduler
    >>> rows_of(DDIMScheduler(), 4), rows_of(HeunDiscreteScheduler(), 4)
    (4, 7)
    """
    # A deep copy would include the methods that a cache has replaced on the instance.
    from_config = getattr(type(sampler), "from_config", None)
    asked = copy.deepcopy(sampler) if from_config is None else from_config(sampler.config)
    arguments = inspect.signature(asked.set_timesteps).parameters
    given: dict[str, object] = {}
    if "mu" in arguments and getattr(asked.config, "use_dynamic_shifting", False):
        given["mu"] = 1.0  # changes the timesteps, but not their number
    if "intermediate_timesteps" in arguments and steps != 2:
        given["intermediate_timesteps"] = None
    try:
        asked.set_timesteps(steps, **given)
        return len(asked.timesteps)
    except Exception as error:  # samplers raise exceptions of various types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ScheduleError(f"{type(sampler).__name__} does not take {steps} steps: {reason}") from error


def steps_of(sampler: Sampler, rows: int, name: str = "unnamed") -> int:
    """Return the number of steps for which a sampler has as many rows as a schedule.

    Args:
        sampler: a diffusers scheduler; not modified.
        rows: number of rows of the schedule.
        name: name of the schedule, for the message.

    Raises:
        ScheduleError: there is no such number; the message gives the nearest ones.

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


def _rows_or_none(sampler: Sampler, steps: int) -> int | None:
    try:
        return rows_of(sampler, steps)
    except ScheduleError:
        return None
