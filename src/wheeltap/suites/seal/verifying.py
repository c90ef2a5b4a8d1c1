"""Verifying a model against a seal: what it is, how far from what was sealed, where it departs and how."""

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, Literal, final

import msgspec
import numpy as np
import torch
from torch import nn

from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.files import Contents
from wheeltap.core.inputs import Inputs, count, tensors
from wheeltap.core.plain import many
from wheeltap.core.settings import checked
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import state_of
from wheeltap.suites.seal import values
from wheeltap.suites.seal.contents import differences
from wheeltap.suites.seal.making import inputs_of, size
from wheeltap.suites.seal.record import LOOSEST, ConvertedModel, Seal, load, require_valid
from wheeltap.suites.seal.sketch import BLOCK_DIRECTIONS, DIRECTIONS, PassOutputs, Projections, look
from wheeltap.suites.seal.structure import Difference, difference, listed, sealed_structure, structure, unwrapped
from wheeltap.suites.seal.tensors import TensorChange, TensorComparison
from wheeltap.suites.seal.values import AS_SEALED, TensorMatch, in_single_precision


@final
@dataclass(frozen=True)
class ModelOutputs:
    """What a model gives, beside what was sealed.

    Attributes:
        seen: What it gives.
        stored: The conversion whose numbers are nearest.
        distance: Largest difference from these, in tolerances: 1 and less is none.
        share: Size of the difference, as a share of the outputs' spread over inputs.
    """

    seen: Projections
    stored: ConvertedModel
    distance: float
    share: float

    @property
    def conversion(self) -> str:
        """The conversion whose numbers it gives; empty where none fits."""
        return self.stored.name if self.distance <= 1.0 else ""


def run(model: nn.Module, seal: Seal, inputs: Inputs) -> ModelOutputs:
    """Runs the model on the inputs; buffers that a pass changes, such as counters, are put back.

    Raises:
        ModelError: If the model does not answer them.
    """
    body, put_back = seal.body, state_of(model)
    looking = PassOutputs(body.seed, body.blocks, body.stored[0].seen.blocks.array().shape[1])
    try:
        seen = look(model, inputs, looking)
    finally:
        put_back()
    distances = list[float]()
    for conversion in body.stored:
        expected = conversion.seen.output.floats()
        distances.append(float(np.abs(seen.output - expected).max()) / (body.tolerances.output * size(expected)))
    nearest = body.stored[int(np.argmin(distances))]
    expected = nearest.seen.output.floats()
    share = size(seen.output - expected) / size(expected - expected.mean(0))
    return ModelOutputs(seen, nearest, min(distances), share)


def departs(seal: Seal, looked: ModelOutputs) -> str:
    """The first block whose output departs; empty if none does.

    Where no conversion's outputs fit, each is asked, and the latest block is taken: blocks before it are as sealed.
    """
    several = [looked.stored] if looked.conversion else seal.body.stored
    first = max(_first(seal, one, looked.seen) for one in several)
    return seal.body.blocks[first] if first < len(seal.body.blocks) else ""


def _first(seal: Seal, stored: ConvertedModel, seen: Projections) -> int:
    """Number of the first block whose output is not that of a conversion; the number of blocks if each is."""
    expected, tolerances = stored.seen.blocks.floats(), seal.body.tolerances.blocks
    for at, (name, loose) in enumerate(zip(seal.body.blocks, tolerances, strict=True)):
        if name not in seen.order:
            continue  # not called in this model, or not as a module: compiled, say
        if not np.abs(seen.of(name) - expected[at]).max(initial=0.0) <= loose * size(expected[at]):
            return at
    return len(seal.body.blocks)


Said = Literal["identical", "equivalent", "other library code", "same on the inputs asked", "altered", "other model"]

FINE: Final = ("identical", "equivalent")
"""Verdicts that pass."""

LIBRARY: Final = "other library code"
"""Verdict on the sealed weights and structure, run by other code of installed packages."""

