"""Judging from a store alone: no model, no torch."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from wheeltap.audits.base import audits, studies
from wheeltap.audits.settle import judge as judged
from wheeltap.audits.settle import wanted
from wheeltap.core.bounded import decoded
from wheeltap.core.errors import FileFormatError, StoreError, UsageError
from wheeltap.core.records import Cost, Scalar
from wheeltap.core.settings import checked
from wheeltap.plans.plan import Plan
from wheeltap.plans.shard import shard_note
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report.origin import UNREAD, unfinished
from wheeltap.report.report import Report


@dataclass(frozen=True)
class StoredPlan:
    """A plan in a store.

    Attributes:
        number: From 1, in the order in which they were last run.
        when: Date and time of that in UTC, as text; empty where the store does not say.
        key: What its notes are kept under.
        plan: ``None`` where it was made by another version of wheeltap, and cannot be read.
    """

    number: int
    when: str
    key: str
    plan: Plan | None


def note_run(store: Store, plan: Plan, provenance: dict[str, Scalar], again: str = "") -> None:
    """Keeps a plan that is about to be run, what it is run with, when, and by which command."""
    store.put_plan(plan.key, plan.to_bytes())
    stated = msgspec.json.encode(provenance)
    store.put_note("provenance", stated)
    store.put_note(f"provenance:{plan.key}", stated)
    store.put_note(f"when:{plan.key}", f"{datetime.now(UTC):%Y-%m-%d %H:%M}".encode())
    if again:
        store.put_note(f"again:{plan.key}", again.encode())


def again_of(store: Store, key: str) -> str:
    """The command that resumes the run of a plan; empty where none started it."""
    return (store.note(f"again:{key}") or b"").decode()


def noted(store: Store, key: str) -> dict[str, Scalar]:
    """The provenance kept with the run of a plan; of a run before the last by an older wheeltap, nothing is known."""
    own, last = store.note(f"provenance:{key}"), store.note("provenance")
    note = last if own is None else own
    what, do = "What the store says of its run cannot be read.", "Run the same command again."
    known = decoded(note or b"{}", dict[str, Scalar], store.path, what, expected="names and plain values", do=do)
    return known if known.get("plan", key) == key else {}


def unread(store: Store) -> dict[str, Scalar]:
    """What a report says of outcomes that do not count; nothing where all do."""
    count = store.foreign()
    return (
        {UNREAD: f"outcomes in the store without the mark of your key, which were not read: {count:,}"} if count else {}
    )


def plans_of(store: Store) -> tuple[StoredPlan, ...]:
    """Every plan in a store, the one that was run last at the end."""
    found: list[StoredPlan] = []
    for number, (key, data) in enumerate(store.plans().items(), start=1):
        when = store.note(f"when:{key}")
        try:
            plan = Plan.from_bytes(data, where=str(store.path))
        except FileFormatError:
            plan = None
        found.append(StoredPlan(number, "" if when is None else when.decode(), key, plan))
    return tuple(found)


def plan_of(store: Store, number: int | None = None) -> tuple[str, Plan]:
    """Key and plan: the one of a store that was run last, or that with a number (see ``StoredPlan``).

    Raises:
        StoreError: If nothing was ever run into it.
        UsageError: If there is no plan with this number.
        FileFormatError: If it was made by another version.
    """
    several = list(store.plans().items())
    if not several and store.foreign():
        raise StoreError(
            "The store was not written with your key, so that nothing in it counts.",
            where=str(store.path),
            expected="outcomes that this user measured",
            got=f"{store.foreign():,} of another key, or of a wheeltap without keys",
            do=f"Run the audit again into it; if you trust all who could write it: wheeltap report {store.path} "
            "--trust",
        )
    if not several:
        raise StoreError(
            "The store holds no plan.",
            where=str(store.path),
            do="Run an audit into it first: wheeltap audit ... --store",
        )
    if number is not None and not 1 <= number <= len(several):
        raise UsageError(
            "The store has no plan with this number.",
            where=str(store.path),
            expected="1" if len(several) == 1 else f"1 to {len(several)}",
            got=str(number),
            do=f"See which there are: wheeltap report {store.path}",
        )
    key, data = several[-1 if number is None else number - 1]
    return key, Plan.from_bytes(data, where=str(store.path))


def require_audits(plan: Plan, *, where: str) -> None:
    """Raises ``UsageError`` if an audit of a plan, or its study, is not installed: it came with another package."""
    asked = {audits: [spec.name for spec in plan.audits], studies: [plan.study.name] if plan.study else []}
    for known, names in asked.items():
        missing = next((name for name in names if name not in known), None)
        if missing is not None:
            several = "studies" if known is studies else "audits"
            raise UsageError(
                f"The {known.kind} {missing!r} that this was run with is not installed.",
                where=where,
                expected=f"a package that declares {missing!r} in the entry-point group {known.group!r}",
                got=f"no such {known.kind} here",
                do=f"Install that package in this environment; what it adds is then shown by: wheeltap list {several}",
            )


@checked
def judge(store: str | Path, *, plan: int | None = None, trust: bool = False) -> Report:
    """The report on a plan of a store, from what is there; it says so first if trials are missing.

    Args:
        store: The file.
        plan: Number of the plan, as ``wheeltap report STORE`` lists them; by default the one that was run last.
        trust: Whether what others wrote into it counts from now on, as if this user had measured it.

    Raises:
        MissingFile: If there is no store.
        StoreError: If it cannot be read or holds no plan.
        UsageError: If it has no such plan, or an audit of it is not installed.
    """
    if trust:
        Store(store, readonly=True).close()  # one that is not there is not made
        with Store(store) as kept:
            kept.trust()
    with Store(store, readonly=True) as kept:
        (key, chosen), known = plan_of(kept, plan), Outcomes(kept)
        require_audits(chosen, where=str(store))
        asked = wanted(chosen, known)
        reused = sum(known(trial.key) is not None for trial in asked)
        cost = Cost(forwards=0.0, seconds=0.0, trials=0, reused=reused)
        found = judged(chosen, known, cost=cost, provenance={**noted(kept, key), **unread(kept)})
        note = shard_note(kept, key)
        shard = str(note.shard) if note is not None and note.shard is not None else ""
        return Report(unfinished(found, len(asked) - reused, again=again_of(kept, key), shard=shard))
