"""Which layers are attention, and where each keeps its queries, keys, values and outputs.

A known class is known by its name and by the module that defines it; what it holds and the sizes of its parts are
checked. Attention of other classes is guessed from the names and sizes of its layers and proven on outputs: three
layers whose names differ by query, key and value, or one layer with three times as many rows as the output reads, may
be attention. How many heads there are is what some attribute of the module says; its own parameters with one number
for each are theirs, as attention sinks are. Each move is then tried on all layers of one class together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, final

from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.gauge.base import GaugeSettings, Rewrite, SharedTensors, altered
from wheeltap.gauge.bench import Run, TrialLimit, TwinBench
from wheeltap.gauge.hidden import weight_of
from wheeltap.gauge.parts import Affine, layer_reason

MOVES: Final = ("heads", "value", "query")

_PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_OUT: Final = (*_PROJECTIONS[:3], "out_proj")
_NORMS: Final = ("q_norm", "k_norm")
SLOPES: Final = "each head has a slope of its own over places (ALiBi)"
_BIASES: Final = "each head has a position bias of its own, which all blocks share"


@final
@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer: where its weights are, and which moves keep what it computes.

    Attributes:
        path: Module path.
        heads: Query heads.
        groups: Key and value heads; ``heads / groups`` query heads in a row read each.
        width: Rows of a value head. Queries and keys may have others; what a query has more than its key (after it) is
            matched with keys that all heads share.
        query: ``[head x rows, input]``.
        key: ``[group x rows, input]``.
        value: ``[group x width, input]``.
        output: ``[output, head x width]``.
        per_head: Names of parameters with one number per query head.
        rotary: How many coordinates of queries and keys are turned by position, in pairs ``i`` and ``i + rotary / 2``.
            The first ones; the others are not turned.
        moves: Those of ``heads``, ``value`` and ``query`` that hold.
    """

    path: str
    heads: int
    groups: int
    width: int
    query: Affine
    key: Affine
    value: Affine
    output: Affine
    per_head: tuple[str, ...] = ()
    rotary: int = 0
    moves: tuple[str, ...] = MOVES


Reasons = Mapping[str, str]
"""By move, why it does not hold."""


@final
@dataclass(frozen=True)
class Kind:
    """An attention class that is known: the class of its layers, and what it may hold.

    Attributes:
        layer: Class of the parts that hold weights.
        parts: Their names.
        address: Reads heads and addresses, given module path (with a dot) and module, or says what does not fit.
        also: Other modules in it.
        norms: Norms of queries and keys that it may have, which act on each coordinate.
        own: Parameters that it may hold itself.
        inner: The classes of modules in it that have a forward of their own.
        rotary: Which coordinates of queries and keys a rotary embedding turns.
        why_not: Moves that do not hold, given the module path and every module by its path.
    """

    layer: str
    parts: tuple[str, ...]
    address: Callable[[str, Any], AttentionLayer | str]
    also: tuple[str, ...] = ()
    norms: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    inner: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    rotary: Literal["none", "all", "first"] = "none"
    why_not: Callable[[str, Mapping[str, nn.Module]], Reasons] = lambda path, modules: {}


def separate(prefix: str, module: Any, *, parts: tuple[str, ...], heads: int, groups: int) -> AttentionLayer | str:
    """Four layers for queries, keys, values and outputs.

    Args:
        prefix: Module path, with a dot where there is one.
        module: The attention.
        parts: Names of the layers, in this order.
        heads: Query heads.
        groups: Key and value heads.
    """
    query, key, value, output = (weight_of(module.get_submodule(part)) for part in parts)
    rows, width = [len(query), len(key), len(value)], len(value) // max(groups, 1)
    if heads % max(groups, 1) or width == 0 or rows != [heads * width, groups * width, groups * width]:
        return f"{rows} rows of queries, keys and values are not whole heads of {width}"
    if output.shape[1] != heads * width:
        return f"{parts[3]} reads {output.shape[1]} columns, not {heads} heads of {width}"
    of_query, of_key, of_value, of_output = (Affine(prefix + part) for part in parts)
    return AttentionLayer(prefix.removesuffix("."), heads, groups, width, of_query, of_key, of_value, of_output)