SAME: Final = "same on the inputs asked"
"""Verdict where outputs alone agree: nothing is shown of other inputs."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        verdict: What the model is, beside the sealed one.
        seal: Digest of the seal.
        name: Of the sealed model.
        conversion: The admitted cast of all tensors that its weights are; of others, the one whose outputs it gives;
            empty where none fits.
        bits: Strength of what was shown: to pass without being the sealed model takes two to so many tries. 0 where
            outputs alone agree, and where installed code is another.
        distance: Largest difference of an output projection, in tolerances: 1 and less is none.
        share: Size of the difference, as a share of the outputs' spread over inputs.
        block: The first block whose output departs.
        kind: The likely kind of change, by the weights.
        detail: The same in a sentence.
        notes: What else must be known.
        files: What lies beside the weights and is not as it was sealed, by its part: a tokenizer, a template, settings.
        sealed: Day of the seal, in UTC.
        expires: Last day on which it holds; empty for always.
        signer: Public key whose signature it carries, hexadecimal; empty for none. Anyone can sign: it says something
            only where the key is known.
    """

    verdict: Said
    seal: str
    name: str
    conversion: str = ""
    bits: int = 0
    distance: float = 0.0
    share: float = 0.0
    block: str = ""
    kind: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    sealed: str = ""
    expires: str = ""
    signer: str = ""

    @property
    def passed(self) -> bool:
        """Whether it is the sealed model, converted harmlessly at most."""
        return self.verdict in FINE


@checked
def verify(
    model: nn.Module | Subject, seal: Seal | str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None,
    name: str | None = None, today: datetime.date | None = None,
) -> Verification:  # fmt: skip
    """Whether a model is the one that was sealed; it comes back bit for bit as it was.

    A live object is compared as its class presents it, and can lie: verify the file where that matters.

    Args:
        model: In eval mode. One with 16-bit weights is copied to single precision while this runs.
        seal: Or the path of its file.
        key: PEM file of the Ed25519 public key by which the seal must be signed.
        name: Of the model that the seal must be of: a signed seal of another model is refused. ``None`` for any.
        today: The day in UTC, for seals that expire.

    Raises:
        ModelError: If the model has other parameters, or does not answer the sealed inputs.
        UsageError: If the seal has expired, is dated in the future or of another model, its signature is wrong, or it
            is not signed as required.
        FileFormatError: If the file is no seal, or was changed.
        MissingFile: If there is none.
    """
    seal = seal if isinstance(seal, Seal) else load(Path(seal))
    require_valid(seal, key=None if key is None else Path(key), name=name, day=today)
    try:
        compared = _compared(model, seal)
    except ModelError as error:
        if not isinstance(model, Subject):
            raise
        raise error.at(f"{model.name}, {error.where}" if error.where else model.name) from error
    said = _beside(compared, seal, model.contents if isinstance(model, Subject) else None)
    signer = "" if seal.signature is None else seal.signature.key
    return msgspec.structs.replace(said, sealed=seal.body.sealed, expires=seal.body.expires, signer=signer)


def _beside(said: Verification, seal: Seal, held: Contents | None) -> Verification:
    """With what lies beside the weights: a tokenizer, a template or settings that differ are another model to users."""
    sealed = seal.body.contents
    if sealed is None or held is None:
        why = "No files were sealed" if sealed is None else "This model comes from no folder or file"
        note = f"{why}: tokenizer, chat template, settings and code beside the weights were not compared."
        return msgspec.structs.replace(said, notes=(*said.notes, note))
    found = differences(sealed, held)
    if found and said.verdict not in ("altered", "other model"):
        said = msgspec.structs.replace(said, verdict="altered", bits=0, detail=_FILES)
    return msgspec.structs.replace(said, files=found)


_FILES: Final = "The weights are not what differs: what lies beside them is not as it was sealed."


def _compared(model: nn.Module | Subject, seal: Seal) -> Verification:
    """Compares weights, structure, outputs and blocks of a model with the sealed ones."""
    inputs = inputs_of(seal)
    _require_consistent(seal, count(inputs))
    outer = model.model if isinstance(model, Subject) else model
    _require_plain(outer)
    module = unwrapped(outer)
    if not values.has_weights(module):
        return _of_runtime(module, seal, inputs)
    match, current = values.matched(module, seal.body), structure(module)
    differs = difference(sealed_structure(seal.body.structure), current)
    looked = run(in_single_precision(module), seal, inputs)
    said = Verification(
        verdict="altered", seal=seal.digest, name=seal.body.name, conversion=match.cast or looked.conversion,
        distance=looked.distance, share=looked.share, block=departs(seal, looked),
        notes=(*_notes(seal, match.device, inputs), *(_UNREAD.format(name) for name in current.unread)),
    )  # fmt: skip
    if match.cast and not match.extra:
        return _of_sealed_weights(said, differs, same=match.exact and module is outer, read=not current.unread)
    said = _of_other_weights(said, seal, looked, match, differs)
    missing = len(set(seal.body.blocks) - set(looked.seen.order))
    blocks = f"{missing} of {len(seal.body.blocks)} blocks were not seen: a change may start before the one named."
    return msgspec.structs.replace(said, notes=(*said.notes, blocks)) if missing and said.block else said


