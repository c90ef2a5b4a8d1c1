"""Schemes of deployment by name: what is done to the weights on the way from a checkpoint to a running model."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Scalar, SubjectRecord
from wheeltap.sources.base import is_model, models, place_of


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way of changing the weights: at one dose, as a model is shipped, or along a ladder of doses.

    Attributes:
        name: As ``--for`` takes it; empty where it is no way of shipping.
        label: In words, as the rows of a table have it; empty for the curve that a family is judged by.
        perturbation: Registered name.
        dose: In the perturbation's unit, as it is shipped.
        random: Whether it is drawn.
        rare: Whether few of its draws hit hard: intervals then allow for what no draw has shown.
        needs: What is read of each layer first, as the perturbation declares it.
        spares_ends: Whether practice leaves the embeddings and the head of a language model in full precision.
        ladder: Doses of its curve, mildest first.
        draws: At each dose of the ladder.
        unit: Of the ladder, where it is not the family's.
        layers: Last names of layers; it is asked only of subjects that have one of them. Of all, where empty.
        shipped: Whether it is a file that was made from the model: then nothing is done to its weights here.
    """

    name: str = ""
    label: str
    perturbation: str
    dose: float = 0.0
    settings: dict[str, Scalar] = field(default_factory=dict[str, Scalar])
    random: bool = False
    rare: bool = False
    needs: str = ""
    spares_ends: bool = False
    ladder: tuple[float, ...] = ()
    draws: int = 1
    unit: str = ""
    layers: tuple[str, ...] = ()
    shipped: bool = False

    def along(self, ladder: tuple[float, ...], label: str = "", *, draws: int = 1) -> "Scheme":
        """Its curve over these doses, under another label."""
        return replace(self, ladder=ladder, label=label, draws=draws)

    def spared(self, subject: SubjectRecord) -> tuple[str, ...]:
        """Layers that practice leaves in full precision."""
        return subject.ends if self.spares_ends else ()

    def fits(self, subject: SubjectRecord) -> bool:
        """Whether the names of a subject's layers leave it anything to change."""
        return not self.layers or any(name.rpartition(".")[2] in self.layers for name in subject.layers)


def _rounded(found: re.Match[str]) -> Scheme | None:
    bits, grid = int(found["bits"]), found["grid"] or ""
    group, aware = int(found["group"] or 0), bool(found["aware"])
    if not 2 <= bits <= 16 or (found["group"] and group < 2):
        return None
    label = f"groups of {group}" if group else "one grid per tensor" if grid else "per channel"
    settings: dict[str, Scalar] = {"scale": "group" if group else "tensor" if grid else "channel"}
    settings |= {"group": group} if group else {}
    return Scheme(
        name=found[0], label=f"{bits} bits, {label}{', large inputs spared' if aware else ''}", dose=bits,
        perturbation="quantize-aware" if aware else "quantize", settings=settings, needs="inputs" if aware else "",
        spares_ends=True,
    )  # fmt: skip


def _format(found: re.Match[str]) -> Scheme | None:
    grid, group = found["grid"], int(found["group"] or 64)
    if group < 2:
        return None
    settings: dict[str, Scalar] = {"scale": "group", "group": group, "grid": grid}
    label = f"4 bits, {grid.upper()}, groups of {group}"
    return Scheme(name=found[0], label=label, perturbation="quantize", dose=4, settings=settings, spares_ends=True)


def _inputs(found: re.Match[str]) -> Scheme:
    settings: dict[str, Scalar] = {"scale": "tensor" if found["scale"] else "channel"}
    settings |= {"grid": "e4m3"} if found["grid"] == "fp8" else {}
    of = "FP8 (E4M3)" if found["grid"] == "fp8" else "8 bits"
    label = f"{of}, {'one grid per tensor' if found['scale'] else 'per channel'}, inputs too"
    return Scheme(
        name=found[0], label=label, perturbation="quantize-inputs", dose=8, settings=settings, spares_ends=True
    )


def _cache(found: re.Match[str]) -> Scheme | None:
    bits = int(found["bits"])
    if not 2 <= bits <= 16:
        return None
    return Scheme(name=found[0], label=f"keys and values in {bits} bits", perturbation="quantize-cache", dose=bits)


