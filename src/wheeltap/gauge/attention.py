"""Attention: heads may change places, and each head chooses the basis of its values and of its queries and keys.

Only the products of query and key and of value and output weights act on what a head reads and writes, so an
invertible matrix may stand between the two of a pair. Heads that share a key and value share the matrix. A rotary
embedding turns each pair of query and key coordinates by an angle of its own; only what turns and scales within the
pairs commutes with that.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits" (the products); Ainslie et al. 2023,
"GQA" (shared keys and values); Su et al. 2021, "RoFormer", equation 34 (the pairs).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.base import Sharing, altered, modules_of
from wheeltap.gauge.parts import Affine, layer_reason, of_transformers

MOVES: Final = ("heads", "value", "query")
_SPAN: Final = 2.0
"""Log singular values are normal draws cut off at this many standard deviations."""

_LLAMA: Final = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_NORMS: Final = ("q_norm", "k_norm")
_KERNELS: Final = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
"""The implementations of transformers that treat all heads alike."""


@final
@dataclass(frozen=True)
class Attention:
    """One attention layer: where its weights are, and which moves keep what it computes.

    Attributes:
        path: Module path.
        heads: Query heads.
        groups: Key and value heads; ``heads / groups`` query heads in a row read each.
        width: Rows per head.
        rotary: Whether coordinates ``i`` and ``i + width / 2`` of queries and keys are turned by position.
        moves: Those of ``heads``, ``value`` and ``query`` that hold.
        query: ``[head x width, input]``.
        key: ``[group x width, input]``.
        value: ``[group x width, input]``.
        output: ``[output, head x width]``.
    """

    path: str
    heads: int
    groups: int
    width: int
    rotary: bool
    moves: tuple[str, ...]
    query: Affine
    key: Affine
    value: Affine
    output: Affine


def permute_heads(model: nn.Module, attention: Attention, rng: np.random.Generator) -> None:
    """Let groups change places, and query heads within their group; in place."""
    groups, share = attention.groups, attention.heads // attention.groups
    moved = to_tensor(rng.permutation(groups))
    within = to_tensor(np.stack([rng.permutation(share) for _ in range(groups)]))
    order = (moved[:, None] * share + within).flatten()
    for part, index in ((attention.query, order), (attention.key, moved), (attention.value, moved)):
        rows = part.read(model)
        part.write(model, rows.reshape(len(index), attention.width, -1)[index].flatten(0, 1))
    _turn_columns(model, attention, lambda columns: columns[order])


def mix_values(model: nn.Module, attention: Attention, rng: np.random.Generator, *, condition: float) -> None:
    """Give the values of each group another basis, drawn at random; the output weights take it back.

    Args:
        model: Changed in place.
        attention: As found in it, or in the model it was copied from.
        rng: The draws.
        condition: Largest singular value over smallest one, at most.
    """
    basis, inverse = _bases(rng, attention.groups, attention.width, condition=condition)
    _turn_rows(model, attention.value, basis)
    share = attention.heads // attention.groups
    _turn_columns(model, attention, lambda columns: columns @ inverse.repeat_interleave(share, dim=0))


def mix_queries(model: nn.Module, attention: Attention, rng: np.random.Generator, *, condition: float) -> None:
    """Give the queries and keys of each group another basis, drawn at random, that keeps their inner products.

    With a rotary embedding: an angle and a positive factor for each pair of coordinates.

    Args:
        model: Changed in place.
        attention: As found in it, or in the model it was copied from.
        rng: The draws.
        condition: Largest singular value over smallest one, at most.
    """
    if attention.rotary:
        basis, dual = _pair_bases(rng, attention.groups, attention.width, condition=condition)
    else:
        basis, inverse = _bases(rng, attention.groups, attention.width, condition=condition)
        dual = inverse.mT
    _turn_rows(model, attention.query, basis.repeat_interleave(attention.heads // attention.groups, dim=0))
    _turn_rows(model, attention.key, dual)


def orthogonal(rng: np.random.Generator, width: int) -> Tensor:
    """A rotation or reflection drawn uniformly, ``[width, width]`` in float64.

    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups", section 5.
    """
    q, r = np.linalg.qr(rng.standard_normal((width, width)))
    return to_tensor(q * np.sign(np.diag(r)))


def _turn_rows(model: nn.Module, part: Affine, bases: Tensor) -> None:
    """Multiply the rows of head ``h`` (and their biases) by ``bases[h]`` from the left."""
    rows = part.read(model)
    part.write(model, (bases @ rows.reshape(*bases.shape[:2], -1)).flatten(0, 1))


def _turn_columns(model: nn.Module, attention: Attention, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the output weights, seen as ``[head, output, width]``; the bias stays."""
    matrix = attention.output.read(model)
    inputs = attention.heads * attention.width
    columns = matrix[:, :inputs].reshape(-1, attention.heads, attention.width)
    matrix[:, :inputs] = change(columns.transpose(0, 1)).transpose(0, 1).flatten(1)
    attention.output.write(model, matrix)


