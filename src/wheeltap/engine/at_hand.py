"""Who is at hand: the subjects as they were given, members of a study and control copies as they are needed."""

from typing import Protocol, final

from torch import nn

from wheeltap import gauge
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Outcome, SubjectRecord, Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import as_before
from wheeltap.engine.clean import settle, threads_for
from wheeltap.engine.inside.units import few


class Maker(Protocol):
    """Makes the members of a study, or finds what was made before."""

    def module(self, record: SubjectRecord) -> nn.Module:
        """The member, in eval mode.

        Raises:
            WheeltapError: If it cannot be made or read.
        """
        ...

    def make(self, record: SubjectRecord, trial: Trial) -> Outcome:
        """Makes a member where it is not there yet; its outcome holds the digest of its weights."""
        ...


@final
class AtHand:
    """Subjects by fingerprint. Beside those that were given, one member and one copy are held at a time.

    Args:
        subjects: As they were given.
        records: Of members and control copies, each with how it is made.
        task: The examples.
        maker: Of the members.
    """

    def __init__(
        self, subjects: list[Subject], records: tuple[SubjectRecord, ...], task: BaseTask, maker: Maker | None
    ) -> None:
        self._task, self._maker = task, maker
        self._given = {subject.record.fingerprint: subject for subject in subjects}
        self._records = {record.fingerprint: record for record in records}
        self._member: Subject | None = None
        self._copy: Subject | None = None
        self._families: dict[str, gauge.Family | None] = {}

    def given(self, fingerprint: str) -> bool:
        """Whether the subject was given, or is the one held last: nothing has to be made for it."""
        return fingerprint in self._given or any(
            one is not None and one.record.fingerprint == fingerprint for one in (self._member, self._copy)
        )

    def record(self, fingerprint: str) -> SubjectRecord:
        """How a member or copy is made.

        Raises:
            UsageError: If the plan names a subject that is not at hand.
        """
        found = self._records.get(fingerprint)
        if found is None:
            raise self._unknown(fingerprint)
        return found

    def subject(self, fingerprint: str) -> Subject:
        """The subject with this fingerprint; a member is loaded or made, a control copy is made from its base.

        Raises:
            UsageError: If the plan names a subject that is not at hand.
            WheeltapError: If it cannot be made.
        """
        if fingerprint in self._given:
            self._copy = None  # trials come subject by subject: this one may need the memory
            return self._given[fingerprint]
        for held in (self._member, self._copy):
            if held is not None and held.record.fingerprint == fingerprint:
                return held
        record = self.record(fingerprint)
        if record.made is not None and record.base is not None:
            return self._copied(record, record.base)
        return self._made(record)

    def make(self, trial: Trial) -> Outcome:
        """Carries out the making of a member."""
        if self._maker is None:
            raise self._unknown(trial.subject)
        return self._maker.make(self.record(trial.subject), trial)

    def _made(self, record: SubjectRecord) -> Subject:
        if self._maker is None:
            raise self._unknown(record.fingerprint)
        self._member = self._copy = None
        member = Subject(self._maker.module(record), name=record.name)
        settle(member, self._task)
        member.known_as(record)
        self._member = member
        return member

    def _copied(self, record: SubjectRecord, base_of: str) -> Subject:
        self._copy = None
        if base_of not in self._given and base_of not in self._records:
            raise self._unknown(record.fingerprint)
        base, made = self.subject(base_of), record.made
        assert made is not None, "a copy says how it is made"
        with as_before(base), threads_for(record.parameters):  # finding its structure runs its forward
            run = few(self._task, base.model)
            if base_of not in self._families:
                found = gauge.find(base.model, run)
                self._families[base_of] = found if isinstance(found, gauge.Family) else None
            model = gauge.twin(base.model, made, run, family=self._families[base_of])
        self._copy = base.derived(model, record)
        return self._copy

    def _unknown(self, fingerprint: str) -> UsageError:
        return UsageError(
            "The plan names a subject that was not given.",
            where=fingerprint,
            expected=", ".join(s.name for s in self._given.values()),
            do="The model changed since the plan was made: make a new plan.",
        )
