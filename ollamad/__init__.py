"""ollamad: a local-LLM daemon."""

__version__ = "0.1.0"
