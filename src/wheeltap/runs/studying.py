"""Studies: members, what they are measured and trained on, and their plan."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wheeltap.audits.base import studies
from wheeltap.core import seeds
from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.errors import DataError, ModelError, StoreError, UsageError, WheeltapError
from wheeltap.core.plain import many
from wheeltap.core.records import Outcome, OutcomeStatus, SubjectRecord, TaskRecord, Trial
from wheeltap.core.repeats import near_copies
from wheeltap.core.study import MemberSpec, Statistic, StudySpec
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_tensor
from wheeltap.engine.clean import settle
from wheeltap.engine.readings import readings
from wheeltap.perturb import perturbations
from wheeltap.plans.artifacts import Artifacts
from wheeltap.plans.plan import Effort, Plan
from wheeltap.recipes import base as recipes
from wheeltap.recipes.base import Given, Recipe, recipe_of
from wheeltap.recipes.make import Artifact, ArtifactMaker, make
from wheeltap.recipes.together import at_once, make_together
from wheeltap.runs.planning import require_named
from wheeltap.runs.request import StudyRequest
from wheeltap.sources.base import is_code, is_code_of_examples, require_no_code
from wheeltap.sources.specs import SharedExamples, load_model, load_task
from wheeltap.studies.base import Study
from wheeltap.studies.rules import require_sound

_ENDED: dict[str, OutcomeStatus] = {"done": "done", "diverged": "diverged", "stuck": "skipped"}
_SAID = {"diverged": "Its training diverged.", "stuck": "Its training got stuck: nothing moves it any more."}


Step = Callable[[str, int, int], None]
"""Called while a member is made: its name, the steps taken, those in all. See ``recipes.make.Watch``."""


@final
class MemberMaker:
    """Makes the members that a plan names, or finds what was made before.

    Args:
        records: Of all members.
        sources: Specs of those that are loaded, by fingerprint.
        tasks: Examples that they are measured on or trained on, by digest.
        folder: Where what is made is kept.

    Attributes:
        watch: Called while one is made in this process.
    """

    def __init__(
        self,
        records: tuple[SubjectRecord, ...],
        sources: Mapping[str, str],
        tasks: Mapping[str, BaseTask],
        folder: Path,
    ) -> None:
        self.folder = folder
        self.watch: Step | None = None
        self._records = {record.fingerprint: record for record in records}
        self._sources, self._tasks = dict(sources), tasks
        self._digests: dict[str, str] = {}
        self._tried: set[str] = set()

    def know(self, fingerprint: str, digest: NDArray[np.int32]) -> None:
        """Takes the digest that a member's weights had when it was made."""
        self._digests[fingerprint] = digest.astype("<i4").tobytes().hex()

    def has(self, record: SubjectRecord) -> bool:
        """Whether it can make or load this one."""
        return record.artifact is not None or record.fingerprint in self._sources

    def there(self, record: SubjectRecord) -> bool:
        """Whether nothing has to be made that is kept in a file."""
        spec = record.artifact
        if spec is None or not recipe_of(spec).keeps(record.parameters):
            return True
        return Artifacts(self.folder).path(spec).is_file()

    def module(self, record: SubjectRecord) -> nn.Module:
        """The member; see ``Maker.module``.

        Raises:
            ModelError: If its making did not come to its end, or what is loaded is not what was planned.
            StoreError: If what is there has another digest than what was made.
        """
        if record.artifact is None:
            return self._loaded(record)
        made = self._made(record.artifact)
        if made.status != "done":
            raise ModelError("A member of the study was not made.", where=record.name, got=_SAID[made.status])
        return made.model

    def make(self, record: SubjectRecord, trial: Trial, batch: Sequence[Trial]) -> Outcome:
        """Makes a member; see ``Maker.make``."""
        assert record.artifact is not None, "only a recipe makes a member"
        began = time.perf_counter()
        self._make_together(batch)
        made = self._made(record.artifact)
        digest = np.frombuffer(bytes.fromhex(made.digest), dtype="<i4").astype(np.int32)
        self.know(record.fingerprint, digest)
        status = _ENDED[made.status]
        values = {"digest": digest, **made.report} if status == "done" else {}
        return Outcome(
            key=trial.key, status=status, values=values, seconds=time.perf_counter() - began,
            because=_SAID.get(made.status, ""),
        )  # fmt: skip

    def together(self, trials: Sequence[Trial], *, parts: int) -> list[list[Trial]]:
        """See ``Maker.together``: of one recipe, with the same settings and examples, a seed each."""
        kinds: dict[str, list[Trial]] = {}
        for trial in trials:
            spec = self._records[trial.subject].artifact
            if spec is None or spec.of or not recipe_of(spec).keeps(self._records[trial.subject].parameters):
                kinds[trial.subject] = [trial]
            else:
                kinds.setdefault(msgspec.structs.replace(spec, seed=0).key, []).append(trial)
        batches: list[list[Trial]] = []
        for some in kinds.values():
            count = max(-(-len(some) // at_once(self._records[some[0].subject].parameters)), min(parts, len(some)))
            batches += [some[len(some) * at // count : len(some) * (at + 1) // count] for at in range(count)]
        return batches

    def _make_together(self, batch: Sequence[Trial]) -> None:
        """Trains those that are not there yet as a batch, if that can be: they are found then."""
        records = [self._records[trial.subject] for trial in batch if trial.subject not in self._tried]
        self._tried |= {record.fingerprint for record in records}
        specs = [one.artifact for one in records if one.artifact and not self.there(one)]
        if len(specs) > 1:
            said = f"{records[0].name} and {len(specs) - 1} more"
            watch = None if self.watch is None else partial(self.watch, said)
            make_together([self._maker(spec) for spec in specs], Artifacts(self.folder), watch=watch)

    def _maker(self, spec: ArtifactSpec) -> ArtifactMaker:
        of = tuple(self.module(self._of(key)) for key in spec.of)
        given = Given(spec, of, self._tasks.get(spec.data), torch.device("cpu"))
        return ArtifactMaker(given, recipe_of(spec), Artifacts(self.folder), self._digests.get(spec.key, ""))

    def _made(self, spec: ArtifactSpec) -> Artifact:
        maker = self._maker(spec)
        watch = None if self.watch is None else partial(self.watch, self._records[spec.key].name)
        return make(maker.given, maker.recipe, maker.artifacts, expected=maker.expected, watch=watch)

    def _of(self, key: str) -> SubjectRecord:
        if key not in self._records:
            raise StoreError("What a member is made from is no member of the study.", where=key)
        return self._records[key]

    def loaded_by_code(self, task: BaseTask) -> Iterator[Subject]:
        """Load the members that code gives, each after its first pass over the task.

        Files are identified by their tensors; code may give the same tensors and other outputs.
        """
        for record in self._records.values():
            if record.artifact is None and is_code(self._sources.get(record.fingerprint, "")):
                subject = Subject(self._loaded(record), name=record.name)
                settle(subject, task)
                subject.known_as(record)
                yield subject

    def _loaded(self, record: SubjectRecord) -> nn.Module:
        subject = load_model(self._sources[record.fingerprint], name=record.name)
        return subject.model


_IN_POINTS: Final[tuple[Statistic, ...]] = ("one_of", "paired", "difference", "mean")
"""Statistics in the unit of the metric."""

_WANTED: Final = (
    'Name other examples, train = "train.npz"; or let a share of these be held out, held_out = 0.33, and the others be '
    "trained on."
)


@final
@dataclass(frozen=True, eq=False)
class Examples:
    """What all members are measured on.

    Attributes:
        task: The examples.
        training: What is trained on by recipes that bring no examples of their own; ``None`` where there is nothing.
        split: Whether the two are parts of one set.
        shared: Where the examples go with the first model that is loaded: who else reads them alike.
    """

    task: BaseTask
    training: BaseTask | None = None
    split: bool = False
    shared: SharedExamples | None = None
    _said: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, study: Study, sources: Sequence[str]) -> "Examples":
        """Those that a study names; but for code, they are read as the first of the loaded models reads them.

        Raises:
            UsageError: If both other examples to train on and a share to hold out are named.
            DataError: If there are too few different ones to hold any out.
        """
        named, shared = study.examples, None
        if sources and not (named and is_code_of_examples(named)):
            shared = SharedExamples(sources[0], data=named or None)
        task = load_task(named) if shared is None else shared.task
        if study.training and study.held_out:
            raise UsageError(
                "Nets are trained on other examples, or on those that are not held out.", where=study.name,
                expected="train, or held_out", got=f"train = {study.training!r} and held_out = {study.held_out:g}",
                do="Remove one of the two.",
            )  # fmt: skip
        if study.held_out:
            return cls(*split(task, study.held_out), split=True, shared=shared)
        if named == "digits" and not study.training:
            from wheeltap.sources.digits import lesson

            return cls(task, lesson(), split=True, shared=shared)
        return cls(task, load_task(study.training) if study.training else None, shared=shared)

    def subject(self, source: str, *, name: str) -> Subject:
        """A model that is loaded."""
        return load_model(source, name=name) if self.shared is None else self.shared.other(source, name=name)

    def named(self, digest: str) -> BaseTask | None:
        """The examples of this digest; none where it is empty."""
        return next((one for one in (self.task, self.training) if one is not None and one.digest == digest), None)

    def given(self, recipe: Recipe, *, on_task: bool, where: str) -> BaseTask | None:
        """The examples that a recipe is given; none where it needs none.

        Raises:
            UsageError: If it trains on what it is given, and there is nothing to train on.
        """
        if not recipe.needs:
            return None
        if recipe.needs == "measured" or on_task:
            return self.task
        if self.training is None:
            raise UsageError(
                "There are no examples to train on: those of the study are the ones that nets are measured on.",
                where=where, expected=f"examples of its own for the recipe {recipe.name}", got="none",
                do=_WANTED,
            )  # fmt: skip
        return self.training

    def checked(self, lesson: BaseTask | None, *, memory: bool, where: str) -> str:
        """How many examples a member is trained on and measured on, in a sentence; empty where that is not known.

        Args:
            lesson: What it is trained on.
            memory: Whether it is meant to learn what it is measured on.
            where: The member.

        Raises:
            DataError: If some of the examples that are measured are among them.
        """
        if lesson is None:
            return ""
        about = f"{lesson.digest} {memory}"
        if about not in self._said:
            self._said[about] = self._checked(lesson, memory=memory, where=where)
        return self._said[about]

    def _checked(self, lesson: BaseTask, *, memory: bool, where: str) -> str:
        learned, measured = set(lesson.contents), self.task.contents
        count, both = len(self.task.targets), sum(one in learned for one in measured)
        if not both and isinstance(self.task, Task) and isinstance(lesson, Task):
            both = near_copies(self.task.inputs, lesson.inputs)
        if memory and both:
            return (
                f"Trained on {'all' if both == count else f'{both:,}'} of the {count:,} examples that are measured: "
                "the score is no benchmark score."
            )
        if both:
            raise DataError(
                "Nets are trained on examples that they are measured on.", where=where,
                expected=f"none of the {count:,} examples of {self.task.name} in {lesson.name}",
                got=f"{both:,} of them, or copies that differ by next to nothing",
                do=f"Remove them from either. Or: {_WANTED[0].lower()}{_WANTED[1:]}",
            )  # fmt: skip
        unknown = "" if measured and learned else "; whether the two have examples in common is not known"
        name = self.task.name if self.split else lesson.name
        return f"Trained on {many(len(lesson.targets), 'example')} of {name}, measured on {count:,} held out{unknown}."


def split(task: BaseTask, share: float) -> tuple[BaseTask, BaseTask]:
    """The examples that are held out, about this share of each class, and the others; copies of one stay together."""
    contents = task.contents or tuple(map(str, range(len(task.targets))))
    if (sets := task.copies) is not None:
        contents = tuple(map(str, sets))
    first = {content: at for at, content in reversed([*enumerate(contents)])}
    kinds = np.zeros(len(contents)) if task.targets.is_floating_point() else task.targets.cpu().numpy()
    order = seeds.generator(0, "held out").permutation(np.array(sorted(first.values())))
    # Sorted by class (stably, so shuffled within each), the held-out ones at equal distances.
    order = order[np.argsort(kinds[order], kind="stable")]
    edges = np.floor((np.arange(len(order) + 1)) * share + 0.5)
    chosen = {contents[int(at)] for at in order[edges[1:] > edges[:-1]]}
    held = np.array([content in chosen for content in contents])
    if held.all() or not held.any():
        raise DataError(
            "There are too few different examples to hold some out.", where=task.name,
            expected="some on either side", got=f"{len(order)} different ones, {share:g} of them held out",
            do="Give more examples, or another held_out.",
        )  # fmt: skip
    return task.part(to_tensor(np.flatnonzero(held))), task.part(to_tensor(np.flatnonzero(~held)))


def require_fractions(spec: StudySpec, task: TaskRecord) -> None:
    """Refuses a margin that takes the share of right answers for points.

    Raises:
        UsageError: If a rule on a share has a margin of 1 or more.
    """
    shares = {metric.key for metric in spec.metrics if metric.of_score and task.bounded}
    for rule in spec.rules:
        if rule.metric in shares and rule.statistic in _IN_POINTS and not rule.relative and rule.margin >= 1.0:
            raise UsageError(
                "A margin of 1 or more is more than there can be.", where=f"rule {rule.title}",
                expected=f"a share of {task.measure}, between 0 and 1", got=f"{rule.margin:g}",
                do=f"Did you mean {rule.margin / 100:g}? A point is 0.01.",
            )  # fmt: skip


def folder_of(store: Path) -> Path:
    """Where what a study makes is kept by default: beside its store."""
    return store.with_name(f"{store.name}.made")


def create(name: str, settings: Mapping[str, Any] | None = None) -> Study:
    """The study registered as ``name``.

    Raises:
        UnknownName: If there is none.
        UsageError: If a setting does not fit, or what is registered is no study.
    """
    made = studies.get(name)(dict(settings or {}))
    if not isinstance(made, Study):
        raise UsageError(
            f"The study {name!r} is no study.", where=name, expected="a subclass of Study", got=type(made).__name__
        )
    return made


@final
@dataclass(frozen=True)
class PlannedStudy:
    """A study's plan, with what is needed to run it.

    Attributes:
        task: What members are measured on.
        sources: Specs of the members that are loaded, by fingerprint.
        training: What members are trained on whose recipe brings no examples of its own, where there is something.
    """

    plan: Plan
    task: BaseTask
    sources: Mapping[str, str]
    training: BaseTask | None = None

    def members(self, folder: Path) -> MemberMaker:
        """Who makes or loads its members; what is made is kept in the folder."""
        tasks = {one.digest: one for one in (self.task, self.training) if one is not None}
        return MemberMaker(self.plan.subjects, self.sources, tasks, folder)


def planned(
    study: Study, request: StudyRequest | None = None,
    *, watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PlannedStudy:  # fmt: skip
    """The plan of a study; no member is made.

    Args:
        study: With its settings: what a recipe draws follows from them.
        request: Effort and seed of the audits and readings that are measures of its members, and the level of rules.
        watch: Called with how many nets are drawn up: each takes passes over the examples.

    Raises:
        UnknownName: If a recipe, cohort or metric is not known.
        UsageError: If a rule is dead, its cohorts do not fit it, or the examples lack what a reading is asked for.
        ModelError: If a member cannot be measured on the examples.
    """
    request, spec = (request or StudyRequest()).sound(), study.spec()
    require_sound(spec, alpha=request.alpha)
    cast = study.cast()
    given = [asked.source for one in cast for asked in one.members if asked.source]
    examples = Examples.of(study, given)
    task = examples.task
    require_fractions(spec, task.record)
    planner, every = _MemberPlanner(examples), [(one.name, asked) for one in cast for asked in one.members]
    for done, (cohort, asked) in enumerate(every):
        watch("nets", done, len(every))
        planner.add(asked, where=f"{study.name}, cohort {cohort}")
    records, sources = planner.records, planner.sources
    cohorts = tuple(
        msgspec.structs.replace(cohort, training=planner.training(cohort.members)) for cohort in spec.cohorts
    )
    spec = msgspec.structs.replace(spec, cohorts=cohorts)
    made = Plan(
        command=f"study {study.name}", subjects=tuple(records.values()), task=task.record, audits=(),
        effort=request.effort or Effort(), seed=request.seed, alpha=request.alpha, study=spec,
        sources=tuple(sources.get(record.fingerprint, "") for record in records.values()), data=study.examples,
        versions={name: kind.get(name).version for kind in (perturbations, readings) for name in kind},
        no_controls="The members of a study have no control copies of their own.",
    )  # fmt: skip
    assert planner.first is not None, "a cohort has a member"
    require_named(made, [planner.first], task)  # what readings ask for is of the examples, or of every member
    return PlannedStudy(made, task, sources, examples.training)


def again(plan: Plan, *, allow_code: bool = False) -> PlannedStudy:
    """What is needed to run a plan that was made before.

    Args:
        plan: Of a study.
        allow_code: Whether it may name code, as ``module:callable``, which is run.

    Raises:
        UsageError: If it is not the plan of a study, or names code that is not allowed.
    """
    if plan.study is None or plan.data is None:
        raise UsageError("The plan is not that of a study.", where=plan.command)
    pairs = zip(plan.subjects, plan.sources, strict=True)
    known = {one.fingerprint: source for one, source in pairs if source}
    study = create(plan.study.name, plan.study.settings)
    if not allow_code:
        require_no_code(known.values(), examples=(study.examples, study.training), where=plan.command)
    examples = Examples.of(study, list(known.values()))
    return PlannedStudy(plan, examples.task, known, examples.training)


class _MemberPlanner:
    """Plans the members of a study, one after another: later ones may be made from earlier ones.

    Attributes:
        records: Of all members, by name.
        sources: Where those are that are loaded, by fingerprint.
        first: The first member, loaded or untrained.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples, self.task = examples, examples.task
        self.records: dict[str, SubjectRecord] = {}
        self.sources: dict[str, str] = {}
        self.first: Subject | None = None
        self._asked: dict[str, MemberSpec] = {}
        self._blanks: dict[str, nn.Module] = {}
        self._drawn: dict[str, SubjectRecord] = {}
        self._loaded_for: dict[tuple[str, str], str] = {}
        self._training: dict[str, str] = {}

    def add(self, asked: MemberSpec, *, where: str) -> None:
        """Plans a member; one that is in two cohorts is the same in both."""
        known = self._asked.setdefault(asked.name, asked)
        if known != asked:
            raise UsageError(
                "Two members have the same name.", where=where, expected="another name for each", got=asked.name
            )
        if asked.name in self.records:
            return
        if bool(asked.recipe) == bool(asked.source):
            raise UsageError(
                "A member is made by a recipe or loaded from a source.",
                where=f"{where}, member {asked.name}",
                expected="a recipe or a source",
                got="both" if asked.recipe else "neither",
            )
        self.records[asked.name] = self._loaded(asked, where) if asked.source else self._made(asked, where)

    def training(self, members: Sequence[str]) -> str:
        """What some members were trained on and are measured on, in a sentence; of the first that it is known of."""
        return next((said for name in members if (said := self._training.get(name, ""))), "")

    def _loaded(self, asked: MemberSpec, where: str) -> SubjectRecord:
        try:
            subject = self.examples.subject(asked.source, name=asked.name)
            settle(subject, self.task)
        except WheeltapError as error:
            raise error.at(f"member {asked.name}" + (f": {error.where}" if error.where else "")) from error
        known = self._loaded_for.setdefault((where, subject.record.fingerprint), asked.name)
        if known != asked.name:
            raise UsageError(
                "Two members of a cohort are the same net.",
                where=f"{where}, member {asked.name}",
                expected="other weights for each: the same net twice is one net",
                got=f"the weights of {known}",
                do="Leave one of them out.",
            )
        self.sources[subject.record.fingerprint] = asked.source
        self.first = subject if self.first is None else self.first
        return subject.record

    def _made(self, asked: MemberSpec, where: str) -> SubjectRecord:
        missing = next((name for name in asked.of if name not in self.records), None)
        if missing is not None:
            raise UsageError(
                "A member is made from one that does not come before it.",
                where=f"{where}, member {asked.name}",
                expected=", ".join(self.records) or "an earlier member",
                got=missing,
            )
        of = tuple(self.records[name].fingerprint for name in asked.of)
        spec = recipes.spec(asked.recipe, asked.settings, seed=asked.seed, of=of)
        recipe, at = recipes.recipe_of(spec), f"{where}, member {asked.name}"
        task = self.examples.given(recipe, on_task=asked.on_task, where=at)
        spec = msgspec.structs.replace(spec, data="" if task is None else task.digest)
        self._training[asked.name] = self.examples.checked(
            recipe.lesson(Given(spec, (), task)), memory=asked.on_task or recipe.needs == "measured", where=at
        )
        seed = spec.seed if recipe.shaped_by_seed else 0
        drawn = self._structure(msgspec.structs.replace(spec, seed=seed, of=of), asked)
        return msgspec.structs.replace(drawn, name=asked.name, fingerprint=spec.key, artifact=spec)

    def _structure(self, spec: Any, asked: MemberSpec) -> SubjectRecord:
        """The record of what a recipe makes, from its untrained structure; once for all seeds that give the same."""
        if spec.key not in self._drawn:
            of = tuple(self._blank(name) for name in asked.of)
            given = Given(spec, of, self.examples.named(spec.data), torch.device("cpu"))
            blank = recipes.recipe_of(spec).blank(given)
            subject = Subject(blank, name=asked.name)
            settle(subject, self.task)
            self.first = subject if self.first is None else self.first
            self._drawn[spec.key] = subject.record
        return self._drawn[spec.key]

    def _blank(self, name: str) -> nn.Module:
        """A member's structure, for one that is made from it."""
        if name not in self._blanks:
            asked = self._asked[name]
            if asked.source:
                self._blanks[name] = load_model(asked.source, name=name).model
            else:
                record = self.records[name]
                assert record.artifact is not None, "what is not loaded is made"
                of = tuple(self._blank(one) for one in asked.of)
                given = Given(record.artifact, of, self.examples.named(record.artifact.data), torch.device("cpu"))
                self._blanks[name] = recipes.recipe_of(record.artifact).blank(given)
        return self._blanks[name]
