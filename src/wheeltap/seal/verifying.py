"""Verifying a model against a seal: what it is, how far from what was sealed, where it departs and how."""

import datetime
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.contents import Contents
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import Inputs, count, tensors
from wheeltap.core.literals import checked
from wheeltap.core.subject import Subject
from wheeltap.seal import conversions, values
from wheeltap.seal.contents import differences
from wheeltap.seal.looked import Looked, ask, departs
from wheeltap.seal.making import CHALLENGED, inputs_of, response, size
from wheeltap.seal.record import LOOSEST, Seal, load
from wheeltap.seal.signature import require_valid
from wheeltap.seal.sketch import BLOCK_DIRECTIONS, DIRECTIONS, MOMENTS, Looking
from wheeltap.seal.structure import rewritten
from wheeltap.seal.tensors import Compared
from wheeltap.seal.values import Matched

Said = Literal[
    "identical", "equivalent", "same function, different structure", "outputs agree", "altered", "other model"
]

FINE: Final = ("identical", "equivalent")
"""Verdicts that pass."""

STRUCTURE: Final = "same function, different structure"
"""Verdict on other weights that compute the same."""

OUTPUTS: Final = "outputs agree"
"""Verdict on a runtime whose weights cannot be read."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        verdict: What the model is, beside the sealed one.
        seal: Digest of the seal.
        name: Of the sealed model.
        mode: ``quick``: by weights, outputs and blocks; ``full``: by challenges too, where outputs agree.
        conversion: The conversion whose numbers it gives; empty where none fits.
        distance: Largest difference of an output projection, in tolerances: 1 and less is none.
        share: Size of the difference, as a share of the outputs' spread over inputs.
        challenge: The same of the answers to challenges, in their tolerance; none in quick mode.
        block: The first block whose output departs.
        kind: The likely kind of change, by the weights.
        detail: The same in a sentence.
        inputs: Inputs that were asked.
        forwards: Passes over the sealed inputs that this took.
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
    mode: Literal["quick", "full"]
    conversion: str = ""
    distance: float = 0.0
    share: float = 0.0
    challenge: float | None = None
    block: str = ""
    kind: str = ""
    detail: str = ""
    inputs: int = 0
    forwards: float = 0.0
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
    model: nn.Module | Subject, seal: Seal | str | os.PathLike[str], *, full: bool = False,
    key: str | os.PathLike[str] | None = None, name: str = "", today: datetime.date | None = None,
) -> Verification:  # fmt: skip
    """Whether a model is the one that was sealed; it comes back bit for bit as it was.

    Args:
        model: In eval mode. One with 16-bit weights is copied to single precision while this runs.
        seal: Or the path of its file.
        full: Where weights changed and outputs agree, also disturb the weights and say how far the answers are off.
        key: PEM file of the Ed25519 public key by which the seal must be signed.
        name: Of the model that the seal must be of: a signed seal of another model is refused. Empty for any.
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
    said = _beside(_compared(model, seal, full=full), seal, model.contents if isinstance(model, Subject) else None)
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
        said = msgspec.structs.replace(said, verdict="altered", detail=_FILES)
    return msgspec.structs.replace(said, files=found)


_FILES: Final = "The weights are not what differs: what lies beside them is not as it was sealed."


def _compared(model: nn.Module | Subject, seal: Seal, *, full: bool) -> Verification:
    """What a model is beside the sealed one, by its weights, outputs and blocks."""
    inputs = inputs_of(seal)
    _require_consistent(seal, count(inputs))
    module = model.model if isinstance(model, Subject) else model
    _require_plain(module)
    if not values.has_weights(module):
        return _of_runtime(module, seal, inputs)
    subject = model if isinstance(model, Subject) or next(module.parameters(), None) is None else Subject(module)
    exact = conversions.in_single_precision(module)
    found = values.matched(exact, seal.body)
    sealed = not found.missing and not found.changed
    looked = ask(exact, seal, inputs, every=sealed)
    said = _said(seal, looked, inputs, mode="full" if full else "quick", device=found.device)
    said = msgspec.structs.replace(said, notes=(*said.notes, *_unlike(found)))
    if found.missing:
        if looked.distance > 1.0:
            raise _another(seal, found)
        return msgspec.structs.replace(said, verdict=STRUCTURE, detail=_REWRITTEN + _difference(found))
    if sealed:
        return _unchanged(said, seal, looked, found, same_bits=weights_digest(module) == seal.body.weights)
    said = _changed(said, seal, looked, (found, exact, inputs))
    if not full or looked.distance > 1.0 or not isinstance(subject, Subject):
        return said
    return _challenged(said, subject if exact is module else Subject(exact, name=subject.name), seal, inputs)


