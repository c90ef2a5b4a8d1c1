"""Studies as plans: the members' records without making them, the examples, the rules; then run like any plan."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import msgspec
import torch
from torch import nn

from wheeltap.audits.base import studies
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.records import SubjectRecord
from wheeltap.core.study import Asked, Cast
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import settle
from wheeltap.engine.readings import readings
from wheeltap.perturb import perturbations
from wheeltap.plans.plan import Effort, Plan
from wheeltap.recipes import base as recipes
from wheeltap.recipes.base import Given
from wheeltap.runs.given import alpha_of, whole_of
from wheeltap.runs.held_out import Examples, require_fractions
from wheeltap.runs.members import Members
from wheeltap.runs.named import require_named
from wheeltap.sources.base import require_no_code
from wheeltap.sources.specs import load_model
from wheeltap.studies.base import Study
from wheeltap.studies.rules import require_sound


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
class Planned:
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

    def members(self, folder: Path) -> Members:
        """Who makes or loads its members; what is made is kept in the folder."""
        tasks = {one.digest: one for one in (self.task, self.training) if one is not None}
        return Members(self.plan.subjects, self.sources, tasks, folder)


def planned(
    study: Study, *, effort: Effort | None = None, seed: int = 0, alpha: float = 0.05,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Planned:  # fmt: skip
    """The plan of a study; no member is made.

    Args:
        study: With its settings.
        effort: Draws of the audits that are measures of its members.
        seed: Root of every draw of a disturbance or reading; what a recipe draws follows from the study's settings.
        alpha: Probability of any false ``found`` over all rules together; of any false ``excluded``, likewise.
        watch: Called with how many nets are drawn up: each takes passes over the examples.

    Raises:
        UnknownName: If a recipe, cohort or metric is not known.
        UsageError: If a rule is dead, its cohorts do not fit it, or the examples lack what a reading is asked for.
        ModelError: If a member cannot be measured on the examples.
    """
    seed, alpha, spec = whole_of(seed, name="seed"), alpha_of(alpha), study.spec()
    require_sound(spec, alpha=alpha)
    cast = study.cast()
    given = [asked.source for one in cast for asked in one.members if asked.source]
    examples = Examples.of(study, given)
    task = examples.task
    require_fractions(spec, task.record)
    drafted = _drafted(study.name, cast, examples, watch)
    records, sources = drafted.records, drafted.sources
    cohorts = tuple(
        msgspec.structs.replace(cohort, training=drafted.training(cohort.members)) for cohort in spec.cohorts
    )
    spec = msgspec.structs.replace(spec, cohorts=cohorts)
    made = Plan(
        command=f"study {study.name}", subjects=tuple(records.values()), task=task.record, audits=(),
        effort=effort or Effort(), seed=seed, alpha=alpha, study=spec,
        sources=tuple(sources.get(record.fingerprint, "") for record in records.values()), data=study.examples,
        versions={name: kind.get(name).version for kind in (perturbations, readings) for name in kind},
        no_controls="The members of a study have no control copies of their own.",
    )  # fmt: skip
    assert drafted.first is not None, "a cohort has a member"
    require_named(made, [drafted.first], task)  # what readings ask for is of the examples, or of every member
    return Planned(made, task, sources, examples.training)


def again(plan: Plan, *, allow_code: bool = False) -> Planned:
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
    return Planned(plan, examples.task, known, examples.training)


def _drafted(
    study: str, cast: Sequence[Cast], examples: Examples, watch: Callable[[str, int, int], None]
) -> "_Drafted":
    """All members, without making any."""
    drafted, every = _Drafted(examples), [(one.name, asked) for one in cast for asked in one.members]
    for done, (cohort, asked) in enumerate(every):
        watch("nets", done, len(every))
        drafted.add(asked, where=f"{study}, cohort {cohort}")
    return drafted


class _Drafted:
    """Members as they are drawn up, one after another: later ones may be made from earlier ones.

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
        self._asked: dict[str, Asked] = {}
        self._blanks: dict[str, nn.Module] = {}
        self._drawn: dict[str, SubjectRecord] = {}
        self._loaded_for: dict[tuple[str, str], str] = {}
        self._training: dict[str, str] = {}

    def add(self, asked: Asked, *, where: str) -> None:
        """Draws up a member; one that is in two cohorts is the same in both."""
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

    def _loaded(self, asked: Asked, where: str) -> SubjectRecord:
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

    def _made(self, asked: Asked, where: str) -> SubjectRecord:
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

    def _structure(self, spec: Any, asked: Asked) -> SubjectRecord:
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
