"""Whole numbers on the command line."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token


def _whole(_: object, tokens: Sequence[Token]) -> int:
    """The number as it is written: left to itself, cyclopts takes 2.5 for 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"expected a whole number, got {text}.") from error


Whole = Annotated[int, Parameter(converter=_whole)]
"""A whole number; part of one is refused."""
