"""Answers that were recorded elsewhere, and votes of people: files that are read without a model.

``formats`` has the table of formats, known by the fields of a first record; ``read`` takes the one that fits.
"""

from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, Votes
from wheeltap.suites.lens.recorded.formats import read

__all__ = ["AnswerFile", "Answers", "Votes", "read"]
