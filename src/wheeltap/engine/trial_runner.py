"""Trials carried out on the subjects of a plan: those given, members of a study, and control copies.

They are grouped so that each model is made, measured and put back once, and committed one by one.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError, WheeltapError
from wheeltap.core.fingerprint import tensor_digests
from wheeltap.core.interrupts import uninterrupted
from wheeltap.core.records import Outcome, OutcomeStatus, SubjectRecord, Subset, Trial
from wheeltap.core.sets import JoinedTask, facts, measured
from wheeltap.core.settings import LARGE, SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine import readings
from wheeltap.engine.activations import NoCache, require_whole
from wheeltap.engine.apply import Disturbance, Knowledge, preserved_state
from wheeltap.engine.clean import clean_scores, raised, require_repeatable, scores_of, settle, threads_for
from wheeltap.engine.fast.folded import CACHE_BYTES
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.lent_memory import LentMemory
from wheeltap.engine.maker import Maker
from wheeltap.engine.needs.gather import gather, of_another
from wheeltap.engine.needs.moments import MOMENT_BYTES
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.engine.next_tokens import NextTokens
from wheeltap.engine.readings.census import outliers
from wheeltap.engine.shipped import Shelf, answered, tensors_of
from wheeltap.engine.units import probe_run
from wheeltap.perturb import Perturbation, create
from wheeltap.plans.readings.census import CENSUS

_OF_THE_SUBJECT = ("moments", "inputs", "heads", "slopes")
"""What is read from the subject and task alone, whatever the perturbation's settings."""

_HELD = 2**23  # weights of members that are held from one round of trials to the next

_Part = tuple[BaseTask, NDArray[np.intp]]
"""A part of the task: its examples as a task of their own, and their indices."""