def _cast(found: re.Match[str]) -> Scheme:
    dtype = {"bf16": "bfloat16", "fp16": "float16"}[found[0]]
    label = f"stored as {dtype}"
    return Scheme(name=found[0], label=label, perturbation="cast", dose=16, settings={"dtype": dtype})


def _pruned(found: re.Match[str]) -> Scheme | None:
    share, wanda = int(found["percent"]), found["rule"] == "wanda"
    if not 0 < share < 100:
        return None
    return Scheme(
        name=found[0], label=f"{share} % pruned{', Wanda' if wanda else ''}", dose=share / 100,
        perturbation="prune-wanda" if wanda else "prune", needs="inputs" if wanda else "", spares_ends=True,
    )  # fmt: skip


def _noise(found: re.Match[str]) -> Scheme | None:
    percent = float(found["percent"])
    if not 0 < percent <= 1000:
        return None
    return Scheme(
        name=found[0], label=f"{percent:g} % noise on each weight", perturbation="relative",
        dose=percent / 100, random=True,
    )  # fmt: skip


def _flips(found: re.Match[str]) -> Scheme | None:
    rate, stored = float(found["rate"]), found["format"] or "float32"
    if not 0 < rate < 1:
        return None
    return Scheme(
        name=found[0], label=f"bit errors, rate {rate:.2g}, {stored}", perturbation="flip", dose=rate,
        settings={"format": stored}, random=True, rare=True,
    )  # fmt: skip


_FORMS: tuple[tuple[str, Callable[[re.Match[str]], Scheme | None]], ...] = (
    (r"int(?P<bits>\d+)(-(?P<grid>tensor)|-g(?P<group>\d+)(?P<aware>-aware)?)?", _rounded),
    (r"(?P<grid>nf4|fp4)(-g(?P<group>\d+))?", _format),
    (r"(?P<grid>w8a8|fp8)(?P<scale>-tensor)?", _inputs),
    (r"kv(?P<bits>\d+)", _cache),
    (r"bf16|fp16", _cast),
    (r"(?P<rule>prune|wanda)(?P<percent>\d+)", _pruned),
    (
        r"prune-2:4",
        lambda found: Scheme(
            name=found[0], label="2 of every 4 pruned", perturbation="prune-nm", dose=0.5, spares_ends=True
        ),
    ),
    (r"noise(?P<percent>\d+(\.\d+)?)", _noise),
    (r"flips(?P<rate>\d+(\.\d+)?(e-?\d+)?)(-(?P<format>float32|bfloat16|int8))?", _flips),
)

READY = (
    "bf16", "fp16", "int8", "int6", "int4", "int3", "int2", "int4-tensor", "int8-tensor", "int4-g128", "int4-g32",
    "int4-g128-aware", "nf4", "fp4", "w8a8", "fp8", "kv8", "kv4", "prune30", "prune50", "wanda50", "prune-2:4",
    "noise5", "flips1e-6", "flips1e-6-int8",
)  # fmt: skip
"""Names to choose from; the numbers in them may be others."""

OTHER_NAMES = {
    "int8": ("int8wo", "Int8WeightOnlyConfig", "int8_weight_only", "load_in_8bit"),
    "int4-g128": ("int4wo", "Int4WeightOnlyConfig", "int4_weight_only"),
    "w8a8": ("int8dq", "Int8DynamicActivationInt8WeightConfig", "int8_dynamic_activation_int8_weight"),
    "fp8": ("fp8_e4m3", "float8_e4m3fn"), "nf4": ("bnb_4bit_nf4",), "int8-g32": ("q8_0",),
    "bf16": ("bfloat16",), "fp16": ("float16",),
}  # fmt: skip
"""Names of schemes in torchao, bitsandbytes and GGUF. Our grids are symmetric and keep an exact zero."""