def _unchanged(said: Verification, seal: Seal, looked: Looked, found: Matched, *, same_bits: bool) -> Verification:
    """What is said of a model all of whose weights are as sealed, or cast harmlessly."""
    pure = set(conversions.NAMES).intersection(*found.casts.values())  # what such a model gives was sealed
    loose = 1.0 if pure or looked.conversion else _loose(seal)
    if looked.distance > loose or (looked.conversion and said.block):
        return msgspec.structs.replace(said, detail=_CODE)
    mixture = " and ".join(sorted({several[0] for several in found.casts.values()}))
    notes = said.notes if loose == 1.0 else (*said.notes, _MIXTURE.format(mixture, loose))
    verdict: Said = "identical" if same_bits else "equivalent"
    return msgspec.structs.replace(
        said, verdict=verdict, conversion=looked.conversion or mixture, block="", notes=notes
    )  # fmt: skip


_MIXTURE: Final = (
    "No outputs were sealed of this mixture of casts ({}): code and settings were checked loosely, to within {:,.0f} "
    "tolerances."
)


def _require_plain(module: object) -> None:
    """Raises ``ModelError`` for what is no module, and where torch would round each product to 16 bits."""
    if not isinstance(module, nn.Module):
        raise ModelError("What is to be verified is no module.", expected="a torch.nn.Module",
                         got=type(module).__name__, do="Call it in the forward of a module.")  # fmt: skip
    part = next(chain(module.parameters(), module.buffers()), None)
    if torch.is_autocast_enabled("cpu" if part is None else part.device.type):
        raise ModelError("The model runs under autocast.", expected="a pass in the dtype of the weights",
                         got="torch.autocast", do="Verify it outside of autocast.")  # fmt: skip


def _said(
    seal: Seal, looked: Looked, inputs: Inputs, *, mode: Literal["quick", "full"], device: str
) -> Verification:  # fmt: skip
    return Verification(
        verdict="altered", seal=seal.digest, name=seal.body.name, mode=mode, conversion=looked.conversion,
        distance=looked.distance, share=looked.share, inputs=looked.inputs, forwards=looked.forwards,
        block=departs(seal, looked), notes=_notes(seal, device, looked, inputs),
    )  # fmt: skip


_CODE: Final = (
    "Every weight is as sealed, or cast harmlessly: code, settings or buffers that no checkpoint keeps changed."
)
_REWRITTEN: Final = "Its outputs on the sealed inputs agree; its tensors are others: "
_STRUCTURE: Final = "Its outputs on the sealed inputs agree; its weights are others."
_RUNTIME: Final = (
    "By its outputs on the sealed inputs alone, for its weights cannot be read. They may be off by twice what casts to "
    "16 bits make, and a small change of the weights makes less."
)


def _of_runtime(model: nn.Module, seal: Seal, inputs: Inputs) -> Verification:
    """Of a module without weights of its own, which calls another runtime: its outputs alone speak."""
    looked = ask(model, seal, inputs, every=True)
    said = _said(seal, looked, inputs, mode="quick", device=seal.body.tolerances.device)
    agrees = looked.distance <= _loose(seal)
    return msgspec.structs.replace(
        said, verdict=OUTPUTS if agrees else "altered", block="", notes=(*said.notes, _RUNTIME)
    )


def _loose(seal: Seal) -> float:
    """Distance, in tolerances, that casts to 16 bits make at most, with a margin: for a mixture of them."""
    first, *others = (one.seen.output.floats() for one in seal.body.stored)
    unit = seal.body.tolerances.output * size(first)
    return max([1.0, *(_MARGIN * float(np.abs(other - first).max()) / unit for other in others)])


_MARGIN: Final = 2.0


def _require_consistent(seal: Seal, total: int) -> None:
    """Raises ``FileFormatError`` if the parts of a seal do not fit each other, or a tolerance is none."""
    body = seal.body
    shapes = {tuple(one.seen.output.floats().shape) for one in body.stored}
    blocks = {one.seen.blocks.floats().shape[::2] for one in body.stored}
    moments = {one.seen.moments.floats().shape[::2] for one in body.stored}
    loose = (body.tolerances.output, body.tolerances.challenge, *body.tolerances.blocks)
    answers = {one.answer.floats().shape for one in body.challenges}
    sound = (
        shapes == {(total, DIRECTIONS)}
        and blocks == {(len(body.blocks), BLOCK_DIRECTIONS)}
        and moments == {(len(body.blocks), len(MOMENTS))}
        and len(body.tolerances.blocks) == len(body.blocks)
        and all(0.0 < one <= LOOSEST for one in loose)
        and answers == {(min(total, CHALLENGED), DIRECTIONS)}
    )
    if not sound:
        raise FileFormatError("The parts of the seal do not fit each other.", where=body.name,
                              expected="what wheeltap seal wrote", got="other shapes or tolerances",
                              do="Seal the model again; require a signature where seals may be forged.")  # fmt: skip


