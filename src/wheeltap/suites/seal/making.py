"""Making a seal: its room, inputs that see most weights, what the model gives for them, and harmless variation."""

import dataclasses
import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import msgspec
import numpy as np
import torch
from torch import nn

from wheeltap import __version__
from wheeltap.core.errors import FileFormatError, ModelError, RestorationError, UsageError
from wheeltap.core.inputs import Inputs, chosen, tensors
from wheeltap.core.settings import LARGE, require_fields
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied, to_array
from wheeltap.engine.apply import preserved_state
from wheeltap.suites.seal import values
from wheeltap.suites.seal.contents import SealedContents
from wheeltap.suites.seal.inputs import Choice, Watch, candidates, choose, drawn_again
from wheeltap.suites.seal.record import (
    LARGEST,
    Body,
    ConvertedModel,
    Lineage,
    PackedArray,
    Seal,
    SealedInputs,
    SealedOutputs,
    Tolerances,
    WholeCast,
    today,
)
from wheeltap.suites.seal.sketch import BLOCK_DIRECTIONS, DIRECTIONS, Floats, PassOutputs, Projections, blocks_of, look
from wheeltap.suites.seal.sketch import MOST as BLOCKS
from wheeltap.suites.seal.structure import structure
from wheeltap.suites.seal.tensors import MARKS, marked
from wheeltap.suites.seal.values import AS_SEALED, NAMES, WHOLE, Leaves, converted, in_single_precision

_REST: Final = 4 * 1024
"""Bytes of names, digests and a signature, at most; other texts come on top."""

_BLOCK: Final = 52
"""Bytes of a block's tolerance and of what surrounds its path."""


