"""The search for schedules: problem, evaluator, `ecad.genetic.search.search`, and the study that it writes."""

from ecad.genetic.evaluation.evaluator import Evaluator, LocalEvaluator, evaluate
from ecad.genetic.problem import Problem
from ecad.genetic.study.items import Item
from ecad.genetic.study.store import Store
from ecad.genetic.study.study import Candidate, Generation, Study

__all__ = ["Candidate", "Evaluator", "Generation", "Item", "LocalEvaluator", "Problem", "Store", "Study", "evaluate"]
