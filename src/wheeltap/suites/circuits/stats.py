"""How much of a model a circuit accounts for: faithfulness by size, and the area that sums it up.

Source: Mueller et al. 2025, "MIB: A Mechanistic Interpretability Benchmark", section 3.2 (CPR, CMD).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SHARES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Of all edges, how many the circuits of MIB keep."""


def faithfulness(circuit: NDArray[np.float64], *, empty: float, full: float) -> NDArray[np.float64]:
    """Share of the way from the empty circuit to the whole model, for each circuit; not bounded by 0 and 1.

    Args:
        circuit: Metric of each circuit.
        empty: Metric with no edge kept.
        full: Metric of the model.

    Raises:
        ZeroDivisionError: If model and empty circuit are the same: then there is nothing to account for.
    """
    if full == empty:
        raise ZeroDivisionError("the metric of the model is that of the empty circuit")
    return (circuit - empty) / (full - empty)


def area(shares: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """Return the area under values by the share of edges that are kept, by the trapezoid rule.

    Of faithfulness it is CPR: about 1 where small circuits do what the model does, without bound. Of its distance from
    1 it is CMD: 0 is best.

    Args:
        shares: Of edges kept, rising, above 0, ``[circuit]``: two or more.
        values: Of each circuit.

    Raises:
        ValueError: If the shares are not such.
    """
    if len(shares) < 2 or len(shares) != len(values) or shares[0] <= 0.0 or (np.diff(shares) <= 0.0).any():
        raise ValueError(f"shares of edges must rise from above 0: {shares.tolist()}")
    return float(np.trapezoid(values, shares))
