"""Numbers as text: one way of rounding, so that a number never reads in two ways."""

from typing import Final

_SINGLE: Final = 1e-7
"""What single precision may take off a number, as a share of it."""


def fixed(value: float, digits: int, *, sign: bool = False) -> str:
    """A number with so many digits after the point: halves are rounded away from zero, and nothing is -0.

    The same mean comes as .4725 from counts and as .47249999 or .47250001 from numbers of single precision: all of them
    are .473.

    Args:
        value: The number.
        digits: After the point.
        sign: Whether a plus is written.
    """
    return f"{rounded(value, digits):{'+' if sign else ''}.{digits}f}"


def rounded(value: float, digits: int) -> float:
    """The number that ``fixed`` writes."""
    return round(float(value) * (1.0 + _SINGLE), digits) + 0.0
