"""How small a planted defect is found in a model of yours: copies with defects of known strength, compared with it."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import msgspec
from torch import nn

from wheeltap import gauge
from wheeltap.audits.power import WANTED, smallest_found
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.few import few
from wheeltap.plans.plan import Effort
from wheeltap.runs import loop, planning
from wheeltap.runs.loop import Watch
from wheeltap.testing import defects

AUDITS = ("score", "relative-noise", "function-noise", "redundancy", "entanglement", "single-point")
"""What every planted copy is compared by."""

Make = Callable[[Subject, BaseTask, float, int], nn.Module]


def _gauged(name: str, setting: str, **fixed: Scalar) -> Make:
    """A plant that a gauge makes, its strength being one of the gauge's settings."""

    def make(subject: Subject, task: BaseTask, strength: float, seed: int) -> nn.Module:
        family = _family(subject, task)
        size = int(strength) if setting == "pairs" else strength
        made = gauge.describe(family, name, seed=seed, **{setting: size, **fixed})
        return gauge.twin(subject.model, made, few(task, subject.model), family=family)

    return make


def _permuted(subject: Subject, task: BaseTask, strength: float, seed: int) -> nn.Module:
    family = _family(subject, task)
    made = gauge.describe(family, "permute", seed=seed)
    return gauge.twin(subject.model, made, few(task, subject.model), family=family)


def _family(subject: Subject, task: BaseTask) -> gauge.Family:
    family = gauge.find(subject.model, few(task, subject.model))
    if isinstance(family, gauge.Refusal):
        raise ModelError("Nothing can be planted in this model.", where=subject.name, got=family.because)
    return family


def _super_weight(subject: Subject, task: BaseTask, strength: float, seed: int) -> nn.Module:
    if not isinstance(subject.model, nn.Sequential):
        raise ModelError(
            "A super weight cannot be planted in this model.",
            where=subject.name,
            expected="a Sequential that ends in Linear, ReLU, Linear",
            got=type(subject.model).__name__,
        )
    return defects.super_weight(subject.model, task, strength=strength, seed=seed).subject.model


def _brittle(subject: Subject, task: BaseTask, strength: float, seed: int) -> nn.Module:
    return defects.brittle_block(subject.model, task, strength=strength, seed=seed).subject.model


@final
@dataclass(frozen=True)
class Defect:
    """A defect that leaves the function as it is.

    Attributes:
        title: In plain words.
        unit: Of its strength.
        strengths: Tried, rising.
        make: A copy of a subject's model with the defect, at a strength, from a seed.
    """

    title: str
    unit: str
    strengths: tuple[float, ...]
    make: Make


DEFECTS: dict[str, Defect] = {
    "cancel": Defect(
        "cancelling units", "pairs in each hidden layer, at scale 4", (1, 2, 4, 8, 16), _gauged("cancel", "pairs")
    ),
    "entangle": Defect(
        "units split and entangled with others",
        "times the outgoing weights, a quarter of the units",
        (0.25, 0.5, 1, 2, 4),
        _gauged("entangle", "strength", share=0.25),
    ),
    "brittle-block": Defect(
        "cancelling units in one hidden layer only", "times the outgoing weights", (0.25, 0.5, 1, 2, 4), _brittle
    ),
    "super-weight": Defect("one weight that holds everything", "logit scales", (0.5, 1, 2, 5, 20), _super_weight),
    "none": Defect("nothing: a permuted copy, on which every finding is a false alarm", "", (0,), _permuted),
}
"""Every defect that can be planted in a model of yours, and last the null."""


@final
@dataclass(frozen=True)
class Detection:
    """How often one defect was found.

    Attributes:
        defect: Its name in ``DEFECTS``.
        runs: Copies tried at each strength, each with a plant and draws of its own.
        found: By finding code: how many of them were found, strength by strength.
        refused: Why it could not be planted, if so.
    """

    defect: str
    runs: int
    found: dict[str, tuple[int, ...]]
    refused: str = ""

    def smallest(self, code: str) -> float | None:
        """The smallest strength that ``code`` finds with a probability of .8; ``None`` if none of those tried."""
        shares = [count / self.runs for count in self.found[code]]
        return smallest_found(list(zip(DEFECTS[self.defect].strengths, shares, strict=True)))


def detect(
    subject: Subject,
    task: BaseTask,
    *,
    names: Sequence[str] = tuple(DEFECTS),
    runs: int = 5,
    effort: Effort | None = None,
    watch: Watch | None = None,
) -> Iterator[Detection]:
    """Plants each defect in copies of ``subject`` and compares every copy with it, as ``wheeltap compare`` would.

    Args:
        subject: The model; it comes back bit-identical.
        task: The examples.
        names: Defects, from ``DEFECTS``.
        runs: Copies for each defect and strength.
        effort: Draws; by default chosen by the model's size.
        watch: Called after each trial.

    Yields:
        One detection per defect, as soon as it is known.

    Raises:
        UsageError: If ``runs`` is below 1.
    """
    if runs < 1:
        raise UsageError("Detection needs at least one run.", expected="1 or more", got=str(runs))
    how = effort or planning.default_effort(subject.record.parameters)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
        bench = _Planting(subject, task, msgspec.structs.replace(how, block_draws=0), Path(folder), watch)
        for name in names:
            yield bench.tried(name, runs)


@final
@dataclass(frozen=True)
class _Planting:
    """What all comparisons share; the stores too, so that the original is measured once for each run."""

    subject: Subject
    task: BaseTask
    effort: Effort
    folder: Path
    watch: Watch | None

    def tried(self, name: str, runs: int) -> Detection:
        found: dict[str, list[int]] = {}
        try:
            for strength in DEFECTS[name].strengths:
                codes = [code for run in range(runs) for code in self._found(name, strength, run)]
                for code in CODES:
                    found.setdefault(code, []).append(codes.count(code))
        except ModelError as error:
            because = " ".join(part for part in (error.what, error.got) if part)
            return Detection(name, runs, {}, refused=because)
        return Detection(name, runs, {code: tuple(counts) for code, counts in found.items()})

    def _found(self, name: str, strength: float, seed: int) -> set[str]:
        """Codes that tell one planted copy from the original."""
        model = DEFECTS[name].make(self.subject, self.task, strength, seed)
        both = [self.subject, Subject(model, name=f"{self.subject.name} with a planted defect")]
        plan = planning.plan(both, self.task, audits=AUDITS, effort=self.effort, seed=seed)
        plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
        report = loop.run(plan, both, self.task, store=self.folder / f"{seed}.wheeltap", watch=self.watch)
        return {f.code for f in report.findings if f.status == "found" and " vs " in f.subject}


CODES = ("WT001", "WT101", "WT102", "WT105", "WT201", "WT202")

__all__ = ["AUDITS", "CODES", "DEFECTS", "WANTED", "Defect", "Detection", "detect"]