def _stretches(rng: np.random.Generator, count: int, *, condition: float) -> Tensor:
    """Lognormal factors, the largest at most ``condition`` times the smallest."""
    drawn = np.clip(rng.standard_normal(count), -_SPAN, _SPAN)
    return to_tensor(np.exp(drawn * math.log(condition) / (2 * _SPAN)))


def _bases(rng: np.random.Generator, count: int, width: int, *, condition: float) -> tuple[Tensor, Tensor]:
    """Random invertible matrices ``[count, width, width]`` and their inverses."""
    bases: list[Tensor] = []
    inverses: list[Tensor] = []
    for _ in range(count):
        left, right = orthogonal(rng, width), orthogonal(rng, width)
        stretch = _stretches(rng, width, condition=condition)
        bases.append(left @ (stretch[:, None] * right))
        inverses.append(right.T @ ((1 / stretch)[:, None] * left.T))
    return torch.stack(bases), torch.stack(inverses)


def _pair_bases(rng: np.random.Generator, count: int, width: int, *, condition: float) -> tuple[Tensor, Tensor]:
    """Random turns and stretches of the pairs ``(i, i + width / 2)``, and the transposes of their inverses."""
    half = width // 2
    bases: list[Tensor] = []
    duals: list[Tensor] = []
    for _ in range(count):
        angle = to_tensor(rng.uniform(-math.pi, math.pi, half))
        stretch = _stretches(rng, half, condition=condition)
        cos, sin = angle.cos().diag(), angle.sin().diag()
        turn = torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])
        factor = stretch.repeat(2)[:, None]
        bases.append(turn * factor)
        duals.append(turn / factor)
    return torch.stack(bases), torch.stack(duals)


def find(model: nn.Module, sharing: Sharing) -> tuple[tuple[Attention, ...], tuple[str, ...]]:
    """Every attention layer of ``model`` of a known class, and why others, or moves of those, are refused.

    Known: transformers' Llama, Mistral, Qwen2, Qwen3 and GPT-2; torch's ``nn.MultiheadAttention``.
    """
    modules = modules_of(model)
    found: list[Attention] = []
    refused: list[str] = []
    for path, module in modules.items():
        if not type(module).__name__.endswith("Attention"):
            continue
        name = path or "the model"
        read = _recognised(path, module, sharing)
        if isinstance(read, str):
            refused.append(f"{name}: {read}")
            continue
        problem = _query_reason(read, modules)
        if problem is not None:
            refused.append(f"{name}: query: {problem}")
            read = replace(read, moves=("heads", "value"))
        found.append(read)
    return tuple(found), tuple(refused)


@final
@dataclass(frozen=True)
class _Kind:
    """An attention class that is known: the class of its layers, and what it may hold.

    Attributes:
        layer: Class of the parts that hold weights.
        parts: Their names.
        also: Other children that it may have.
        own: Parameters that it may hold itself.
        address: Reads heads and addresses, or says what does not fit.
    """

    layer: str
    parts: tuple[str, ...]
    also: tuple[str, ...]
    own: tuple[str, ...]
    address: Callable[[str, Any], Attention | str]


def _recognised(path: str, module: nn.Module, sharing: Sharing) -> Attention | str:
    name = "MultiheadAttention" if type(module) is nn.MultiheadAttention else of_transformers(module)
    kind = _KINDS.get(name)
    if kind is None:
        return f"attention of the class {type(module).__name__} is not known"
    # A parameter of its own could be one per head, as attention sinks are.
    strange = sorted({key for key, _ in module.named_parameters(recurse=False)} - set(kind.own))
    strange += sorted({key for key, _ in module.named_children()} - set(kind.parts) - set(kind.also))
    if strange:
        return f"it holds {', '.join(strange)}, which is not known"
    for part in kind.parts:
        problem = layer_reason(module.get_submodule(part), sharing, name=kind.layer)
        if problem is not None:
            return f"{part}: {problem}"
    if sharing.shared(module):
        return "it shares its weights with another module"
    kernel = getattr(vars(module).get("config"), "_attn_implementation", None)
    if kernel is not None and kernel not in _KERNELS:
        return f"its attention function {kernel!r} is not known to treat all heads in the same way"
    return altered(module) or kind.address(f"{path}." if path else "", module)