def _another(seal: Seal, found: Matched) -> ModelError:
    return ModelError(
        "The seal is of another architecture.", where=seal.body.name,
        expected=f"{len(found.order)} tensors shaped as in {seal.body.name}, or the same outputs",
        got=_difference(found).removesuffix("."), do="Verify the model that was sealed, loaded in the same way.",
    )  # fmt: skip


def _difference(found: Matched) -> str:
    """Which tensor is the first that is not as it was sealed, in words."""
    if found.reshaped:
        return f"{found.reshaped}."
    return (
        f"{_tensors(found.missing)} that {_was(found.missing)} sealed {_is(found.missing)} missing: {found.missing[0]}."
    )


def _unlike(found: Matched) -> tuple[str, ...]:
    """Notes on tensors that are in no place, or in the place of others."""
    notes = list[str]()
    if found.extra:
        notes.append(f"{_tensors(found.extra)} more than {_was(found.extra)} sealed: {found.extra[0]}.")
    if found.moved:
        notes.append("Tensors have other names than the sealed ones: they were recognized by their values.")
    return tuple(notes)


def _tensors(names: Sequence[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _notes(seal: Seal, device: str, looked: Looked, inputs: Inputs) -> tuple[str, ...]:
    sealed = seal.body.tolerances.device
    missing, notes = len(set(seal.body.blocks) - set(looked.seen.order)), list[str]()
    if missing:
        notes.append(f"{missing} of {len(seal.body.blocks)} blocks were not seen: a change may start before the "
                     "block that is named.")  # fmt: skip
    length = max((part.shape[1] for part in tensors(inputs).values() if _of_tokens(part)), default=_LONG + 1)
    if length <= _LONG:
        notes.append(_SHORT.format(length))
    if sealed != device:
        notes.append(_ELSEWHERE.format(sealed, device))
    return tuple(notes)


def _of_tokens(part: Tensor) -> bool:
    return part.ndim == len(("input", "place")) and not part.is_floating_point()


_LONG: Final = 32
"""Tokens of a sealed input, at most."""

_SHORT: Final = (
    "The sealed inputs have {} tokens at most: settings that matter only beyond (scaled positions, windows) are not "
    "seen."
)
_ELSEWHERE: Final = "Tolerances were measured on {}, and this ran on {}: a few of them may be the device's."


# ---- what was found ---------------------------------------------------------------------------------------------


def _changed(said: Verification, seal: Seal, looked: Looked, about: tuple[Matched, nn.Module, Inputs]) -> Verification:
    """What is said of a model some of whose weights are others."""
    compared, agrees = Compared(seal.body.tensors, about[0], seed=seal.body.seed), looked.distance <= 1.0
    if agrees and not said.block and compared.convention:
        note = f"{len(compared.changed)} gains are stored with an offset of 1: another convention, the same function."
        return msgspec.structs.replace(said, verdict="equivalent", notes=(*said.notes, note))
    if compared.another and not agrees:
        detail = "Most of its weights have nothing to do with the sealed ones."
        return msgspec.structs.replace(said, verdict="other model", detail=detail, block="")
    if agrees and rewritten(seal, looked, compared, about):
        return msgspec.structs.replace(said, verdict=STRUCTURE, detail=_STRUCTURE)
    change = compared.explained()
    alike = " The outputs on the sealed inputs agree all the same." if agrees else ""
    return msgspec.structs.replace(
        said, kind=change.kind, detail=change.detail + alike, block=block_of(change.changed, seal) or said.block
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


def _challenged(said: Verification, subject: Subject, seal: Seal, inputs: Inputs) -> Verification:
    """How far the answers to the sealed disturbances of the weights are off, in tolerances."""
    looking, worst = Looking(seal.body.seed), 0.0
    for one in seal.body.challenges:
        expected = one.answer.floats()
        found = response(subject, inputs, looking, one)
        worst = max(worst, float(np.abs(found - expected).max()) / (seal.body.tolerances.challenge * size(expected)))
    few = min(CHALLENGED, count(inputs)) / count(inputs)
    return msgspec.structs.replace(said, challenge=worst, forwards=said.forwards + 2 * few * len(seal.body.challenges))