@final
@dataclass(frozen=True)
class Room:
    """What a seal keeps at most.

    Attributes:
        blocks: How many.
        few: Inputs of which blocks are looked at, the first ones.
        inputs: How many.
        marks: Projections of each parameter; without any, nothing at all is kept of parameters beside digests.
    """

    blocks: int
    few: int
    inputs: int
    marks: int

    def some(self, names: Sequence[str]) -> tuple[str, ...]:
        """So many of these blocks, evenly spread, the first and the last among them."""
        kept = min(len(names), self.blocks)
        return tuple(names[at * (len(names) - 1) // max(kept - 1, 1)] for at in range(kept))


_EACH: Final = 4 * BLOCK_DIRECTIONS

_LADDER: Final = (
    (BLOCKS, 16, 64, MARKS),
    (24, 8, 16, MARKS),
    (24, 6, 8, MARKS),
    (12, 4, 8, MARKS),
    (12, 4, 8, 2),
    (8, 4, 8, 2),
    (8, 4, 8, 0),
    (4, 2, 4, 0),
)
"""Blocks, kB of what is kept of them, inputs, projections: from the most to the least."""


def room_for(model: nn.Module, blocks: Sequence[str], inputs: int, each: int, texts: Sequence[str]) -> Room:
    """The most that fits.

    Args:
        model: To be sealed.
        blocks: Module paths.
        inputs: How many are wanted.
        each: Bytes of one.
        texts: That the seal keeps as well.

    Raises:
        FileFormatError: If even the least does not.
    """
    tensors, parameters = len(values.held(model)), sum(1 for _ in model.parameters())
    variants, taken = _variants(model), 0
    text = sum(len(line.encode()) + 3 for line in texts) + _coded(tensors * len(WHOLE) * values.MARK)
    for most, kilobytes, asked, marks in _LADDER:
        few = max(1024 * kilobytes // (max(min(most, len(blocks)), 1) * variants * _EACH), 2)
        one = Room(most, few, min(asked, inputs), marks)
        kept = one.some(blocks)
        taken = (
            _REST + text + _coded(one.inputs * each) + (_coded(4 * (2 + marks) * parameters) if marks else 0)
            + variants * _coded(4 * one.inputs * DIRECTIONS)
            + _coded(variants * _EACH * len(kept) * min(few, one.inputs)) + sum(len(name) + _BLOCK for name in kept)
        )  # fmt: skip
        if taken <= LARGEST:
            return one
    raise FileFormatError(
        "The model has too many tensors for a seal.", where="seal", expected=f"{LARGEST:,} bytes or less",
        got=f"{tensors:,} tensors, which take {taken:,} at least",
        do="Compare SHA-256 digests of its files; or seal parts of the model.",
    )  # fmt: skip


def _variants(model: nn.Module) -> int:
    """Conversions that may leave numbers of their own: without buffers it makes no difference which are cast."""
    buffers = any(part.is_floating_point() for part in model.buffers())
    wide = any(part.dtype.itemsize > 4 for part in model.parameters())
    beside = ("parameters", "checkpoint")
    return sum((buffers or not any(word in name for word in beside)) and (wide or name != "float32") for name in NAMES)


def _coded(size: int) -> int:
    """Bytes in base64."""
    return -(-size // 3) * 4


def thinned(room: Room, blocks: int, inputs: int) -> tuple[str, ...]:
    """What a seal keeps less of than it would of a smaller model, in sentences.

    Args:
        room: What it keeps.
        blocks: How many there are.
        inputs: How many were wanted.
    """
    kept = len(room.some([""] * blocks))
    said = (
        (kept < blocks, f"{kept} of {blocks} blocks are kept, so that the first that changed is known less closely."),
        (room.inputs < inputs, f"{room.inputs} inputs are kept, not {inputs}."),
        (0 < room.marks < MARKS, f"Of each parameter {room.marks} projections are kept: kinds of change are named "
         "less surely."),
        (room.marks == 0, "Nothing is kept of parameters beside digests: kinds of change are not named."),
    )  # fmt: skip
    return tuple(words for so, words in said if so)


MARGIN: Final = 4.0
"""Times the largest harmless variation that was seen: the tolerance."""

LEAST: Final = 1e-6
"""Smallest tolerance, as a share of the sealed numbers' size: a few steps of single precision."""

_POOL: Final = {"small": 256, "large": 32}


@final
@dataclass(frozen=True, kw_only=True)
class SealOptions:
    """What a seal is to hold.

    Attributes:
        inputs: How many, at most.
        seed: Root of everything drawn. Keep it secret where a seal must not be fitted, and seal with several.
        audit: Lines on the audit that the model went through.
        expires: Last day, ``YYYY-MM-DD``; empty for none.
        of: The seal that the model was converted from.
        at_random: Whether inputs are taken at random: a weaker seal, which chosen ones are compared with.
    """

    inputs: int = 16
    seed: int = 0
    audit: Sequence[str] = ()
    expires: str = ""
    of: Lineage | None = None
    at_random: bool = False

    def __post_init__(self) -> None:
        require_fields(self)
        try:
            last = datetime.date.fromisoformat(self.expires) if self.expires else None
        except (TypeError, ValueError) as error:
            raise UsageError(
                "This is no date.", where="expires", expected="YYYY-MM-DD", got=str(self.expires),
                do="Give the last day on which the seal holds.",
            ) from error  # fmt: skip
        if last is not None and last < today():
            raise UsageError("A seal that has expired would be made.", where="expires",
                             expected=f"a day from {today()} on", got=self.expires,
                             do="Give the last day on which the seal holds.")  # fmt: skip


@final
@dataclass(frozen=True)
class SealReport:
    """A seal, and what is known of how well it sees.

    Attributes:
        seal: The seal.
        choice: Its inputs.
        thinned: What is kept less of than of a smaller model, in sentences.
    """

    seal: Seal
    choice: Choice
    thinned: tuple[str, ...] = ()


def make(
    subject: Subject, task: BaseTask, asked: SealOptions | None = None, *, watch: Watch = lambda what, done, total: None
) -> SealReport:
    """The seal of a model; it comes back bit for bit as it was.

    Args:
        subject: The model. Of one with 16-bit weights a copy in single precision is made.
        task: Where inputs come from.
        asked: What it is to hold.
        watch: Called with progress.

    Raises:
        ModelError: If the model does not answer each input alike in two passes.
        DataError: If the task's inputs cannot be kept.
    """
    how = asked or SealOptions()
    if locked := [name for name, part in values.held(subject.model) if part.is_inference()]:
        raise ModelError("A tensor was made under torch.inference_mode, and cannot be written to.", where=locked[0],
                         expected="an ordinary tensor", do="Make the model outside of that mode.")  # fmt: skip
    before = values.leaves(subject.model, seed=how.seed)
    with preserved_state(subject):
        report = _sealed(subject, task, how, watch)
        if values.leaves(subject.model, seed=how.seed) != before:
            raise ModelError("The model changes its own numbers when it is called.", where=subject.name,
                             expected="weights and buffers that a pass leaves as they are", got="others",
                             do="Switch off what counts or learns in eval mode.")  # fmt: skip
    after = values.leaves(subject.model, seed=how.seed)
    if after != before:
        raise RestorationError("The model was not given back as it was.", where=subject.name,
                               expected=values.total(before, seed=how.seed)[:12],
                               got=values.total(after, seed=how.seed)[:12])  # fmt: skip
    return report


def _sealed(subject: Subject, task: BaseTask, how: SealOptions, watch: Watch) -> SealReport:
    made = structure(subject.model)
    exact = in_single_precision(subject.model)
    own = subject if exact is subject.model else Subject(exact, name=subject.name)
    blocks = blocks_of(exact, subject.record.blocks)
    kind = "large" if subject.record.parameters > LARGE else "small"
    pool = candidates(own, task, most=_POOL[kind], seed=how.seed)
    contents = SealedContents.of(subject)
    texts = (values.shapes(subject.model), made.text(), *how.audit, msgspec.json.encode(contents).decode())
    room = room_for(exact, blocks, pool.fitting(how.inputs), pool.each, texts)
    pool = pool.at_random(room.inputs, seed=how.seed) if how.at_random else pool
    looking = PassOutputs(how.seed, room.some(blocks), room.few)
    watch("measuring harmless variation", 0, 2)
    rough = _variation(exact, chosen(pool.inputs, slice(8)), looking)
    choice = choose(own, pool, keep=room.inputs, unit=rough.output * rough.size, seed=how.seed, watch=watch)
    inputs = choice.inputs
    watch("measuring harmless variation", 1, 2)
    found = _variation(exact, inputs, looking)
    looking = dataclasses.replace(looking, blocks=found.seen.order)
    stored, casts, marks = _conversions(exact, inputs, looking, found.seen, watch)
    body = Body(
        name=subject.name, casts=casts, shapes=texts[0], values=values.marks(marks), structure=made.digest(),
        parts=texts[1], seed=how.seed, inputs=_kept(choice), blocks=found.seen.order, stored=stored,
        tensors=marked(exact, seed=how.seed, marks=room.marks),
        tolerances=Tolerances(found.output, found.blocks, subject.device.type, found.passes),
        audit=tuple(how.audit), contents=contents, sealed=today().isoformat(), expires=how.expires, of=how.of,
        provenance={"wheeltap": __version__, "torch": str(torch.__version__), "machine": platform.machine()},
    )  # fmt: skip
    seal = Seal.of(body)
    _require_own(seal, exact, looking)
    unread = tuple(
        f'{where} cannot be read ({why}): wheeltap verify will say no more than "same on the inputs asked".'
        for where, why in made.unread.items()
    )
    return SealReport(seal, choice, (*unread, *thinned(room, len(blocks), how.inputs)))


def _require_own(seal: Seal, model: nn.Module, looking: PassOutputs) -> None:
    """Raises ``ModelError`` unless the model gives what the seal says of it, for the inputs as the seal keeps them."""
    expected, loose = seal.body.stored[0].seen.output.floats(), seal.body.tolerances.output
    gap = float(np.abs(look(model, inputs_of(seal), looking).output - expected).max()) / size(expected)
    if gap > loose:
        raise ModelError("The model does not give the same for its sealed inputs.", where=seal.body.name,
                         expected=f"a difference of {loose:.1g} at most", got=f"{gap:.2g}")  # fmt: skip


def _kept(choice: Choice) -> SealedInputs:
    if choice.drawn is not None:
        return SealedInputs({}, 0, choice.drawn)
    return SealedInputs({name: PackedArray.of(part) for name, part in _arrays(choice.inputs).items()}, choice.own)


def _arrays(inputs: Inputs) -> dict[str, np.ndarray]:
    return {
        name: to_array(part) if part.is_floating_point() else part.cpu().numpy()
        for name, part in tensors(inputs).items()
    }


# ---- harmless variation ---------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class _Variation:
    seen: Projections
    size: float
    output: float
    blocks: tuple[float, ...]
    passes: int


def size(numbers: Floats) -> float:
    """Root mean square: what tolerances are shares of."""
    return max(float(np.sqrt(np.mean(np.square(numbers)))), 1e-30)


def _variation(model: nn.Module, inputs: Inputs, looking: PassOutputs) -> _Variation:
    """How far other batches, thread counts and double precision move what is seen."""
    seen = look(model, inputs, looking)
    others = [look(model, inputs, dataclasses.replace(looking, batch=batch)) for batch in (1, 3)]
    threads = torch.get_num_threads()
    try:
        for count_of in {1, 2, 4} - {threads}:
            torch.set_num_threads(count_of)
            others.append(look(model, inputs, looking))
    finally:
        torch.set_num_threads(threads)
    double = _in_double(model, inputs, looking)
    others += [] if double is None else [double]
    common = [name for name in seen.order if all(name in other.order for other in others)]
    seen = seen.only(common)
    scale = size(seen.output)
    gap = max(float(np.abs(other.output - seen.output).max()) for other in others) / scale
    if gap > _RANDOM:
        raise ModelError(
            "The model does not give the same for the same inputs.", where="seal",
            expected="two passes that differ by rounding", got=f"a difference of {gap:.1%} of the output",
            do="Seal it with everything that is drawn at random or carried from call to call turned off.",
        )  # fmt: skip
    blocks = tuple(
        MARGIN * max(LEAST, *(float(np.abs(other.of(name) - block).max()) / size(block) for other in others))
        for name, block in zip(seen.order, seen.blocks, strict=True)
    )
    return _Variation(seen, scale, MARGIN * max(gap, LEAST), blocks, len(others) + 1)


_RANDOM: Final = 0.05


def _in_double(model: nn.Module, inputs: Inputs, looking: PassOutputs) -> Projections | None:
    """A pass in double precision: what all rounding together makes. ``None`` where the model refuses."""
    wide = {name: part.double() if part.is_floating_point() else part for name, part in tensors(inputs).items()}
    try:
        copy = copied(model).double().eval()
        return look(copy, wide.get("", wide), looking)
    except (ModelError, RuntimeError, TypeError, NotImplementedError):
        return None


# ---- conversions -------------------------------------------------------------------------------


def _conversions(
    model: nn.Module, inputs: Inputs, looking: PassOutputs, seen: Projections, watch: Watch
) -> tuple[tuple[ConvertedModel, ...], tuple[WholeCast, ...], list[Leaves]]:
    """What the model gives after each conversion that makes something else of it, and digests of its tensors."""
    found, casts, marks = [ConvertedModel(AS_SEALED, _packed(seen))], dict[str, str](), list[Leaves]()
    for at, name in enumerate(NAMES):
        watch("converting", at, len(NAMES))
        with converted(model, name) as changes:
            if not changes and name not in WHOLE:
                continue
            held = values.leaves(model, seed=looking.seed)
            marks += [held] if name in WHOLE else []
            if not changes or (digest := values.total(held, seed=looking.seed)) in casts.values():
                continue
            casts[name] = digest
            made = _packed(look(model, inputs, looking)) if name != AS_SEALED else found[0].seen
        if all(made != other.seen for other in found):
            found.append(ConvertedModel(name, made))
    return tuple(found), tuple(WholeCast(name, digest) for name, digest in casts.items()), marks


def _packed(seen: Projections) -> SealedOutputs:
    single = [part.astype(np.float32) for part in (seen.output, seen.blocks)]
    return SealedOutputs(*(PackedArray.of(part) for part in single))


def inputs_of(seal: Seal) -> Inputs:
    """The inputs of a seal.

    Raises:
        FileFormatError: If they cannot be read.
    """
    if seal.body.inputs.drawn is not None:
        return drawn_again(seal.body.inputs.drawn)
    held = {name: _tensor(part.array()) for name, part in seal.body.inputs.arrays.items()}
    if not held:
        raise FileFormatError("The seal has no inputs.", where=seal.body.name, expected="an input or more", got="none")
    return held[""] if set(held) == {""} else held


def _tensor(array: np.ndarray) -> torch.Tensor:
    tensor: torch.Tensor = torch.from_numpy(array.copy())  # pyright: ignore[reportUnknownMemberType]
    return tensor.long() if array.dtype == np.int32 else tensor
