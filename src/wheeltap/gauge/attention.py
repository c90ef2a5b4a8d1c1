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
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.typed import to_tensor
from wheeltap.gauge.attention_kinds import KINDS, MOVES, SLOPES, AttentionLayer, Kind, Reasons, prove
from wheeltap.gauge.base import GaugeSettings, Rewrite, SharedTensors, altered, modules_of
from wheeltap.gauge.bench import Run
from wheeltap.gauge.hidden import put
from wheeltap.gauge.parts import Affine, layer_reason, of_transformers

__all__ = ["MOVES", "REWRITES", "AttentionLayer", "find", "mix_queries", "mix_values", "orthogonal", "permute_heads"]

_SPAN: Final = 2.0
"""Log singular values are normal draws cut off at this many standard deviations."""

_KERNELS: Final = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
"""The implementations of transformers that treat all heads alike."""


def permute_heads(
    model: nn.Module, attention: AttentionLayer, rng: np.random.Generator, settings: GaugeSettings
) -> None:
    """Let groups change places, and query heads within their group; in place."""
    groups, share = attention.groups, attention.heads // attention.groups
    moved = to_tensor(rng.permutation(groups))
    within = to_tensor(np.stack([rng.permutation(share) for _ in range(groups)]))
    order = (moved[:, None] * share + within).flatten()
    for part, index in ((attention.query, order), (attention.key, moved), (attention.value, moved)):
        rows = part.read(model)
        part.write(model, rows.reshape(len(index), -1, rows.shape[1])[index].flatten(0, 1))
    _turn_columns(model, attention, lambda columns: columns[order])
    module = model.get_submodule(attention.path)
    for name in attention.per_head:
        held = module.get_parameter(name).detach()
        put(module, name, held[order.to(held.device)])


