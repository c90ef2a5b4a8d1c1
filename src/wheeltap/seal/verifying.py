"""Verifying a model against a seal: what it is, how far from what was sealed, where it departs and how."""

import dataclasses
import datetime
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

import msgspec
import numpy as np
from torch import nn

from wheeltap.core.errors import FileFormatError, ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import Inputs, chosen, count
from wheeltap.core.subject import Subject
from wheeltap.seal import conversions
from wheeltap.seal.making import CHALLENGED, inputs_of, response, size
from wheeltap.seal.record import Seal, Stored, load
from wheeltap.seal.sketch import DIRECTIONS, Floats, Looking, Seen, look
from wheeltap.seal.tensors import Compared, shapes_digest

Said = Literal["identical", "equivalent", "same function, different structure", "altered", "other model"]

FINE: Final = ("identical", "equivalent")
"""Verdicts that pass."""

_FIRST: Final = 4
"""Inputs after which a verification stops, if it is sure by then that something changed."""

_SURE: Final = 10.0
"""Distance in tolerances from which it is."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Attributes:
        verdict: What the model is, beside the sealed one.
        seal: Digest of the seal.
        name: Of the sealed model.
        mode: ``quick``: by inputs alone; ``full``: by challenges too.
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

    @property
    def passed(self) -> bool:
        """Whether it is the sealed model, converted harmlessly at most."""
        return self.verdict in FINE


def verify(
    model: nn.Module | Subject, seal: Seal | str | os.PathLike[str], *, full: bool = False,
    today: datetime.date | None = None,
) -> Verification:  # fmt: skip
    """Whether a model is the one that was sealed; it comes back bit for bit as it was.

    Args:
        model: In eval mode. One with 16-bit weights is copied to single precision while this runs.
        seal: Or the path of its file.
        full: Also challenge the weights: a copy that computes the same with other weights is then recognized.
        today: The day, for seals that expire.

    Raises:
        ModelError: If the model has other parameters, or does not answer the sealed inputs.
        UsageError: If the seal has expired.
        FileFormatError: If the file is no seal, or was changed.
        MissingFile: If there is none.
    """
    if not isinstance(seal, Seal):
        seal = load(Path(seal))
    subject = model if isinstance(model, Subject) else Subject(model)
    _require_valid(seal, today or datetime.date.today())
    same_shapes = shapes_digest(subject.model) == seal.body.shapes
    same_bits = weights_digest(subject.model) == seal.body.weights
    exact = conversions.in_single_precision(subject.model)
    work = subject if exact is subject.model else Subject(exact, name=subject.name)
    looked = _looked(exact, seal)
    if not same_shapes and looked.distance > 1.0:
        raise _another(seal, subject)
    said = Verification(
        verdict="altered", seal=seal.digest, name=seal.body.name, mode="full" if full else "quick",
        conversion=looked.conversion, distance=looked.distance, share=looked.share, inputs=looked.inputs,
        forwards=looked.forwards, block=_departs(seal, looked), notes=_notes(seal, subject, looked),
    )  # fmt: skip
    if not same_shapes:
        return msgspec.structs.replace(said, verdict="same function, different structure", detail=_STRUCTURE)
    if looked.distance > 1.0:
        return _altered(said, exact, seal)
    if same_bits and not said.block:
        return msgspec.structs.replace(said, verdict="identical")
    if said.block:
        return _inside(said, exact, seal, looked)
    if not full:
        return msgspec.structs.replace(said, verdict="equivalent", notes=(*said.notes, _QUICK))
    return _challenged(said, work, seal)


_QUICK: Final = (
    "By its outputs alone: a copy that computes the same with other weights, or a net that was fitted to these "
    "inputs, would pass. --full challenges the weights."
)


def _require_valid(seal: Seal, today: datetime.date) -> None:
    if not seal.body.expires:
        return
    try:
        last = datetime.date.fromisoformat(seal.body.expires)
    except ValueError as error:
        raise FileFormatError(
            "The seal's last day is no date.", expected="YYYY-MM-DD", got=seal.body.expires[:40]
        ) from error
    if today > last:
        raise UsageError("The seal has expired.", where=seal.body.name, expected=f"a day up to {last}", got=str(today),
                         do="Audit the model again, and seal it.")  # fmt: skip


def _another(seal: Seal, subject: Subject) -> ModelError:
    return ModelError(
        "The seal is of another architecture.", where=subject.name,
        expected=f"{len(seal.body.tensors.array())} parameters shaped as in {seal.body.name}, or the same outputs",
        got=f"{len(list(subject.model.parameters()))} parameters and other outputs",
        do="Verify the model that was sealed, loaded in the same way.",
    )  # fmt: skip


def _notes(seal: Seal, subject: Subject, looked: "_Looked") -> tuple[str, ...]:
    sealed, here = seal.body.tolerances.device, subject.device.type
    missing, notes = len(set(seal.body.blocks) - set(looked.seen.order)), list[str]()
    if missing:
        notes.append(f"{missing} of {len(seal.body.blocks)} blocks were not seen: outputs alone speak for them.")
    if sealed != here:
        notes.append(_ELSEWHERE.format(sealed, here))
    return tuple(notes)


_ELSEWHERE: Final = "Tolerances were measured on {}, and this ran on {}: a few of them may be the device's."


# ---- looking ---------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Looked:
    seen: Seen
    stored: Stored
    conversion: str
    distance: float
    share: float
    inputs: int
    forwards: float


def _looked(model: nn.Module, seal: Seal) -> _Looked:
    """Asks the inputs, a few first; stops where it is sure that something changed."""
    inputs, total = inputs_of(seal), count(inputs_of(seal))
    few = seal.body.stored[0].seen.blocks.array().shape[1]
    looking = Looking(seal.body.seed, seal.body.blocks, few)
    seen = look(model, chosen(inputs, slice(_FIRST)), looking)
    nearest, distance = _nearest(seen.output, seal)
    if distance <= _SURE and total > _FIRST:
        rest = look(model, chosen(inputs, slice(_FIRST, total)), dataclasses.replace(looking, few=max(few - _FIRST, 0)))
        seen = _joined(seen, rest)
        nearest, distance = _nearest(seen.output, seal)
    expected, asked = nearest.seen.output.floats(), len(seen.output)
    spread = size(expected - expected.mean(0))
    share = size(seen.output - expected[:asked]) / spread
    return _Looked(seen, nearest, nearest.name if distance <= 1.0 else "", distance, share, asked, asked / total)


def _joined(one: Seen, two: Seen) -> Seen:
    """Two passes over different inputs as one."""
    output = np.concatenate([one.output, two.output])
    if two.order != one.order:
        return dataclasses.replace(one, output=output)
    blocks, spread = (np.concatenate(parts, 1) for parts in ((one.blocks, two.blocks), (one.moments, two.moments)))
    return Seen(output, blocks, spread, one.order)


def _nearest(output: Floats, seal: Seal) -> tuple[Stored, float]:
    """The conversion whose numbers are nearest, and the largest difference from them, in tolerances."""
    found = list[tuple[float, int]]()
    for at, one in enumerate(seal.body.stored):
        expected = one.seen.output.floats()
        if expected.shape != (count(inputs_of(seal)), DIRECTIONS):
            raise FileFormatError("The seal's numbers do not fit its inputs.", where=seal.body.name,
                                  expected=f"{DIRECTIONS} for each input", got=str(list(expected.shape)))  # fmt: skip
        unit = seal.body.tolerances.output * size(expected)
        found.append((float(np.abs(output - expected[: len(output)]).max()) / unit, at))
    distance, at = min(found)
    return seal.body.stored[at], distance


# ---- what was found ---------------------------------------------------------------------------------------------


def _altered(said: Verification, model: nn.Module, seal: Seal) -> Verification:
    compared = Compared(seal.body.tensors, model, seed=seal.body.seed)
    if compared.another:
        detail = "Most of its weights have nothing to do with the sealed ones."
        return msgspec.structs.replace(said, verdict="other model", detail=detail, block="")
    change = compared.explained()
    after = "" if said.block or not seal.body.blocks else " No block departs: it is after the last one."
    return msgspec.structs.replace(said, kind=change.kind, detail=change.detail + after)


def _inside(said: Verification, model: nn.Module, seal: Seal, looked: _Looked) -> Verification:
    """The outputs agree and a block's do not: written in another way, or changed where these inputs do not show it."""
    compared = Compared(seal.body.tensors, model, seed=seal.body.seed)
    if compared.another or _reordered(seal, looked):
        return msgspec.structs.replace(said, verdict="same function, different structure", detail=_STRUCTURE)
    change = compared.explained()
    return msgspec.structs.replace(said, kind=change.kind, detail=f"{change.detail} The outputs agree all the same.")