def _of_sealed_weights(said: Verification, differs: Difference, *, same: bool, read: bool) -> Verification:
    """The verdict on a model all of whose weights are as sealed, or cast as a whole."""
    others = f"Installed code is not as sealed: {listed(differs.libraries)}." if differs.libraries else ""
    if differs.words:
        detail = f"Every weight is as sealed; its structure is not. {differs.words}"
        return msgspec.structs.replace(said, detail=detail)
    if said.distance > 1.0:
        return msgspec.structs.replace(said, detail=f"{_ELSE} {others}".strip())
    if not read:
        return msgspec.structs.replace(said, verdict=SAME, block="", detail=_NOT_READ)
    verdict: Said = "identical" if same and said.conversion == AS_SEALED else "equivalent"
    if others:
        return msgspec.structs.replace(said, verdict=LIBRARY, block="", detail=others)
    return msgspec.structs.replace(said, verdict=verdict, bits=values.BITS, block="")


_UNREAD: Final = "The source of {} cannot be read: its code was not compared."
_NOT_READ: Final = (
    "Every weight is as sealed; not all code could be read, so that nothing is shown beyond these inputs. Define its "
    "classes in a file, and seal the model again."
)
_ELSE: Final = (
    "Every weight and all structure is as sealed, and outputs differ: by another kernel or device, or by what a model "
    "reads besides itself."
)
_RUNTIME: Final = (
    "By its outputs on the sealed inputs alone, for its weights cannot be read. They may be off by twice what casts to "
    "16 bits make, and a small change of the weights makes less."
)
_OTHERS: Final = (
    "Its outputs on the sealed inputs agree; its weights are others, so that nothing is shown beyond these inputs."
)


def _require_plain(module: object) -> None:
    """Raises ``ModelError`` for what is no module, and where torch would round each product to 16 bits."""
    if not isinstance(module, nn.Module):
        raise ModelError("What is to be verified is no module.", expected="a torch.nn.Module",
                         got=type(module).__name__,
                         do="Give a module: of an exported program, its module().")  # fmt: skip
    part = next(chain(module.parameters(), module.buffers()), None)
    if torch.is_autocast_enabled("cpu" if part is None else part.device.type):
        raise ModelError("The model runs under autocast.", expected="a pass in the dtype of the weights",
                         got="torch.autocast", do="Verify it outside of autocast.")  # fmt: skip


def _of_runtime(model: nn.Module, seal: Seal, inputs: Inputs) -> Verification:
    """Of a module without weights of its own, which calls another runtime: its outputs alone speak.

    They may be as far off as casts to 16 bits make, with a margin: for a mixture of them.
    """
    looked = run(model, seal, inputs)
    first, *others = (one.seen.output.floats() for one in seal.body.stored)
    unit = seal.body.tolerances.output * size(first)
    loose = max([1.0, *(_MARGIN * float(np.abs(other - first).max()) / unit for other in others)])
    return Verification(
        verdict=SAME if looked.distance <= loose else "altered", seal=seal.digest, name=seal.body.name,
        conversion=looked.conversion, distance=looked.distance, share=looked.share,
        notes=_notes(seal, seal.body.tolerances.device, inputs), detail=_RUNTIME,
    )  # fmt: skip


_MARGIN: Final = 2.0


def _require_consistent(seal: Seal, total: int) -> None:
    """Raises ``FileFormatError`` if the parts of a seal do not fit each other, or a tolerance is none."""
    body = seal.body
    shapes = {tuple(one.seen.output.floats().shape) for one in body.stored}
    blocks = {one.seen.blocks.floats().shape[::2] for one in body.stored}
    loose = (body.tolerances.output, *body.tolerances.blocks)
    sizes = [size(one.seen.output.floats()) for one in body.stored] if total else [0.0]
    sound = (
        all(0.0 < one < np.inf for one in sizes)
        and shapes == {(total, DIRECTIONS)}
        and blocks == {(len(body.blocks), BLOCK_DIRECTIONS)}
        and len(body.tolerances.blocks) == len(body.blocks)
        and all(0.0 < one <= LOOSEST for one in loose)
    )
    if not sound:
        raise FileFormatError("The parts of the seal do not fit each other.", where=body.name,
                              expected="what wheeltap seal wrote", got="other shapes or tolerances",
                              do="Seal the model again; require a signature where seals may be forged.")  # fmt: skip


