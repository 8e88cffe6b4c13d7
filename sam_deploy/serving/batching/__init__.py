"""Dynamic batching: requests of one model that wait together run together."""

from sam_deploy.serving.batching.batcher import Batcher
from sam_deploy.serving.batching.item import BatchOptions, Ran

__all__ = ["BatchOptions", "Batcher", "Ran"]