_STRUCTURE: Final = "Its outputs agree; what its blocks compute, or how its weights answer a disturbance, does not."


def _reordered(seal: Seal, looked: _Looked) -> bool:
    """Whether each block gives the same numbers as when it was sealed, in another order."""
    expected, seen = looked.stored.seen.moments.floats(), looked.seen
    return all(
        name not in seen.order
        or np.abs(seen.moments[seen.order.index(name)] - expected[at]).max() <= _LOOSE * loose * size(expected[at])
        for at, (name, loose) in enumerate(zip(seal.body.blocks, seal.body.tolerances.blocks, strict=True))
    )


_LOOSE: Final = 4.0
"""Tolerances that a moment may be off, for it was not measured how far harmless variation moves it."""


def _departs(seal: Seal, looked: _Looked) -> str:
    """The first block whose output departs; empty if none does.

    Where no conversion's outputs fit, each is asked, and the latest block is taken: blocks before it are as sealed.
    """
    several = [looked.stored] if looked.conversion else seal.body.stored
    first = max(_first(seal, one, looked.seen) for one in several)
    return seal.body.blocks[first] if first < len(seal.body.blocks) else ""


def _first(seal: Seal, stored: Stored, seen: Seen) -> int:
    """Number of the first block whose output is not that of a conversion; the number of blocks if each is."""
    expected, tolerances = stored.seen.blocks.floats(), seal.body.tolerances.blocks
    for at, (name, loose) in enumerate(zip(seal.body.blocks, tolerances, strict=True)):
        if name not in seen.order:
            continue  # not called in this model, or not as a module: compiled, say
        own = seen.blocks[seen.order.index(name)]
        if np.abs(own - expected[at, : len(own)]).max() > loose * size(expected[at]):
            return at
    return len(seal.body.blocks)


def _challenged(said: Verification, subject: Subject, seal: Seal) -> Verification:
    """Disturbs the weights as when it was sealed: other weights answer otherwise."""
    inputs: Inputs = inputs_of(seal)
    looking, worst = Looking(seal.body.seed), 0.0
    for one in seal.body.challenges:
        expected = one.answer.floats()
        found = response(subject, inputs, looking, one)
        worst = max(worst, float(np.abs(found - expected).max()) / (seal.body.tolerances.challenge * size(expected)))
    few = min(CHALLENGED, count(inputs)) / count(inputs)
    said = msgspec.structs.replace(said, challenge=worst, forwards=said.forwards + 2 * few * len(seal.body.challenges))
    if worst <= 1.0:
        return msgspec.structs.replace(said, verdict="equivalent")
    return msgspec.structs.replace(
        said, verdict="same function, different structure",
        detail=_STRUCTURE,
    )  # fmt: skip
