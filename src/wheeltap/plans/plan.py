"""Plans: what will be asked of which subjects, in a file one can read and diff."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec

from wheeltap.core import canon
from wheeltap.core.bounded import decoded, document
from wheeltap.core.records import Outcome, Scalar, SubjectRecord, TaskRecord, Trial
from wheeltap.core.settings import checked
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.study import StudySpec
from wheeltap.plans.shipped import Question, ShippedFile

PLAN_SCHEMA = "wheeltap.plan/4"
_LARGEST_PLAN = 16 * 2**20

CUT = "cut to the budget"
"""Name in the provenance of what a budget cut."""

GROUPED = "examples that come in groups"
"""Name in the provenance of how many there are, and how many independent examples they count as."""

Lookup = Callable[[str], Outcome | None]
"""From a trial's key to its outcome, if it is known."""


class AuditSpec(msgspec.Struct, frozen=True):
    """One audit and the settings that differ from its defaults."""

    name: str
    settings: dict[str, Scalar | list[int | float]] = {}


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much each audit of noise may spend.

    What others draw (flipped bits, fine-tuning, random subspaces) is a setting of theirs: ``draws`` of ``bit-flips``,
    say.

    Attributes:
        draws: Draws of noise per dose and subject.
        control_draws: Draws per dose for each control subject.
        block_draws: Draws per block in a block map; 0 leaves the map out.
    """

    draws: Annotated[int, msgspec.Meta(ge=1)] = 32
    control_draws: Annotated[int, msgspec.Meta(ge=1)] = 32
    block_draws: Annotated[int, msgspec.Meta(ge=0)] = 8


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the cost of readings beside what the records hold.

    Attributes:
        hidden: Hidden units that can be ablated, by the subject's fingerprint; only of those that were counted.
        factors: Number of classes of each factor that the task knows.
        symmetric: Whether the task knows a symmetry.
        moments: Passes over the task that one pass over its inputs for layer moments costs.
    """

    hidden: dict[str, int] = {}
    factors: tuple[int, ...] = ()
    symmetric: bool = False
    moments: float = 1.0


FILES = "file"
"""The audit that every plan about files as they are shipped has."""

MARGIN, ERROR_MARGIN = 0.02, 0.1
"""The usual smallest loss of interest: a share of right answers, or of the way from chance; a share of an error."""

ALPHA, LOWEST, HIGHEST = 0.05, 1e-6, 0.5
"""The usual chance of a false verdict, and the highest: from there on a verdict says nothing."""

_LATER = ("answer", "repeats", "distinct", "alike", "found", "study", "artifact", "names", "raters", "mixes",
          "range", "chosen", "left_out", "output", "composed", "cap")  # fmt: skip
"""Fields that came after the first plans of this schema."""


