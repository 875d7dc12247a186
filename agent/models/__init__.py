"""Model weights: which ones ponder knows (`registry`), and how they get onto this machine (`download`)."""

from __future__ import annotations

from ponder.models.download import digest, ensure, is_here, models_dir, path, pull
from ponder.models.progress import Progress, Stoppable, Stopped, showing
from ponder.models.registry import Model, OwnWeights, find, load_registry, resolve

__all__ = [
    "Model",
    "OwnWeights",
    "Progress",
    "Stoppable",
    "Stopped",
    "digest",
    "ensure",
    "find",
    "is_here",
    "load_registry",
    "models_dir",
    "path",
    "pull",
    "resolve",
    "showing",
]
