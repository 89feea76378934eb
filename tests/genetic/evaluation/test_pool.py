"""What is asked of workers, and what becomes of their answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import synthetic

from ecad import builtin
from ecad.calibration.of_generator import weights_fitter
from ecad.execution import Failure
from ecad.genetic.evaluation.pool import ImageSet, PooledEvaluator, fitted_on
from ecad.genetic.evaluation.problems import problem_of
from ecad.genetic.evaluation.workers import worker
from ecad.genetic.study.items import all_items
from ecad.image_generators import get_image_generator
from ecad.prompts import Prompt


def test_workers_are_told_output_weights() -> None:
    given = []

    class Executor:
        def run(self, tasks):  # type: ignore[no-untyped-def]
            given.extend(tasks)
            return iter(())

    evaluator, template = synthetic.evaluator(), synthetic.problem().template
    weights = ((1.0,), *[(1.0, 0.5)] * (template.num_steps - 1))
    schedule = template.replace(forecast=True, output_weights=weights)
    pooled = PooledEvaluator(Executor(), 0, ImageSet(evaluator.prompts, evaluator.seeds), 2)  # type: ignore[arg-type]
    list(pooled.run([(schedule, all_items(evaluator.prompts, evaluator.seeds)[:2])]))
    assert weights in given[0].payload


def test_each_image_set_has_the_settings_of_its_own_scorer() -> None:
    class Executor:
        facts = {"settings": {"scorer": "first"}}  # noqa: RUF012

        def run(self, tasks):  # type: ignore[no-untyped-def]
            [task] = tasks
            yield 0, {"scorer": f"of {task.payload}"}

    plain = synthetic.evaluator()
    images = ImageSet(plain.prompts, plain.seeds)
    found = [PooledEvaluator(Executor(), which, images, 2).settings["scorer"] for which in (0, 1)]  # type: ignore[arg-type]
    assert found == ["first", "of ('settings', 1)"]


def test_workers_fit_the_weights_that_one_process_fits(tmp_path: Path, short_flux: Path) -> None:
    """Whatever the order in which they finish."""
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"pipeline": str(short_flux), "steps": 4, "height": 64, "width": 64}))
    prompts = [Prompt(str(place), text) for place, text in enumerate(builtin.prompts("search")[:2])]
    job = worker(str(model), None, "cpu", 2, [([(one.id, one.text) for one in prompts], [0], "psnr", None)], None)

    class Executor:
        def run(self, tasks):  # type: ignore[no-untyped-def]
            tasks = list(tasks)
            for place in reversed(range(len(tasks))):
                yield place, job.work(tasks[place].payload)

    generator = get_image_generator(str(model), device="cpu")
    template = problem_of(generator).template.replace(forecast=True)
    schedules = []
    for computed in ((0, 1, 3), (0, 2)):
        bits = np.zeros((4, len(template.sites)), dtype=bool)
        bits[list(computed)] = True
        schedules.append(template.replace(recompute=bits, name=str(computed)))
    fit = weights_fitter(generator, [one.text for one in prompts], [0, 0])
    alone = [fit(one) for one in schedules]
    pooled = [*fitted_on(Executor(), 0, schedules)]  # type: ignore[arg-type]
    assert all(one.output_weights is not None for one in alone)
    assert [one.name for one in pooled] == [one.name for one in schedules]
    assert [one.output_weights for one in pooled] == [one.output_weights for one in alone]


def test_a_schedule_whose_fit_workers_gave_up_is_unchanged() -> None:
    class Executor:
        def run(self, tasks):  # type: ignore[no-untyped-def]
            yield 1, weights
            yield 0, Failure("the worker died", tries=3)

    schedule = synthetic.problem().template.replace(forecast=True)
    weights = ((1.0,), *[(1.0, 0.5)] * (schedule.num_steps - 1))
    found = [one.output_weights for one in fitted_on(Executor(), 0, [schedule, schedule])]  # type: ignore[arg-type]
    assert found == [None, weights]
