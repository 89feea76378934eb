"""Helpers without domain knowledge: files, console, devices, batching, versions, Pareto fronts."""