@final
class TrialRunner:
    """Carries out trials on the subjects of a plan.

    At most one member (or some small ones), one control copy, and the layer moments of one large subject, are held at
    a time: memory stays near that of the largest subject and one copy.

    Args:
        subjects: The models at hand.
        records: Of members and control copies, each with how it is made.
        task: The examples.
        memory: Bytes that may be used beside the models themselves; what does not fit goes a slower way.
        maker: Of the members.
        shelf: Of files as they are shipped.

    Attributes:
        given: The models at hand, by fingerprint.
        forwards: Passes over the examples so far.
        proven: Digests of the tensors of each of them that came back as it was.
    """

    def __init__(
        self,
        subjects: list[Subject],
        records: tuple[SubjectRecord, ...],
        task: BaseTask,
        *,
        memory: int | None = None,
        maker: Maker | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.task, self._maker, self._shelf = task, maker, shelf
        self._cache_bytes = CACHE_BYTES if memory is None else memory // 2
        self._moment_bytes = MOMENT_BYTES if memory is None else memory // 2
        self.given = {subject.record.fingerprint: subject for subject in subjects}
        self._records = {record.fingerprint: record for record in records}
        self._members: dict[str, Subject] = {}
        self._copy: Subject | None = None
        self._lent: LentMemory | None = None
        self._lends = False
        self._families: dict[str, gauge.Family | None] = {}
        self._known: dict[tuple[str, ...], Knowledge | WheeltapError] = {}
        self._clean: dict[str, Tensor] = {}
        self.proven: dict[str, dict[str, str]] = {}
        self._tokens = NextTokens(task, memory=memory)
        self._prefix: tuple[str, PrefixCache] | None = None
        self._part: tuple[tuple[int, Subset], _Part] | None = None
        self.forwards = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Another process makes again what is held to save time: copies of weights, functions that cannot be sent.
        held = dict.fromkeys(("_copy", "_lent", "_prefix", "_part"))
        return {**self.__dict__, **held, "_members": {}, "_known": {}, "_families": {}}

    def subject(self, fingerprint: str) -> Subject:
        """The subject with this fingerprint; a member is loaded or made, a control copy is made from its base.

        Raises:
            UsageError: If the plan names a subject that is not at hand.
            WheeltapError: If it cannot be made.
        """
        if fingerprint in self.given:
            self._drop_copy()  # trials come subject by subject: this one may need the memory
            return self.given[fingerprint]
        for held in (self._members.get(fingerprint), self._copy):
            if held is not None and held.record.fingerprint == fingerprint:
                return held
        self._prefix = None
        record = self._records.get(fingerprint)
        if record is None:
            raise self._unknown(fingerprint)
        self._make_room(record)
        if record.made is None or record.base is None:
            if self._maker is None:
                raise self._unknown(fingerprint)
            self._drop_copy()
            if record.parameters + sum(one.record.parameters for one in self._members.values()) > _HELD:
                self._members.clear()  # before the next one is made
            member = Subject(self._maker.module(record), name=record.name)
            settle(member, self.task)
            member.known_as(record)
            self._members[fingerprint] = member
            return member
        self._drop_copy()
        if record.base not in self.given and record.base not in self._records:
            raise self._unknown(fingerprint)
        base = self.subject(record.base)
        with preserved_state(base), threads_for(record.parameters):  # finding its structure runs its forward
            run = probe_run(self.task, base.model)
            if record.base not in self._families:
                found = gauge.find(base.model, run)
                self._families[record.base] = found if isinstance(found, gauge.Family) else None
            if lending := self._lends and base.contents is not None:
                self._lent = LentMemory(base, self.proven.get(record.base) or tensor_digests(base.model))
            model = gauge.twin(base.model, record.made, run, family=self._families[record.base], emptied=lending)
        self._copy = base.derived(model, record)
        return self._copy

    @contextmanager
    def lending(self) -> Generator[None]:
        """While the block runs, a control copy has the memory of its base, where that can be read again from a file."""
        self._lends = True
        try:
            yield
        finally:
            self._lends = False
            if self._lent is not None:
                self._drop_copy()

    @uninterrupted()
    def _drop_copy(self) -> None:
        """Lets go of the control copy; a base that lent it its memory gets it back."""
        copied, self._copy = self._copy, None
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.give_back(None if copied is None else copied.model)

    def _unknown(self, fingerprint: str) -> UsageError:
        return UsageError(
            "The plan names a subject that was not given.",
            where=fingerprint,
            expected=", ".join(s.name for s in self.given.values()),
            do="The model changed since the plan was made: make a new plan.",
        )

    def make(self, trial: Trial, batch: Sequence[Trial]) -> Outcome:
        """The making of a member of a batch: ``done`` with the digest of its weights, or how its training ended.

        Raises:
            WheeltapError: If it cannot be made at all.
        """
        if self._maker is None or trial.subject not in self._records:
            raise self._unknown(trial.subject)
        return self._maker.make(self._records[trial.subject], trial, batch)

    def batches(self, trials: Sequence[Trial], *, parts: int = 1) -> list[list[Trial]]:
        """Makings in batches: see ``Maker.together``."""
        return [[one] for one in trials] if self._maker is None else self._maker.together(trials, parts=parts)

    def know_clean(self, fingerprint: str, scores: NDArray[np.float32]) -> None:
        """Takes a subject's undisturbed scores from a store."""
        self._clean[fingerprint] = to_tensor(scores.copy())

    def clean(self, subject: Subject) -> Tensor:
        """The subject's undisturbed scores ``[example, option]``; one pass where they are not known yet."""
        fingerprint = subject.record.fingerprint
        if fingerprint not in self._clean:
            self._clean[fingerprint] = self.scores(subject)
        return self._clean[fingerprint]

    def scores(self, subject: Subject, *, share: float = 1.0, chosen: _Part | None = None) -> Tensor:
        """One pass over the task or the ``chosen`` part, or the ``share`` of one that a prefix cache leaves.

        Where memory runs out it is tried again with half of the batch, down to single examples.
        """
        self.forwards += share
        return scores_of(subject.model, self.task if chosen is None else chosen[0])

    def chosen(self, trial: Trial) -> _Part | None:
        """The part of the task that a trial is measured on; the last one made is kept, for the doses of a draw."""
        if trial.subset is None:
            return None
        about = (trial.root, trial.subset)
        if self._part is None or self._part[0] != about:
            index = trial.subset.examples(len(self.task.targets), root=trial.root)
            self._part = (about, (self.task.part(to_tensor(index)), index))
        return self._part[1]

    def prefix(self, subject: Subject) -> PrefixCache:
        """The subject's recorded block outputs; made in one clean pass when first asked for."""
        fingerprint = subject.record.fingerprint
        if self._prefix is None or self._prefix[0] != fingerprint:
            self._prefix = None  # freed before the next one is made
            cache = PrefixCache(subject, self.task.scores, limit=self._cache_bytes)
            self.forwards += cache.spent
            self._prefix = (fingerprint, cache)
        return self._prefix[1]

    def knowledge(self, subject: Subject, perturbation: Perturbation) -> Knowledge:
        """What a perturbation needs to know of a subject; read when first asked for, and kept for the next trials.

        Raises:
            WheeltapError: If it cannot be read from this task.
        """
        needs, settings = perturbation.needs, perturbation.settings
        how = "" if needs in _OF_THE_SUBJECT else str(msgspec.to_builtins(settings))
        about = (subject.record.fingerprint, needs, how)
        if about not in self._known:
            self._make_room(subject.record)
            try:
                if needs == "other":
                    also = self.subject(settings.also) if settings.also else None
                    self._known[about] = of_another(subject, self.subject(settings.other), also)
                elif needs == "tuned":
                    self._known[about] = TuningCopy(subject, self.task, settings)
                else:
                    self._known[about] = known = gather(needs, subject, self.task, limit=self._moment_bytes)
                    self.forwards += known.forwards
            except WheeltapError as error:
                self.forwards += 1.0
                self._known[about] = error
        found = self._known[about]
        if isinstance(found, WheeltapError):
            raise found
        return found

    def _make_room(self, record: SubjectRecord) -> None:
        """Lets go of what is known so far where it may be large: before more is read, and before a copy is made."""
        if record.parameters >= SMALL:
            self._known.clear()

    def reading(self, trial: Trial) -> Outcome:
        """One reading of the undisturbed subject.

        Raises:
            WheeltapError: If it is not defined on this subject or task.
        """
        began = time.perf_counter()
        if isinstance(self.task, JoinedTask) and trial.perturbation != CENSUS.name:
            raise UsageError(
                "This is read on one test set at a time.", where=f"{trial.perturbation}: {self.task.name}",
                got=f"{len(self.task.parts)} test sets", do="Audit the sets one by one.",
            )  # fmt: skip
        subject = self.subject(trial.subject)
        reading = readings.create(trial.perturbation, trial.settings)
        read = reading.read(subject, self.task, root=trial.root, seed=trial.seed)
        self.forwards += read.forwards
        values = reading.spec.typed(read.values, examples=len(self.task.targets))
        finite = all(np.isfinite(array).all() for array in values.values())
        return Outcome(
            key=trial.key,
            status="done" if finite else "diverged",
            values=values if finite else {},
            seconds=time.perf_counter() - began,
            forwards=read.forwards,
            because="" if finite else "What was read is not finite.",
            path=read.path,
        )

    def shipped(self, trial: Trial) -> Outcome:
        """A look at a file that was made from a subject to be shipped.

        Raises:
            WheeltapError: If it cannot be read, or is not what was planned.
        """
        if self._shelf is None:
            raise self._unknown(str(trial.settings["file"]))
        self._prefix = None  # the file's model needs the memory
        self._members.clear()
        self._drop_copy()
        subject = self.subject(trial.subject)
        if trial.perturbation == "weights":
            return tensors_of(trial, subject, self._shelf)
        self._tokens.know(subject.record.fingerprint, partial(self.scores, subject))
        outcome = answered(trial, subject, self.clean(subject), self.task, self._shelf, tokens=self._tokens)
        self.forwards += outcome.forwards
        return outcome

    def baseline(self, trial: Trial) -> Outcome:
        """A clean pass, with its raw scores kept beside the measures.

        A second one of a large subject is the pass that settled it.

        Raises:
            ModelError: If the outputs are not finite, or differ from an earlier clean pass.
        """
        began = time.perf_counter()
        subject = self.subject(trial.subject)
        settled = subject.settled if subject.settled is not None and subject.settled.task == self.task.digest else None
        if trial.seed and settled is not None and subject.record.parameters >= LARGE:
            scores, spent = settled.scores, 0.0
        else:
            scores = self._tokens.clean(subject.record.fingerprint, partial(clean_scores, subject, self.task))
            spent = 1.0
        self.forwards += spent
        if not bool(torch.isfinite(scores).all()):
            bad = int((~torch.isfinite(scores)).any(1).nonzero()[0])
            corrupt = "; ".join(str(outlier) for outlier in outliers(subject.model)[:3])
            raise ModelError(
                "The model's outputs are not finite before anything was disturbed.",
                where=f"{subject.name}, example {bad}",
                expected="finite scores",
                got=", ".join(f"{float(score):g}" for score in scores[bad][:4]),
                do=f"Look at what stands out by its size first: {corrupt}."
                if corrupt
                else "Check the model, its dtype and the task's inputs.",
            )
        if settled is not None:
            require_repeatable(subject, settled.scores, scores)
        require_repeatable(subject, self._clean.setdefault(subject.record.fingerprint, scores), scores)
        values = self.measured(subject, scores)
        for name, array in values.items():
            infinite = ~np.isfinite(array)
            if infinite.any():
                raise UsageError(
                    "The measure is infinite before anything was disturbed.",
                    where=f"{name}: example {int(infinite.argmax())} of {subject.name}",
                    expected="finite values",
                    got=f"infinite for {int(infinite.sum())} of {len(array)} examples",
                    do="Check the scale of the model's outputs and of the targets; let a logarithm begin above 0.",
                )
        values |= facts(self.task, scores)
        return Outcome(key=trial.key, status="done", values=values, seconds=time.perf_counter() - began, forwards=spent)

    def measured(self, subject: Subject, scores: Tensor, chosen: _Part | None = None) -> dict[str, NDArray[np.float32]]:
        """Every measure's value per example, of the whole task or the ``chosen`` part."""
        clean, task = self.clean(subject), self.task
        if chosen is not None:
            clean, task = clean[chosen[1]], chosen[0]
        return {name: to_array(values) for name, values in measured(task, scores, clean).items()}

    def disturbed(self, trial: Trial, disturbance: Disturbance, *, share: float = 1.0, keep: bool = False) -> Outcome:
        """One trial inside an entered disturbance. Diverging and failing are statuses, not exceptions."""
        began = time.perf_counter()
        subject, chosen = disturbance.subject, self.chosen(trial)
        path = "prefix cached" if share < 1.0 else ""
        share *= 1.0 if chosen is None else len(chosen[1]) / len(self.task.targets)
        status, values, because = "done", {}, ""
        known = disturbance.knowledge
        before = known.forwards
        try:
            disturbance.apply(trial.dose, root=trial.root, seed=trial.seed, keep=keep)
            compared = self._tokens.asked(trial, disturbance.perturbation)
            run = partial(self.scores, subject, share=share, chosen=chosen)
            scores, beside = self._tokens.compared(run) if compared else (run(), dict[str, NDArray[Any]]())
            if disturbance.hooks is not None:
                disturbance.hooks.require_cached()
            extent = (disturbance.relative_norm, disturbance.coverage, disturbance.reach)
            status, values, because = self._result(subject, scores, extent, chosen)
            because = because or disturbance.untouched
            if values:
                index = torch.arange(len(self.task.targets)) if chosen is None else to_tensor(chosen[1])
                more = known.kept(scores, index, root=trial.root, seed=trial.seed)
                values |= beside | {name: to_array(array) for name, array in more.items()}
        except Exception as error:
            # Whatever a model's own code raises: the other trials go on.
            status, because = "skipped" if isinstance(error, NoCache) else "failed", raised(error)
        spent = known.forwards - before
        self.forwards += spent
        return Outcome(
            key=trial.key,
            status=status,
            values=values,
            seconds=time.perf_counter() - began,
            forwards=share + spent,
            because=because,
            path=path,
        )

    def _result(
        self,
        subject: Subject,
        scores: Tensor,
        extent: tuple[float | None, float | None, float | None],
        chosen: _Part | None = None,
    ) -> tuple[OutcomeStatus, dict[str, NDArray[np.float32]], str]:
        """Status, values and reason of a disturbed subject's scores.

        Args:
            subject: The subject.
            scores: ``[example, option]``.
            extent: ||change|| / ||weights||, coverage and reach; see ``Disturbance.apply``.
            chosen: Which examples they are of.
        """
        if bool(torch.isfinite(scores).all()):
            values = self.measured(subject, scores, chosen)
            for name, number in zip(("relative_norm", "coverage", "reach"), extent, strict=True):
                # In the type of a store, so that a run that is resumed says the same to the bit; a flipped bit may have
                # made the norm infinite.
                if number is not None and number < np.finfo(np.float32).max:
                    values[name] = np.array(number, dtype=np.float32)
            if all(np.isfinite(array).all() for array in values.values()):
                return "done", values, ""
        return "diverged", {}, "The disturbed model's outputs are not finite."

    def disturbance(self, trial: Trial) -> Disturbance:
        """The disturbance a trial asks for, ready to enter.

        Raises:
            WheeltapError: If it cannot be made on this subject or task.
        """
        subject = self.subject(trial.subject)
        perturbation = create(trial.perturbation, trial.settings)
        self.clean(subject)  # now: once the weights are disturbed, a pass is no longer a clean one
        if self._tokens.asked(trial, perturbation):
            self._tokens.know(subject.record.fingerprint, partial(self.scores, subject))
        known = self.knowledge(subject, perturbation) if perturbation.needs else None
        require_whole(perturbation, trial.site)
        found = Disturbance(subject, perturbation, trial.site, known)
        found.require_layers(trial.site)
        return found