FORMATS: tuple[tuple[str, str], ...] = (
    (r"awq(-int4)?", "int4-g128-aware"),
    (r"smoothquant", "w8a8"),
    (r"w8a16|eetq|llm\.int8(\(\))?|(bnb|bitsandbytes)[-_]?(8|8bit|int8)", "int8"),
    (r"(bnb|bitsandbytes)([-_]?(4|4bit|int4))?|qlora|load_in_4bit", "nf4"),
    (r"gptq([-_]?(4|4bit|int4))?(-marlin)?|marlin|w4a16|w4a8|autoround", "int4-g128"),
    (r"gptq[-_]?([238])(bit)?", "int{0}-g128"),
    (r"hqq|exl2|exl3", "int4-g64"),
    (r"iq4_(nl|xs)", "nf4-g32"),
    (r"q([236])_k(_\w+)?", "int{0}-g16"),
    (r"i?q([23458])_\w+", "int{0}-g32"),
    (r"nvfp4", "fp4-g16"),
    (r"mxfp4", "fp4-g32"),
    (r"(mx)?fp8(_?e[45]m[32](fn)?)?|float8(_?e[45]m[32](fn)?)?|float8dynamic.*|mxfp6|fp6", "fp8"),
    (r"aqlm|quip#?|squeezellm|omniquant", "int2-g64"),
    (r"sparsegpt", "wanda50"),
)
"""Formats and methods that are not simulated, and the nearest scheme to each: as many bits, in groups alike."""

_GRAMMAR = (
    "intN, N from 2 to 16 bits, such as int5 (-tensor: one grid; -gK: groups of K; -gK-aware: large inputs spared); "
    "nf4 or fp4 (-gK); w8a8, fp8 (-tensor): inputs too; kvN: keys and values; bf16, fp16; pruneP or wandaP, P in "
    "percent; prune-2:4; noiseP; flipsRATE (-int8, -bfloat16); or a file: gguf:FILE, hf:FOLDER, module:callable"
)


def _unknown(name: str) -> UnknownName:
    """What is said of a name that no scheme has: how names are made, and the nearest scheme."""
    asked = name.strip().casefold()
    parts = (asked[:end] for end in range(len(asked) - 1, 2, -1))
    known = {*READY, *(part for part in parts if _made(part) is not None)}
    formats = ((re.fullmatch(form, asked), like) for form, like in FORMATS)
    found, like = next(((found, like) for found, like in formats if found), (None, ""))
    if found is None:
        return UnknownName("deployment scheme", name, known, expected=_GRAMMAR)
    like = like.format(next((part for part in found.groups() if part and part.isdigit()), ""))
    do = f"{name} itself is not simulated; the nearest scheme is {like!r} ({scheme(like).label})."
    return UnknownName("deployment scheme", name, known, expected=_GRAMMAR, do=do)


def _made(name: str) -> Scheme | None:
    """The scheme that a name spells; none where it spells none."""
    fitting = ((re.fullmatch(form, name), made) for form, made in _FORMS)
    return next((made(found) for found, made in fitting if found), None)


def scheme(name: str) -> Scheme:
    """The scheme with this name, whatever its case; a file that was made from the model is one too, also by its path.

    Raises:
        UnknownName: If there is none.
    """
    if _made((spec := name.strip()).casefold()) is None and not is_model(spec):
        spec = place_of(spec)
    if is_model(spec):
        kind, _, rest = spec.partition(":")
        last = PurePath(rest).name if kind in models else ""
        return Scheme(name=spec, label=last or spec, perturbation="answers", shipped=True)
    asked = name.strip().casefold()
    asked = next((ours for ours, others in OTHER_NAMES.items() if asked in map(str.casefold, others)), asked)
    group = re.fullmatch(r"int4wo-(\d+)", asked)
    found = _made(f"int4-g{group[1]}" if group else asked)
    if found is None:
        raise _unknown(name)
    return found


def schemes(names: str) -> tuple[Scheme, ...]:
    """Schemes of names with commas between, each once.

    Raises:
        UnknownName: If there is none of a name.
        UsageError: If none is named.
    """
    found = {one.name: one for one in (scheme(name) for name in names.split(",") if name.strip())}
    labels = Counter(one.label for one in found.values())
    found = {name: one if labels[one.label] == 1 else replace(one, label=name) for name, one in found.items()}
    if not found:
        raise UsageError(
            "No deployment scheme is named.",
            where="--for",
            expected=f"names with commas between, such as {', '.join(READY[2:6])} or gguf:FILE",
            got="none",
            do="Leave it out for the usual schemes, or see: wheeltap list schemes",
        )
    return tuple(found.values())
