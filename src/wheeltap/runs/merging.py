"""One store made of those of a plan's shards, and what is missing in it."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import msgspec

from wheeltap.audits.settle import wanted
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Scalar, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.shard import Shard, ShardNote, put_shard_note, shard_note
from wheeltap.plans.store import Outcomes, Store
from wheeltap.runs.stored import again_of, note_run, noted, plan_of, require_audits


@final
@dataclass(frozen=True)
class _Part:
    """A part of a plan, or some that were merged, by what its store says of itself."""

    path: Path
    plan: Plan
    provenance: dict[str, Scalar]
    note: ShardNote | None
    again: str = ""

    @classmethod
    def of(cls, store: Store) -> "_Part":
        key, plan = plan_of(store)
        require_audits(plan, where=str(store.path))
        return cls(store.path, plan, noted(store, key), shard_note(store, key), again_of(store, key))

    def require_alike(self, other: "_Part") -> None:
        """Raises ``UsageError`` if the other was asked something else, or measured in another way."""
        own, others = self._said(), other._said()
        apart = [name for name in own if name in others and own[name] != others[name]]
        if apart:
            raise UsageError(
                "The stores are not parts of one run.", where=f"{self.path}, {other.path}",
                expected="; ".join(f"{name} {own[name]}" for name in apart),
                got="; ".join(f"{name} {others[name]}" for name in apart),
                do="Run every shard with the same file of a plan and the same versions, on machines of one kind, into "
                "new stores: last bits differ else, and of trained nets much more.",
            )  # fmt: skip

    def _said(self) -> dict[str, Scalar]:
        subjects = ", ".join(f"{one.name} ({one.fingerprint[:8]})" for one in self.plan.subjects[:4])
        asked = {"subjects": subjects, "task": self.plan.task.digest[:8], "plan": self.plan.key}
        machine = {} if self.note is None else {"arithmetic": self.note.arithmetic}
        return {**{name: one for name, one in self.provenance.items() if name != "python"}, **asked, **machine}


def begin(store: Store, plan: Plan, note: ShardNote, base: str | Path | None) -> None:
    """Notes whose part a store is, where its provenance was noted, and takes what was merged before.

    Args:
        store: Of the shard.
        plan: What is run.
        note: The shard.
        base: The merged store; one that is not there holds nothing yet.

    Raises:
        UsageError: If the store is another shard's, or the base is of another plan, version or numerical path.
        StoreError: If the base cannot be read.
    """
    before = shard_note(store, plan.key)
    if before is not None and before.shard != note.shard:
        raise UsageError(
            "The store is that of another shard.", where=str(store.path), expected=f"shard {note.shard}",
            got=f"shard {before.shard}" if before.shard else "merged shards", do="Give each shard a store of its own.",
        )  # fmt: skip
    if base is not None and Path(base).exists():
        with Store(base, readonly=True, still=True) as merged:
            _Part(store.path, plan, noted(store, plan.key), note).require_alike(_Part.of(merged))
            store.take([merged])
    put_shard_note(store, plan.key, note)


# ---- merging ------------------------------------------------------------------------------------------------------


class ShardWork(NamedTuple):
    """What a shard has still to run: its trials as far as they are known, and the command, if one began the others."""

    shard: Shard
    trials: tuple[Trial, ...]
    command: str


@final
@dataclass(frozen=True, kw_only=True)
class MergeResult:
    """What merging gave.

    Attributes:
        outcomes: How many the merged store has.
        twice: Trials that two parts had run.
        missing: Trials that are wanted and that no part has run.
        work: The same by shard; none where no part is one.
        another: Whether all shards are there and finished: what is missing follows from what they gave.
        command: Runs all that is missing in one process.
    """

    outcomes: int
    twice: int
    missing: tuple[Trial, ...]
    work: tuple[ShardWork, ...]
    another: bool
    command: str


def merge(parts: Sequence[Path], into: Path) -> MergeResult:
    """Puts what several parts of one plan have measured into one store, all of it or nothing.

    Args:
        parts: Their stores; they stay as they are.
        into: The merged store, which may be there from an earlier round.

    Raises:
        UsageError: If one is given twice, or they are of different plans, models, versions or numerical paths.
        MissingFile: If a part is not there.
        StoreError: If one cannot be read, two have other numbers of one trial, or the disk is full.
    """
    named = Counter(path.resolve() for path in (*parts, into))
    twice = next((str(path) for path, count in named.items() if count > 1), None)
    # A shard that was killed before it began has a store without a plan, and nothing in it.
    found = [] if twice else [_Part.of(store) for store in _opened(parts) if store.plans() or store.foreign()]
    if not found:
        raise UsageError(
            "A store is named twice." if twice else "There is nothing to merge.", where=twice,
            expected="stores of shards, and another file to merge them into",
            got=twice or f"{len(parts)} stores without a plan", do="wheeltap merge part-*.wheeltap -o all.wheeltap",
        )  # fmt: skip
    found.sort(key=lambda one: one.note is None)  # with one that says the most all others are compared
    plan, again = found[0].plan, next((one.again for one in found if one.again), "")
    alone = reworded(again, shard="", base="", store=str(into))
    with Store(into) as whole:
        for other in [*found[1:], *([_Part.of(whole)] if whole.plans() else [])]:
            found[0].require_alike(other)
        both = whole.take(_opened(parts))
        note_run(whole, plan, found[0].provenance, alone)
        if found[0].note is not None:
            put_shard_note(whole, plan.key, msgspec.structs.replace(found[0].note, shard=None))
        known = Outcomes(whole)
        missing = tuple(trial for trial in wanted(plan, known) if known(trial.key) is None)
        outcomes = sum(whole.count().values())
    shards = {one.note.shard: one for one in found if one.note is not None and one.note.shard is not None}
    of = max((shard.of for shard in shards), default=0)
    work, another = list[ShardWork](), bool(missing)
    for shard in (Shard(index, of) for index in range(of)):
        part, own = shards.get(shard), tuple(trial for trial in missing if shard.has(trial))
        another &= part is not None and part.note is not None and part.note.finished
        store = _named(shard, shards, into=into) if part is None else part.path
        command = reworded(again, shard=str(shard), store=str(store), base=str(into))
        work += [ShardWork(shard, own, command)] if own else []
    another = another and of > 0
    return MergeResult(outcomes=outcomes, twice=both, missing=missing, work=tuple(work), another=another, command=alone)


def _named(shard: Shard, known: Mapping[Shard, _Part], *, into: Path) -> Path:
    """A store for a shard that has none: named as another's, where that one's name holds its number once."""
    for other, part in known.items():
        if part.path.stem.count(str(other.index)) == 1:
            return part.path.with_stem(part.path.stem.replace(str(other.index), str(shard.index)))
    return into.with_name(f"{into.stem}-{shard.index}-of-{shard.of}{into.suffix}")


def _opened(paths: Sequence[Path]) -> Iterator[Store]:
    for path in paths:
        with Store(path, readonly=True, still=True) as part:
            yield part


def reworded(command: str, **flags: str) -> str:
    """A command line that has these flags instead of its own of their names; an empty one is left out."""
    words, kept = iter(shlex.split(command)), list[str]()
    for word in words:
        name, same, _ = word.removeprefix("--").partition("=")
        if not (word.startswith("--") and name in flags):
            kept.append(word)
        elif not same:
            next(words, "")
    more = (part for name, value in flags.items() if value for part in (f"--{name}", value))
    return shlex.join([*kept, *more]) if kept else ""