def _llama(prefix: str, module: Any) -> Attention | str:
    width, share = module.head_dim, module.num_key_value_groups
    heads = len(module.q_proj.weight) // width
    groups = heads // share
    rows = [len(module.get_submodule(part).weight) for part in _PROJECTIONS[:3]]
    if rows != [heads * width, groups * width, groups * width] or heads != groups * share:
        return f"{rows} rows of queries, keys and values are not whole heads of {width}"
    if module.o_proj.weight.shape[1] != heads * width:
        return f"o_proj reads {module.o_proj.weight.shape[1]} columns, not {heads} heads of {width}"
    query, key, value, output = (Affine(prefix + part) for part in _PROJECTIONS)
    return Attention(prefix.removesuffix("."), heads, groups, width, True, MOVES, query, key, value, output)


def _gpt2(prefix: str, module: Any) -> Attention | str:
    for flag in ("is_cross_attention", "reorder_and_upcast_attn", "pruned_heads"):
        if getattr(module, flag, False):
            return f"{flag} is set"
    packed = partial(Affine, f"{prefix}c_attn", transposed=True)
    stored = module.c_attn.weight.T, module.c_proj.weight.T
    return _packed(prefix, stored, module.num_heads, packed, Affine(f"{prefix}c_proj", transposed=True))


def _multihead(prefix: str, module: Any) -> Attention | str:
    if module.add_zero_attn:
        return "add_zero_attn is set"
    packed = partial(Affine, prefix.removesuffix("."), weight="in_proj_weight", bias="in_proj_bias")
    stored = module.in_proj_weight, module.out_proj.weight
    return _packed(prefix, stored, module.num_heads, packed, Affine(f"{prefix}out_proj"))


def _packed(
    prefix: str, stored: tuple[Tensor, Tensor], heads: int, packed: "partial[Affine]", output: Affine
) -> Attention | str:
    """Queries, keys and values in this order in one weight ``[3 head width, input]``."""
    rows, columns = len(stored[0]), stored[1].shape[1]
    width = columns // heads
    if not rows == 3 * columns == 3 * heads * width:
        return f"{rows} packed rows and {columns} output columns are not {heads} whole heads"
    query, key, value = (packed(first=first, last=first + columns) for first in range(0, rows, columns))
    return Attention(prefix.removesuffix("."), heads, heads, width, False, MOVES, query, key, value, output)


_KINDS: Final[Mapping[str, _Kind]] = {
    **dict.fromkeys(_LLAMA, _Kind("Linear", _PROJECTIONS, _NORMS, (), _llama)),
    "GPT2Attention": _Kind("Conv1D", ("c_attn", "c_proj"), ("attn_dropout", "resid_dropout"), (), _gpt2),
    "MultiheadAttention": _Kind(
        "NonDynamicallyQuantizableLinear", ("out_proj",), (), ("in_proj_weight", "in_proj_bias"), _multihead
    ),
}


def _query_reason(attention: Attention, modules: Mapping[str, nn.Module]) -> str | None:
    """Why queries and keys cannot be mixed, or ``None`` if they can."""
    held = modules[attention.path]
    norms = [name for name, _ in held.named_children() if name in _NORMS]
    if norms:
        return f"{' and '.join(norms)} act on each coordinate of queries and keys"
    if not attention.rotary:
        return None
    # The nearest module above that holds a rotary embedding gives it to the attention layers below it.
    above = attention.path.split(".")
    paths = [".".join([*above[:count], "rotary_emb"]) for count in reversed(range(len(above)))]
    rotary = next((modules[path] for path in paths if path in modules), None)
    if rotary is None:
        return "no rotary embedding was found above it"
    frequencies = getattr(rotary, "inv_freq", None)
    if not of_transformers(rotary).endswith("RotaryEmbedding") or not isinstance(frequencies, Tensor):
        return f"the rotary embedding {type(rotary).__name__} is not known"
    if 2 * frequencies.numel() != attention.width:
        return f"the rotary embedding turns {2 * frequencies.numel()} of {attention.width} coordinates"
    return altered(rotary)
