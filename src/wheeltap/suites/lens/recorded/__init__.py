"""Answers that were recorded elsewhere, and votes of people: files that are read without a model.

Each shape of file has a module of its own with ``fits`` and ``read``; ``shapes.read`` finds the one that fits.
"""

from wheeltap.suites.lens.recorded.base import Answers, Recording, Votes
from wheeltap.suites.lens.recorded.shapes import read

__all__ = ["Answers", "Recording", "Votes", "read"]
