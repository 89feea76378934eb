"""Evolving schedules: a problem, an evaluator, a search (`ecad.genetic.search.search`), and the study it leaves."""

from ecad.genetic.evaluator import Evaluator, Item, LocalEvaluator, evaluate
from ecad.genetic.problem import Problem
from ecad.genetic.store import Store
from ecad.genetic.study import Candidate, Generation, Study

__all__ = ["Candidate", "Evaluator", "Generation", "Item", "LocalEvaluator", "Problem", "Store", "Study", "evaluate"]
