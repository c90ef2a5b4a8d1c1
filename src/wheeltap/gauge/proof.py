"""What a model is run with where only its outputs can tell what holds."""

from collections.abc import Callable

from torch import Tensor, nn

Run = Callable[[nn.Module], Tensor]
"""Runs a model on a few examples; gives scores ``[example, option]``. The same model gets the same."""
