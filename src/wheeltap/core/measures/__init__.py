"""Measures of several labels, all examples together, masks and rankings; ``wt.measure`` is their door."""

from wheeltap.core.measure import Measure  # first: what they build on, and it imports them

__all__ = ["Measure"]