def _without_unset(held: Any) -> Any:
    """The same without later fields that are not set, so that plans which do not use them keep their keys."""
    if isinstance(held, dict):
        known = cast("dict[str, Any]", held)
        plain = ((name, one) for name, one in known.items() if (name, one) != ("sets", []))
        kept = {name: one for name, one in plain if one is not None or name not in _LATER}
        return {name: _without_unset(one) for name, one in kept.items()}
    if isinstance(held, list):
        return [_without_unset(one) for one in cast("list[Any]", held)]
    return held


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What recorded answers call their items: outcomes hold numbers alone.

    Attributes:
        items: One for each example; none where there are too many to be named.
        groups: Of the parts of the benchmark, by their number.
        labels: Of votes and of probabilities, in their order.
    """

    items: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run does, apart from the weights and examples themselves.

    Attributes:
        subjects: The reference first; in a comparison each other one is compared with it.
        versions: Version of each registered perturbation's code.
        sources: How the command line loads each subject; empty for models given in memory.
        data: Path of the task's data, where it came from a file.
        twin: The null control: a reparametrized copy.
        planted: The positive control: a copy with cancelling units.
        stronger: The same with stronger ones, in rising order: tried one after another where the weaker are not found.
        graded: Copies with few to many cancelling units, from which the power to detect them is estimated.
        no_controls: Why there is no twin or planted copy.
        seed: Root of every draw.
        alpha: Probability of any false alarm, over all findings together; of any false reassurance, likewise.
        margin: Smallest loss of score of interest: a share of right answers, of an error, or of the way from chance to
            the score; see ``Case.edge``.
        partial: Whether verdicts are given although many weights were left alone.
        sizes: What costs depend on.
        cuts: What a budget cut, in words.
        study: Cohorts, metrics and rules, where the subjects are the members of a study.
        names: Of items, parts and labels, where answers were recorded.
        generation: Number of this plan among those of one store whose models have equal fingerprints but other outputs:
            part of every trial's key, so that none is reused for another model. See ``runs.reuse``.
    """

    schema: Literal["wheeltap.plan/4"] = PLAN_SCHEMA
    command: str
    subjects: Annotated[tuple[SubjectRecord, ...], msgspec.Meta(min_length=1)]
    task: TaskRecord
    audits: tuple[AuditSpec, ...]
    effort: Effort = Effort()
    versions: dict[str, int] = {}
    sources: tuple[str, ...] = ()
    data: str | None = None
    twin: SubjectRecord | None = None
    planted: SubjectRecord | None = None
    stronger: tuple[SubjectRecord, ...] = ()
    graded: tuple[SubjectRecord, ...] = ()
    no_controls: str = ""
    seed: int = 0
    alpha: Annotated[float, msgspec.Meta(ge=LOWEST, le=HIGHEST)] = ALPHA
    margin: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = MARGIN
    partial: bool = False
    sizes: Sizes = Sizes()
    cuts: tuple[str, ...] = ()
    study: StudySpec | None = None
    names: Names | None = None
    generation: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def key(self) -> str:
        """Content key of the plan. What plans did not always have counts only where it is set."""
        held = _without_unset(msgspec.json.decode(canon.canonical(self)))
        return canon.digest("plan", msgspec.json.encode(held))

    @property
    def reference(self) -> SubjectRecord:
        """The subject that others are compared with."""
        return self.subjects[0]

    @property
    def plants(self) -> tuple[SubjectRecord, ...]:
        """The copies with cancelling units, of rising strength."""
        return () if self.planted is None else (self.planted, *self.stronger)

    @property
    def controls(self) -> tuple[SubjectRecord, ...]:
        """The control subjects there are, those included that may not be needed."""
        return (*self._twins, *self.plants, *self.graded)

    @property
    def _twins(self) -> tuple[SubjectRecord, ...]:
        return () if self.twin is None else (self.twin,)

    def trial(
        self,
        subject: SubjectRecord,
        perturbation: str,
        *,
        settings: dict[str, Scalar] | None = None,
        site: Site = WHOLE,
        dose: float = 0.0,
        seed: int = 0,
    ) -> Trial:
        """A disturbance on all examples of this plan's task, with its root seed; ``.on(part)`` takes some of them."""
        return Trial(
            subject=subject.fingerprint,
            task=self.task.digest,
            measures=self.task.measures,
            perturbation=perturbation,
            version=self.versions.get(perturbation, 0),
            settings=settings or {},
            site=site,
            dose=float(dose),  # 8 and 8.0 are one dose, so one key
            seed=seed,
            root=self.seed,
            path=subject.path,
            generation=self.generation,
        )

    def clean(self, subject: SubjectRecord, *, seed: int = 0) -> Trial:
        """A pass of the undisturbed subject; ``seed`` tells several from each other."""
        return msgspec.structs.replace(self.trial(subject, "none", seed=seed), kind="clean")

    def reading(self, subject: SubjectRecord, reading: str, settings: dict[str, Scalar], *, seed: int = 0) -> Trial:
        """A reading of the undisturbed subject."""
        return msgspec.structs.replace(self.trial(subject, reading, settings=settings, seed=seed), kind="read")

    def make(self, subject: SubjectRecord) -> Trial:
        """The making of a member, where a recipe makes it: its outcome holds the digest of its weights."""
        assert subject.artifact is not None, "nothing makes this subject"
        made = self.trial(subject, subject.artifact.recipe)
        return msgspec.structs.replace(made, kind="make", version=subject.artifact.version, root=0)

    @property
    def files(self) -> tuple[ShippedFile, ...]:
        """What was found of the files that its audits are about: the settings of the audit of files hold it."""
        known = (str(spec.settings.get("known", "")) for spec in self.audits if spec.name == FILES)
        return next((msgspec.json.decode(one, type=tuple[ShippedFile, ...]) for one in known if one), ())

    @checked
    def ship(self, file: ShippedFile, question: Question) -> Trial:
        """What a file that was made from the reference answers, or holds."""
        asked = self.trial(self.reference, question, settings={"file": file.fingerprint})
        return msgspec.structs.replace(asked, kind="ship")

    def makings(self) -> list[Trial]:
        """The makings of all members that recipes make."""
        return [self.make(subject) for subject in self.subjects if subject.artifact is not None]

    @property
    def cut(self) -> str:
        """What a budget cut, in one line; empty where there was nothing to cut."""
        return "; ".join(self.cuts)

    def hidden(self, subject: SubjectRecord) -> int | None:
        """How many hidden units of a subject or its copy can be ablated; ``None`` where it was not counted."""
        return self.sizes.hidden.get(subject.base or subject.fingerprint)

    @property
    def unrun(self) -> bool:
        """Whether no model is run: answers were recorded, or files are only looked at."""
        return self.reference.role == "recorded" or not self.task.examples

    def baselines(self) -> list[Trial]:
        """The clean passes every run starts with: two of the reference, one of each other subject and control.

        Stronger plants are passed when they are needed. Of recorded answers nothing can be passed.
        """
        if self.unrun:
            return []
        first = (*self.subjects, *self._twins, *self.plants[:1], *self.graded)
        return [*(self.clean(subject) for subject in first), self.clean(self.reference, seed=1)]

    def to_bytes(self) -> bytes:
        """The plan as readable JSON, the same bytes for the same plan."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan in a file.

        Raises:
            MissingFile: If there is no such file.
            FileFormatError: If it is not a plan.
        """
        data = document(path, "plan", limit=_LARGEST_PLAN, do="Make one: wheeltap plan digits")
        return cls.from_bytes(data, where=str(path))

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> "Plan":
        """The plan in ``data``; ``where`` names its origin in errors."""
        expected, do = f"JSON of schema {PLAN_SCHEMA}", "Make a new one with: wheeltap plan"
        return decoded(data, cls, where, "The file is not a wheeltap plan.", expected=expected, do=do)
