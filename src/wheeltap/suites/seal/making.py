"""Making a seal: random inputs, the model's outputs on them, and how far harmless variation moves these."""

import dataclasses
import datetime
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import nn

from wheeltap import __version__
from wheeltap.core.errors import FileFormatError, ModelError, RestorationError, UsageError
from wheeltap.core.inputs import Inputs, tensors
from wheeltap.core.settings import require_fields
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied, to_array, to_tensor
from wheeltap.engine.apply import preserved_state
from wheeltap.suites.seal import values
from wheeltap.suites.seal.contents import SealedContents
from wheeltap.suites.seal.inputs import draw, drawn_again
from wheeltap.suites.seal.record import (
    Body,
    ConvertedModel,
    Lineage,
    PackedArray,
    Seal,
    SealedInputs,
    SealedOutputs,
    Tolerances,
    UniformInputs,
    WholeCast,
    today,
)
from wheeltap.suites.seal.sketch import Floats, PassOutputs, Projections, blocks_of, look
from wheeltap.suites.seal.structure import structure
from wheeltap.suites.seal.tensors import parameter_numbers
from wheeltap.suites.seal.values import AS_SEALED, NAMES, WHOLE, Leaves, converted, in_single_precision

MARGIN: Final = 4.0
"""Times the largest harmless variation that was seen: the tolerance."""

LEAST: Final = 1e-6
"""Smallest tolerance, as a share of the sealed numbers' size: a few steps of single precision."""

FEW: Final = 4
"""Inputs of which outputs of blocks are kept: the first ones."""

Watch = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how much."""


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
    """

    inputs: int = 16
    seed: int = 0
    audit: Sequence[str] = ()
    expires: str = ""
    of: Lineage | None = None

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
    """A seal, and what it does not cover.

    Attributes:
        seal: The seal.
        notes: Classes whose code cannot be compared, in sentences.
    """

    seal: Seal
    notes: tuple[str, ...] = ()


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
    parts = structure(subject.model)
    exact = in_single_precision(subject.model)
    own = subject if exact is subject.model else Subject(exact, name=subject.name)
    inputs, drawn = draw(own, task, total=how.inputs, seed=how.seed)
    watch("measuring harmless variation", 0, 1)
    looking = PassOutputs(how.seed, blocks_of(exact, subject.record.blocks), FEW)
    seen, tolerances = _variation(exact, inputs, looking, subject.device.type)
    looking = dataclasses.replace(looking, blocks=seen.order)
    stored, casts, marks = _conversions(exact, inputs, looking, seen, watch)
    body = Body(
        name=subject.name, casts=casts, shapes=values.shapes(subject.model), values=values.marks(marks),
        structure=parts.text(), seed=how.seed, inputs=_kept(inputs, drawn), blocks=seen.order, stored=stored,
        tensors=parameter_numbers(exact, seed=how.seed), tolerances=tolerances,
        audit=tuple(how.audit), contents=SealedContents.of(subject), sealed=today().isoformat(), expires=how.expires,
        of=how.of,
        provenance={"wheeltap": __version__, "torch": str(torch.__version__), "machine": platform.machine()},
    )  # fmt: skip
    seal = Seal.of(body)
    _require_own(seal, exact, looking)
    notes = tuple(
        f'The source of {name} cannot be read: wheeltap verify will say no more than "same on the inputs asked".'
        for name in parts.unread
    )
    return SealReport(seal, notes)


def _require_own(seal: Seal, model: nn.Module, looking: PassOutputs) -> None:
    """Raises ``ModelError`` unless the model gives what the seal says of it, for the inputs as the seal keeps them."""
    expected, loose = seal.body.stored[0].seen.output.floats(), seal.body.tolerances.output
    gap = float(np.abs(look(model, inputs_of(seal), looking).output - expected).max()) / size(expected)
    if gap > loose:
        raise ModelError("The model does not give the same for its sealed inputs.", where=seal.body.name,
                         expected=f"a difference of {loose:.1g} at most", got=f"{gap:.2g}")  # fmt: skip


def _kept(inputs: Inputs, drawn: UniformInputs | None) -> SealedInputs:
    if drawn is not None:
        return SealedInputs({}, drawn)
    arrays = {
        name: PackedArray.of(to_array(part) if part.is_floating_point() else part.cpu().numpy())
        for name, part in tensors(inputs).items()
    }
    return SealedInputs(arrays)


# ---- harmless variation ---------------------------------------------------------------------------------------


def size(numbers: Floats) -> float:
    """Root mean square: what tolerances are shares of."""
    return max(float(np.sqrt(np.mean(np.square(numbers)))), 1e-30)


def _variation(model: nn.Module, inputs: Inputs, looking: PassOutputs, device: str) -> tuple[Projections, Tolerances]:
    """What is seen, and how far other batches, thread counts and double precision move it."""
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
    gap = max(float(np.abs(other.output - seen.output).max()) for other in others) / size(seen.output)
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
    return seen, Tolerances(MARGIN * max(gap, LEAST), blocks, device, len(others) + 1)


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
    inputs = dict[str, torch.Tensor]()
    for name, part in seal.body.inputs.arrays.items():
        array = part.array()
        inputs[name] = to_tensor(array.astype(np.int64) if array.dtype == np.int32 else array.copy())
    if not inputs:
        raise FileFormatError("The seal has no inputs.", where=seal.body.name, expected="an input or more", got="none")
    return inputs[""] if set(inputs) == {""} else inputs
