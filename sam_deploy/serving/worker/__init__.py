"""A model's engine in a process of its own: a crash or a kill costs a batch, not the server."""

from sam_deploy.serving.worker.process import Worker, WorkerDied

__all__ = ["Worker", "WorkerDied"]