def mix_values(model: nn.Module, attention: AttentionLayer, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Give the values of each group another basis, drawn at random, in place; the output weights take it back."""
    basis, inverse = _bases(rng, attention.groups, attention.width, condition=settings.condition)
    _turn_rows(model, attention.value, basis)
    share = attention.heads // attention.groups
    _turn_columns(model, attention, lambda columns: columns @ inverse.repeat_interleave(share, dim=0))


def mix_queries(model: nn.Module, attention: AttentionLayer, rng: np.random.Generator, settings: GaugeSettings) -> None:
    """Give queries and keys of each group another basis, drawn at random, that keeps their inner products; in place.

    With a rotary embedding: an angle and a positive factor for each pair of coordinates that it turns. Coordinates of
    queries that are matched with keys of all heads stay as they are.
    """
    width = len(attention.key.read(model)) // attention.groups
    turned, duals = _pair_bases(rng, attention.groups, attention.rotary, condition=settings.condition)
    bases, inverses = _bases(rng, attention.groups, width - attention.rotary, condition=settings.condition)
    basis, dual = _side_by_side(turned, bases), _side_by_side(duals, inverses.mT)
    _turn_rows(model, attention.key, dual)
    queries = len(attention.query.read(model)) // attention.heads
    rest = torch.eye(queries - width, dtype=torch.float64).expand(attention.groups, -1, -1)
    share = attention.heads // attention.groups
    _turn_rows(model, attention.query, _side_by_side(basis, rest).repeat_interleave(share, dim=0))


REWRITES: Final[Mapping[str, Rewrite]] = {"heads": permute_heads, "value": mix_values, "query": mix_queries}


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


def _turn_columns(model: nn.Module, attention: AttentionLayer, change: Callable[[Tensor], Tensor]) -> None:
    """Replace the output weights, seen as ``[head, output, width]``; the bias stays."""
    matrix = attention.output.read(model)
    inputs = attention.heads * attention.width
    columns = matrix[:, :inputs].reshape(-1, attention.heads, attention.width)
    matrix[:, :inputs] = change(columns.transpose(0, 1)).transpose(0, 1).flatten(1)
    attention.output.write(model, matrix)


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """Block diagonal matrices ``[count, width, width]`` of two such stacks."""
    if not first.numel() or not second.numel():
        return first if first.numel() else second
    width, whole = first.shape[1], first.shape[1] + second.shape[1]
    both = torch.zeros(len(first), whole, whole, dtype=first.dtype)
    both[:, :width, :width], both[:, width:, width:] = first, second
    return both


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


def find(
    model: nn.Module, sharing: SharedTensors, *, run: Run | None = None
) -> tuple[tuple[AttentionLayer, ...], tuple[str, ...]]:
    """Every attention layer of ``model`` of a known class, and why others, or moves of those, are refused.

    Known: what ``KINDS`` names, of transformers; torch's ``nn.MultiheadAttention``.

    Args:
        model: Any; it is not touched.
        sharing: Of the model.
        run: Runs a model on a few examples; with it, layers of other classes are found that its outputs prove.
    """
    modules = modules_of(model)
    found: list[AttentionLayer] = []
    refused: list[str] = []
    seen: list[str] = []
    if run is not None:
        found += prove(model, run, unknown=_unknown(modules), sharing=sharing, moves=REWRITES)
        seen += [layer.path for layer in found]
    for path, module in modules.items():
        inside = path in seen or path.startswith(tuple(f"{other}." if other else "" for other in seen))
        # Of its name, and not of an unknown class around others that are.
        named = [type(part).__name__.endswith("Attention") for part in module.modules()]
        if inside or not named[0] or (of_transformers(module) not in KINDS and any(named[1:])):
            continue
        seen.append(path)
        name = path or "the model"
        read = _recognised(path, modules, sharing)
        if isinstance(read, str):
            refused.append(f"{name}: {read}")
            continue
        layer, reasons = read
        refused += [f"{name}: {move}: {reason}" for move, reason in reasons.items()]
        found.append(replace(layer, moves=tuple(move for move in layer.moves if move not in reasons)))
    order = list(modules)
    return tuple(sorted(found, key=lambda layer: order.index(layer.path))), tuple(refused)


def _unknown(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """What is not of a known class, nor part of it."""
    known = [path for path, module in modules.items() if _kind(module) in KINDS]
    inside = tuple(f"{path}." if path else "" for path in known)
    return {path: module for path, module in modules.items() if path not in known and not path.startswith(inside)}


def _kind(module: nn.Module) -> str:
    return "MultiheadAttention" if type(module) is nn.MultiheadAttention else of_transformers(module)


def _recognised(
    path: str, modules: Mapping[str, nn.Module], sharing: SharedTensors
) -> tuple[AttentionLayer, Reasons] | str:
    module = modules[path]
    kinds = KINDS.get(_kind(module))
    if kinds is None:
        return f"attention of the class {type(module).__name__} is not known"
    below = modules_of(module)
    kind = next((kind for kind in kinds if set(kind.parts) <= set(below)), kinds[0])
    problem = _reason(module, kind, sharing)
    if problem is not None:
        return problem
    kernel = getattr(vars(module).get("config"), "_attn_implementation", None)
    if kernel is not None and kernel not in _KERNELS:
        return f"its attention function {kernel!r} is not known to treat all heads in the same way"
    read = altered(module) or kind.address(f"{path}." if path else "", module)
    if isinstance(read, str):
        return read
    reasons = dict(kind.why_not(path, modules))
    # Where scores have slopes over places, nothing is turned.
    rotary = 0 if SLOPES in reasons.values() else _rotary(read, kind, modules)
    if isinstance(rotary, str):
        reasons["query"] = rotary
        rotary = 0
    return replace(read, rotary=rotary), reasons


def _reason(module: nn.Module, kind: Kind, sharing: SharedTensors) -> str | None:
    """What ``module`` holds and should not, or lacks, or which part is not what it should be; ``None`` if all is so."""
    known = {*kind.parts, *kind.also, *kind.norms, *kind.inner}
    # A parameter of its own could be one per head, as attention sinks are.
    held = {key for key, _ in module.named_parameters() if key.rpartition(".")[0] in ("", *kind.inner)}
    strange = sorted(held - set(kind.own))
    within = set(modules_of(module)) - {""}
    covered = {key for key in within if key.rpartition(".")[0] in {*kind.also, *kind.norms}}
    strange += sorted(within - known - covered)
    if strange:
        return f"it holds {', '.join(strange)}, which is not known"
    missing = sorted(set(kind.parts) - within)
    if missing:
        return f"it has no {', '.join(missing)}"
    for name, classes in kind.inner.items():
        part = module.get_submodule(name)
        problem = altered(part) if of_transformers(part) in classes else f"it is a {type(part).__name__}"
        if problem is not None:
            return f"{name}: {problem}"
    for name in kind.parts:
        problem = layer_reason(module.get_submodule(name), sharing, name=kind.layer)
        if problem is not None:
            return f"{name}: {problem}"
    return "it shares its weights with another module" if sharing.shared(module) else None


def _rotary(attention: AttentionLayer, kind: Kind, modules: Mapping[str, nn.Module]) -> int | str:
    """How many coordinates of queries and keys are turned by position, or why those cannot be mixed."""
    within = {name for name, _ in modules[attention.path].named_children()}
    norms = [name for name in kind.norms if name in within]
    if norms:
        return f"{' and '.join(norms)} act on each coordinate of queries and keys"
    if kind.rotary == "none":
        return 0
    # The nearest module above that holds a rotary embedding gives it to the attention layers below it.
    above = attention.path.split(".")
    paths = [".".join([*above[:count], "rotary_emb"]) for count in reversed(range(len(above)))]
    rotary = next((modules[path] for path in paths if path in modules), None)
    if rotary is None:
        return "no rotary embedding was found above it"
    frequencies = getattr(rotary, "inv_freq", None)
    if not of_transformers(rotary).endswith("RotaryEmbedding") or not isinstance(frequencies, Tensor):
        return f"the rotary embedding {type(rotary).__name__} is not known"
    turned = 2 * frequencies.numel()
    if turned > attention.width or (kind.rotary == "all" and turned != attention.width):
        return f"the rotary embedding turns {turned} of {attention.width} coordinates"
    return altered(rotary) or turned