def _separate(prefix: str, module: Any, *, parts: tuple[str, ...] = _PROJECTIONS) -> AttentionLayer | str:
    """The same, with the width of a head in ``head_dim``."""
    width: int = module.head_dim
    heads, groups = (len(weight_of(module.get_submodule(part))) // width for part in parts[:2])
    share = getattr(module, "num_key_value_groups", heads // max(groups, 1))
    found = separate(prefix, module, parts=parts, heads=heads, groups=heads // share)
    if isinstance(found, AttentionLayer) and found.width != width:
        return f"its heads have {found.width} rows, not {width}"
    return found


def _sinks(prefix: str, module: Any) -> AttentionLayer | str:
    found = _separate(prefix, module)
    if isinstance(found, str):
        return found
    if tuple(module.sinks.shape) != (found.heads,):
        return f"its sinks are of shape {list(module.sinks.shape)}, not one for each of {found.heads} heads"
    return replace(found, per_head=("sinks",))


def _bert(prefix: str, module: Any) -> AttentionLayer | str:
    heads = module.self.num_attention_heads
    return separate(prefix, module, parts=_SELF, heads=heads, groups=heads)


_SHORT: Final = ("q", "k", "v", "o")
_SELF: Final = ("self.query", "self.key", "self.value", "output.dense")


def _gpt2(prefix: str, module: Any) -> AttentionLayer | str:
    for flag in ("is_cross_attention", "reorder_and_upcast_attn", "pruned_heads"):
        if getattr(module, flag, False):
            return f"{flag} is set"
    packed = partial(Affine, f"{prefix}c_attn", transposed=True)
    stored = module.c_attn.weight.T, module.c_proj.weight.T
    return _packed(prefix, stored, module.num_heads, packed, Affine(f"{prefix}c_proj", transposed=True))


def _multihead(prefix: str, module: Any) -> AttentionLayer | str:
    if module.add_zero_attn:
        return "add_zero_attn is set"
    packed = partial(Affine, prefix.removesuffix("."), weight="in_proj_weight", bias="in_proj_bias")
    stored = module.in_proj_weight, module.out_proj.weight
    return _packed(prefix, stored, module.num_heads, packed, Affine(f"{prefix}out_proj"))


def _packed(
    prefix: str, stored: tuple[Tensor, Tensor], heads: int, packed: "partial[Affine]", output: Affine
) -> AttentionLayer | str:
    """Queries, keys and values in this order in one weight ``[3 head width, input]``."""
    rows, columns = len(stored[0]), stored[1].shape[1]
    width = columns // heads
    if not rows == 3 * columns == 3 * heads * width:
        return f"{rows} packed rows and {columns} output columns are not {heads} whole heads"
    query, key, value = (packed(first=first, last=first + columns) for first in range(0, rows, columns))
    return AttentionLayer(prefix.removesuffix("."), heads, heads, width, query, key, value, output)


def grouped(prefix: str, module: Any, *, parts: tuple[str, str], heads: int, groups: int) -> AttentionLayer | str:
    """One layer with, group after group, the queries of the group, its key and its value.

    Args:
        prefix: Module path, with a dot where there is one.
        module: The attention.
        parts: Names of the layer and of the output.
        heads: Query heads.
        groups: Key and value heads.
    """
    fused, output = (weight_of(module.get_submodule(part)) for part in parts)
    share = heads // max(groups, 1)
    columns = output.shape[1]
    width = columns // heads
    if columns != heads * width or heads != groups * share or len(fused) != groups * (share + 2) * width:
        return f"{len(fused)} fused rows and {columns} output columns are not {heads} whole heads in {groups} groups"
    rows = partial(Affine, prefix + parts[0], period=(share + 2) * width)
    ends = [0, share * width, (share + 1) * width, (share + 2) * width]
    query, key, value = (rows(first, last) for first, last in pairwise(ends))
    path, read_by = prefix.removesuffix("."), Affine(prefix + parts[1])
    return AttentionLayer(path, heads, groups, width, query, key, value, read_by)


_FUSED: Final = ("query_key_value", "dense")


def _fused(prefix: str, module: Any) -> AttentionLayer | str:
    if getattr(module, "pretraining_tp", 1) > 1 and module.slow_but_exact:
        return "slow_but_exact is set"
    size = getattr(module, "head_size", 0)
    heads = module.dense.weight.shape[1] // size if size else module.num_heads
    return grouped(prefix, module, parts=_FUSED, heads=heads, groups=getattr(module, "num_kv_heads", heads))


def _phi3(prefix: str, module: Any) -> AttentionLayer | str:
    width, groups = module.head_dim, module.num_key_value_heads
    rows, columns = len(module.qkv_proj.weight), module.o_proj.weight.shape[1]
    heads = columns // width
    if columns != heads * width or rows != (heads + 2 * groups) * width or heads % groups:
        return f"{rows} fused rows and {columns} output columns are not whole heads of {width}"
    ends = [0, columns, columns + groups * width, rows]
    query, key, value = (Affine(f"{prefix}qkv_proj", first, last) for first, last in pairwise(ends))
    output = Affine(f"{prefix}o_proj")
    return AttentionLayer(prefix.removesuffix("."), heads, groups, width, query, key, value, output)


def _latent(prefix: str, module: Any) -> AttentionLayer | str:
    """Keys and values of all heads from one latent vector; what is turned by position is a key that heads share."""
    heads, plain, width = module.num_heads, module.qk_nope_head_dim, module.v_head_dim
    queries = "q_proj" if module.q_lora_rank is None else "q_b_proj"
    rows = [len(weight_of(module.get_submodule(part))) for part in (queries, "kv_b_proj")]
    wanted = [heads * (plain + module.qk_rope_head_dim), heads * (plain + width)]
    if rows != wanted or module.o_proj.weight.shape[1] != heads * width or module.num_key_value_groups != 1:
        return f"{rows} rows of queries, and of keys and values, are not {heads} whole heads"
    both, path = partial(Affine, f"{prefix}kv_b_proj", period=plain + width), prefix.removesuffix(".")
    parts = Affine(prefix + queries), both(0, plain), both(plain), Affine(f"{prefix}o_proj")
    return AttentionLayer(path, heads, heads, width, *parts)


def _alibi(path: str, modules: Mapping[str, nn.Module]) -> Reasons:
    held: Any = modules[path]
    return {"heads": SLOPES} if held.config.alibi else {}


def _biases(path: str, modules: Mapping[str, nn.Module]) -> Reasons:
    above = modules[path.rpartition(".")[0]] if path else None
    crossing = type(above).__name__ == "T5LayerCrossAttention"
    return {} if crossing else {"heads": _BIASES}


_LLAMA: Final = Kind("Linear", _PROJECTIONS, _separate, norms=_NORMS, rotary="all")
_BERT: Final = Kind(
    "Linear", _SELF, _bert, also=("self.dropout", "output.LayerNorm", "output.dropout"),
    inner={"self": ("BertSelfAttention", "BertCrossAttention"), "output": ("BertSelfOutput",)},
)  # fmt: skip
_LATENT: Final = ("kv_b_proj", "o_proj")
_LATENT_NORMS: Final = ("kv_a_proj_with_mqa", "kv_a_layernorm")
_DEEPSEEK: Final = (
    Kind("Linear", ("q_proj", *_LATENT), _latent, also=_LATENT_NORMS),
    Kind("Linear", ("q_b_proj", *_LATENT), _latent, also=("q_a_proj", "q_a_layernorm", *_LATENT_NORMS)),
)

KINDS: Final[Mapping[str, tuple[Kind, ...]]] = {
    **dict.fromkeys(
        (
            "LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention", "GemmaAttention",
            "Gemma2Attention", "Gemma3Attention", "Qwen2MoeAttention", "Qwen3MoeAttention", "MixtralAttention",
        ),
        (_LLAMA,),
    ),
    "GptOssAttention": (Kind("Linear", _PROJECTIONS, _sinks, own=("sinks",), rotary="all"),),
    "PhiAttention": (
        Kind(
            "Linear", (*_PROJECTIONS[:3], "dense"), partial(_separate, parts=(*_PROJECTIONS[:3], "dense")),
            norms=("q_layernorm", "k_layernorm"), rotary="first",
        ),
    ),
    "Phi3Attention": (Kind("Linear", ("qkv_proj", "o_proj"), _phi3, rotary="first"),),
    "GPTNeoXAttention": (Kind("Linear", _FUSED, _fused, rotary="first"),),
    "FalconAttention": (
        Kind("FalconLinear", _FUSED, _fused, also=("attention_dropout",), rotary="all", why_not=_alibi),
    ),
    "BloomAttention": (
        Kind("Linear", _FUSED, _fused, also=("attention_dropout",), why_not=lambda path, modules: {"heads": SLOPES}),
    ),
    "ViTAttention": (Kind("Linear", _PROJECTIONS, _separate),),
    **dict.fromkeys(("OPTAttention", "BartAttention"), (Kind("Linear", _OUT, partial(_separate, parts=_OUT)),)),
    "BertAttention": (_BERT,),
    "T5Attention": (
        Kind(
            "Linear", _SHORT, also=("relative_attention_bias",), why_not=_biases,
            address=lambda prefix, module: separate(
                prefix, module, parts=_SHORT, heads=module.n_heads, groups=module.n_heads
            ),
        ),
    ),
    **dict.fromkeys(("DeepseekV2Attention", "DeepseekV3Attention"), _DEEPSEEK),
    "GPT2Attention": (Kind("Conv1D", ("c_attn", "c_proj"), _gpt2, also=("attn_dropout", "resid_dropout")),),
    "MultiheadAttention": (
        Kind("NonDynamicallyQuantizableLinear", ("out_proj",), _multihead, own=("in_proj_weight", "in_proj_bias")),
    ),
}  # fmt: skip
"""By class name, the ways it is written; the first one whose parts are all there is meant."""


_NAMED: Final = (("queries", "keys", "values"), ("query", "key", "value"), ("q", "k", "v"))
_HEADS: Final = ("h", "nh", "nhead")
_MOST_HEADS: Final = 3
"""How many guesses of the number of heads are tried."""


def prove(
    model: nn.Module,
    run: Run,
    *,
    unknown: Mapping[str, nn.Module],
    sharing: SharedTensors,
    moves: Mapping[str, Rewrite],
) -> tuple[AttentionLayer, ...]:
    """Of modules that may be attention, those of which some move keeps the outputs, with these moves.

    Args:
        model: Any; it is not touched.
        run: Runs a model on a few examples.
        unknown: The modules, by path.
        sharing: Of the model.
        moves: What is tried, by name.
    """
    classes: dict[type[nn.Module], list[list[AttentionLayer]]] = {}
    for path, module in unknown.items():
        guesses = list(_guesses(path, module, sharing))
        if guesses:
            classes.setdefault(type(module), []).append(guesses)
    if not classes:
        return ()
    try:
        bench = TwinBench(model, run)
    except Exception:  # whatever a copy of the model, or running it, raises: then nothing is proven
        return ()
    found: list[AttentionLayer] = []
    with suppress(TrialLimit):
        for every in classes.values():
            proven = (_proven(bench, layers, moves) for layers in zip(*every, strict=False))
            found += next((layers for layers in proven if layers), ())
    return tuple(found)


def _proven(
    bench: TwinBench, layers: Sequence[AttentionLayer], moves: Mapping[str, Rewrite]
) -> tuple[AttentionLayer, ...]:
    """The layers with the moves that hold on all of them; none where none does."""
    held = {move for move in MOVES if _holds(bench, layers, move, moves[move])}
    # Hidden units that act one by one may change places with any other: those are no heads.
    single = [
        replace(one, heads=one.heads * one.width, groups=one.groups * one.width, width=1, per_head=()) for one in layers
    ]
    if "heads" in held and _holds(bench, single, "heads", moves["heads"]):
        held.remove("heads")
    turned = tuple(replace(layer, rotary=layer.width) for layer in layers)
    if held and "query" not in held and _holds(bench, turned, "query", moves["query"]):
        held, layers = {*held, "query"}, turned
    return tuple(replace(layer, moves=tuple(move for move in MOVES if move in held)) for layer in layers if held)


def _holds(bench: TwinBench, layers: Sequence[AttentionLayer], move: str, rewrite: Rewrite) -> bool:
    """Whether a move keeps the outputs, and would not if half of it were left out."""
    half = {"heads": "output", "value": "output", "query": "key"}[move]
    if any(layer.rotary % 2 or (move == "heads" and layer.heads < 2) for layer in layers):
        return False

    def change(model: nn.Module, *, whole: bool) -> None:
        for layer in layers:
            kept: Affine = getattr(layer, half)
            before = kept.read(model)
            rewrite(model, layer, seeds.generator(0, "attention", layer.path, move), GaugeSettings())
            if not whole:
                kept.write(model, before)

    return bench.holds(partial(change, whole=True)) and bench.matters(partial(change, whole=False))


def _guesses(path: str, module: nn.Module, sharing: SharedTensors) -> Iterator[AttentionLayer]:
    """The ways in which a module may be attention; none if a part of it is not what it seems."""
    prefix = f"{path}." if path else ""
    layers = _layers(module, sharing)
    for parts in _parts_of(layers):
        columns = layers[parts[-1]].in_features
        for heads in _heads(module, columns):
            if len(parts) == 4:
                groups = layers[parts[1]].out_features * heads // columns
                read = [separate(prefix, module, parts=parts, heads=heads, groups=groups)]
            else:
                interleaved = grouped(prefix, module, parts=(parts[0], parts[1]), heads=heads, groups=heads)
                stored = layers[parts[0]].weight, layers[parts[1]].weight
                rows, output = partial(Affine, prefix + parts[0]), Affine(prefix + parts[1])
                read = [_packed(prefix, stored, heads, rows, output), interleaved]
            own = tuple(name for name, held in module.named_parameters(recurse=False) if held.shape == (heads,))
            yield from (replace(guess, per_head=own) for guess in read if isinstance(guess, AttentionLayer))


def _layers(module: nn.Module, sharing: SharedTensors) -> dict[str, Any]:
    """The plain layers of a module by name, those at the start of a sequence too."""
    if altered(module) or sharing.shared(module):
        return {}
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_children():
        parts |= {f"{name}.0": part[0]} if isinstance(part, nn.Sequential) and len(part) else {name: part}
    return {name: part for name, part in parts.items() if layer_reason(part, sharing, name="Linear") is None}


def _parts_of(layers: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Names of layers that may be queries, keys, values and outputs; or all three in one, and outputs."""
    for name in layers:
        old = next((query for query, _, _ in _NAMED if query in name.lower()), None)
        if old is None:
            continue
        _, key, value = next(names for names in _NAMED if names[0] == old)
        three = (name, _renamed(name, old, key), _renamed(name, old, value))
        if all(other in layers for other in three):
            rest = [other for other in layers if other not in three]
            yield from ((*three, other) for other in rest if layers[other].in_features == layers[name].out_features)
    for name, fused in layers.items():
        rest = [other for other in layers if other != name]
        yield from ((name, other) for other in rest if fused.out_features == 3 * layers[other].in_features)


def _renamed(name: str, old: str, new: str) -> str:
    """With ``old`` replaced where it comes last, in the same case."""
    at = name.lower().rindex(old)
    found = name[at : at + len(old)]
    return name[:at] + (new.capitalize() if found[0].isupper() else new) + name[at + len(old) :]


def _heads(module: nn.Module, columns: int) -> list[int]:
    """How many heads some attribute of the module, or of its configuration, may say there are."""
    held = vars(module)
    config: object = held.get("config", module)
    said = {name.lower(): value for name, value in {**vars(config), **held}.items() if isinstance(value, int)}
    counts: list[int] = []
    for name, value in said.items():
        if name in _HEADS or ("head" in name and not any(part in name for part in ("dim", "size", "kv", "key"))):
            counts.append(value)
        elif "head" in name and ("dim" in name or "size" in name):
            counts.append(columns // max(value, 1))
    fit = [heads for heads in dict.fromkeys(counts) if 0 < heads <= columns and columns % heads == 0]
    return fit[:_MOST_HEADS]