def _difference(match: TensorMatch) -> str:
    """Which tensor is the first that is not as it was sealed, in words."""
    if match.reshaped:
        return f"{match.reshaped}."
    was, are = ("was", "is") if len(match.missing) == 1 else ("were", "are")
    return f"{many(len(match.missing), 'tensor')} that {was} sealed {are} missing: {match.missing[0]}."


def _notes(seal: Seal, device: str, inputs: Inputs) -> tuple[str, ...]:
    sealed, notes = seal.body.tolerances.device, list[str]()
    tokens = [part for part in tensors(inputs).values() if part.ndim == 2 and not part.is_floating_point()]
    length = max((part.shape[1] for part in tokens), default=_LONG + 1)
    if length <= _LONG:
        notes.append(_SHORT.format(length))
    if sealed != device:
        notes.append(_ELSEWHERE.format(sealed, device))
    return tuple(notes)


_LONG: Final = 32
"""Tokens of a sealed input, at most."""

_SHORT: Final = (
    "The sealed inputs have {} tokens at most: what is computed beyond (scaled positions, windows) is compared by "
    "weights and structure alone."
)
_ELSEWHERE: Final = "Tolerances were measured on {}, and this ran on {}: a few of them may be the device's."


# ---- what was found ---------------------------------------------------------------------------------------------


def _of_other_weights(
    said: Verification, seal: Seal, looked: ModelOutputs, match: TensorMatch, differs: Difference
) -> Verification:
    """The verdict on a model that lacks some of the sealed weights, or has more."""
    agrees = looked.distance <= 1.0
    if match.missing and not agrees:
        raise ModelError(
            "The model has another architecture than the sealed one.",
            expected=f"{len(match.order)} tensors shaped as in {seal.body.name}, or the same outputs",
            got=_difference(match).removesuffix("."), do="Verify the model that was sealed, loaded in the same way.",
        )  # fmt: skip
    compared = TensorComparison(seal.body.tensors, match, seed=seal.body.seed)
    if agrees and (match.missing or (compared.is_another and not match.cast)):
        which = f" {_difference(match)}" if match.missing else ""
        return msgspec.structs.replace(said, verdict=SAME, detail=_OTHERS + which, block="")
    if compared.is_another and compared.is_unrelated and not match.cast:
        detail = "Most of its weights have nothing to do with the sealed ones."
        return msgspec.structs.replace(said, verdict="other model", detail=detail, block="")
    change = compared.explained() if match.changed else TensorChange("", _sealed_values(match))
    extra = f"Not sealed: tensor {listed(match.extra)}." if match.extra and not differs.words else ""
    alike = "The outputs on the sealed inputs agree all the same." if agrees else ""
    return msgspec.structs.replace(
        said, kind=change.kind, detail=" ".join(filter(None, (change.detail, extra, differs.words, alike))),
        block=block_of(change.changed, seal) or said.block,
    )  # fmt: skip


def _sealed_values(match: TensorMatch) -> str:
    """A sentence on tensors none of which seems to be changed."""
    if match.cast:
        return "The sealed weights are there, and others too."
    mixture = " and ".join(sorted({casts[0] for casts in match.casts.values()}))
    return (
        f"All tensors together are not as sealed, nor cast in a way that passes; one by one they look {mixture}. Cast "
        "the whole model in one way."
    )


def block_of(changed: Sequence[str], seal: Seal) -> str:
    """The first block with a changed weight; the module that holds it, where it is in no block."""
    blocks = [
        max((block for block in seal.body.blocks if name.startswith(f"{block}.")), key=len, default="")
        for name in changed
    ]
    inside = [block for block in seal.body.blocks if block in blocks]
    outside = [name.rpartition(".")[0] for name, block in zip(changed, blocks, strict=True) if not block]
    return inside[0] if inside else next(iter(outside), "")
