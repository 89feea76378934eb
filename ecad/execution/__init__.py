"""Distributes independent tasks over workers: processes on this machine, or actors of a Ray cluster."""

from ecad.execution.executor import Executor
from ecad.execution.tasks import Failure, Task
from ecad.execution.worker import Job, WorkerSpec

__all__ = ["Executor", "Failure", "Job", "Task", "WorkerSpec"]
