"""Chooses the engine that a plan is for."""

from __future__ import annotations

from collections.abc import Callable

from ollamad.runners.protocol import LoadPlan
from ollamad.runners.worker.embedding import EmbeddingEngine
from ollamad.runners.worker.engine import Engine
from ollamad.runners.worker.llamaengine import LlamaEngine


def load_engine(plan: LoadPlan, on_progress: Callable[[float], None]) -> Engine:
    """Return an engine with the model that *plan* names. Raises EngineRefused."""
    load = EmbeddingEngine.loaded if plan.embedding else LlamaEngine.loaded
    return load(plan, on_progress)
