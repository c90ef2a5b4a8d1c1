"""The parts that transformers are put together from: addresses of layers, and whether a part is what it seems.

Recognised by class and by the module that defines the class, so that nothing here imports transformers.
"""

import copy
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor, nn

from wheeltap.gauge.base import SharedTensors, altered
from wheeltap.gauge.hidden import put, weight_of

_TRIED_ROWS: Final = 4
_TRIED_TOLERANCE: Final = 1e-4
"""Rows on which an RMS norm is tried, and by how much it may miss ``weight x / rms(x)``, relatively."""

SCALED: Final = ("GemmaTextScaledWordEmbedding",)
"""Embeddings that multiply by a constant."""
_OWN_LAYERS: Final = ("Conv1D", "FalconLinear", *SCALED)
"""Layers that transformers brings itself."""


@final
@dataclass(frozen=True)
class Affine:
    """Rows of the map ``weight x + bias`` of one module: an address.

    Read and written as one float64 matrix ``[row, input]`` on the CPU, with the bias, where there is one, as one
    more column: what acts on the rows acts on the bias alike.

    Attributes:
        path: Module path.
        first: First row, of each period.
        last: One past the last row, of each period; ``None`` for all that follow.
        period: After how many rows the pattern repeats, where rows of several maps alternate (queries, keys and
            values of one head after another); ``None`` where it does not.
        transposed: Whether the module stores ``[input, row]``.
        weight: Name of the weight in the module.
        bias: Name of the bias, which may be absent.
    """

    path: str
    first: int = 0
    last: int | None = None
    period: int | None = None
    transposed: bool = False
    weight: str = "weight"
    bias: str = "bias"

    def read(self, model: nn.Module) -> Tensor:
        """The rows, exact."""
        weight, bias = self._held(model)
        matrix = self._rows(weight.T if self.transposed else weight).flatten(0, 1)
        columns = [matrix] if bias is None else [matrix, self._rows(bias).reshape(-1, 1)]
        return torch.cat([column.to("cpu", torch.float64) for column in columns], dim=1)

    def write(self, model: nn.Module, matrix: Tensor) -> None:
        """Replace the rows; each number is rounded once."""
        module = model.get_submodule(self.path)
        weight, bias = (tensor if tensor is None else tensor.clone() for tensor in self._held(model))
        assert weight is not None
        rows = self._rows(weight.T if self.transposed else weight)
        rows.copy_(matrix[:, : rows.shape[2]].reshape(rows.shape))
        put(module, self.weight, weight)
        if bias is not None:
            rows = self._rows(bias)
            rows.copy_(matrix[:, -1].reshape(rows.shape))
            put(module, self.bias, bias)

    def _rows(self, tensor: Tensor) -> Tensor:
        """The rows as a view ``[period, row, ...]``."""
        period = self.period or max(len(tensor), 1)
        return tensor.view(len(tensor) // period, period, *tensor.shape[1:])[:, self.first : self.last]

    def _held(self, model: nn.Module) -> tuple[Tensor, Tensor | None]:
        module = model.get_submodule(self.path)
        weight, bias = getattr(module, self.weight), getattr(module, self.bias, None)
        return weight.detach(), bias.detach() if isinstance(bias, Tensor) else None


def exact(module: nn.Module, name: str) -> Tensor | None:
    """What ``module`` holds as ``name``, in float64 on the CPU; ``None`` where it holds no tensor."""
    value = getattr(module, name, None)
    return value.detach().to("cpu", torch.float64) if isinstance(value, Tensor) else None


def of_transformers(module: nn.Module) -> str:
    """The class name of a module of transformers; empty for any other module."""
    kind = type(module)
    return kind.__name__ if kind.__module__.startswith("transformers.") else ""


def plain(module: nn.Module, name: str) -> bool:
    """Whether ``module`` is of the class ``name`` of torch or transformers itself, not of one that replaces it."""
    kind = type(module)
    return kind.__name__ == name and kind.__module__.startswith(
        "transformers." if name in _OWN_LAYERS else "torch.nn.modules."
    )


def layer_reason(layer: nn.Module, sharing: SharedTensors | None, *, name: str) -> str | None:
    """Why a layer that should be a plain ``name`` cannot be rewritten, or ``None`` if it can.

    Args:
        layer: The layer.
        sharing: Of the model; ``None`` where it may share its weights.
        name: The class it should be of.
    """
    if not plain(layer, name):
        return f"it is a {type(layer).__name__}, not a plain {name}"
    if not all(parameter.is_floating_point() for parameter in layer.parameters()):
        return f"its weights are of type {next(layer.parameters()).dtype}"
    if sharing is not None and sharing.shared(layer):
        return "it shares its weights with another module"
    return altered(layer)


def norm_reason(norm: nn.Module, sharing: SharedTensors) -> str | None:
    """Why a norm is not known to multiply by a gain and add an offset, or ``None`` if it is."""
    root_mean_square = of_transformers(norm).endswith("RMSNorm")
    if not root_mean_square and not plain(norm, "LayerNorm"):
        return f"norms of the class {type(norm).__name__} are not known"
    if exact(norm, "weight") is None:
        return "it has no gain"
    if sharing.shared(norm):
        return "it shares its weights with another module"
    if altered(norm) is None and root_mean_square and not any(_is_rms(norm, added=added) for added in (0.0, 1.0)):
        return f"a {type(norm).__name__} does not give weight * x / rms(x)"
    return altered(norm)


def added_to_gain(norm: nn.Module) -> float:
    """What a norm that can be rewritten adds to its weight to multiply by it: 1 as in Gemma, or nothing."""
    root_mean_square = of_transformers(norm).endswith("RMSNorm")
    return 1.0 if root_mean_square and not _is_rms(norm, added=0.0) else 0.0


def gain_of(norm: nn.Module) -> Tensor | None:
    """What a norm that can be rewritten multiplies by, in float64 on the CPU; ``None`` where it has no weight."""
    weight = exact(norm, "weight")
    return None if weight is None else weight + added_to_gain(norm)


def _is_rms(norm: nn.Module, *, added: float) -> bool:
    """Whether a norm gives ``(weight + added) * x / rms(x)``; tried on a few rows."""
    tried = copy.deepcopy(norm).to("cpu", torch.float32)
    weight = weight_of(tried)
    eps = next((vars(norm)[name] for name in ("variance_epsilon", "eps") if name in vars(norm)), 0.0)
    rows = torch.randn(_TRIED_ROWS, len(weight), generator=torch.Generator().manual_seed(0))
    wanted = (weight + added) * rows / (rows.square().mean(1, keepdim=True) + eps).sqrt()
    with torch.no_grad():
        given = tried(rows)
    return torch.allclose(
        given, wanted, rtol=_TRIED_TOLERANCE, atol=_TRIED_TOLERANCE * float(weight.abs().max() + added)
    )
