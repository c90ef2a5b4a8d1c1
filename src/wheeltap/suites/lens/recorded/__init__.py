"""Answers that were recorded elsewhere, and votes of people: files that are read without a model.

``shapes`` lists which shapes there are, by the fields of a first record, and ``read`` takes the one that fits.
"""

from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, Votes
from wheeltap.suites.lens.recorded.shapes import read

__all__ = ["AnswerFile", "Answers", "Votes", "read"]
