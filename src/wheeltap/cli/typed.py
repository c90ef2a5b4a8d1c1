"""The command as it was typed, by which a run is resumed."""

from contextvars import ContextVar

TYPED: ContextVar[str] = ContextVar("typed", default="")
"""Set where the command line is read; empty where there is none."""
