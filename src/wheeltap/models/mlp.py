"""Multi-layer perceptrons: the smallest nets on which every gauge is known in closed form."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from wheeltap.core.errors import UsageError


def mlp(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """A ReLU net: Linear, ReLU (and Dropout, where asked for) between each pair of widths, no ReLU at the end.

    Initialised from torch's global generator, so seed that first.

    Args:
        widths: Inputs, hidden units of each layer, outputs.
        dropout: Probability with which training drops a hidden unit.

    Raises:
        UsageError: If there are fewer than two widths, or dropout is not in [0, 1).
    """
    if len(widths) < 2 or min(widths) < 1:
        raise UsageError(
            "A net needs inputs and outputs.",
            where="wheeltap.models.mlp",
            expected="at least two positive widths, such as (64, 128, 10)",
            got=str(list(widths)),
        )
    if not 0.0 <= dropout < 1.0:
        raise UsageError(
            "Dropout is a probability.",
            where="wheeltap.models.mlp",
            expected="at least 0 and less than 1",
            got=str(dropout),
        )
    modules: list[nn.Module] = []
    for fan_in, units in pairwise(widths):
        modules += [nn.Linear(fan_in, units), nn.ReLU()]
        if dropout:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules[: -2 if dropout else -1])
