"""A shard: the share of a plan's trials that one of several machines runs, and what its store says of it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import msgspec

from wheeltap.core.bounded import decoded
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Trial
from wheeltap.plans.store import Store

_FORM: Final = re.compile(r"(auto|\d{1,9})(?:/(\d{1,9}))?")
_VARIABLES: Final = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
                     "SLURM_ARRAY_TASK_MAX")  # fmt: skip


@final
@dataclass(frozen=True)
class Shard:
    """The trials of a plan whose keys leave one remainder: nothing else decides whose a trial is.

    Attributes:
        index: From 0.
        of: How many shards there are.
    """

    index: int
    of: int

    def has(self, trial: Trial) -> bool:
        """Whether this one runs it. All clean passes of a subject are one shard's, for they are compared."""
        first = msgspec.structs.replace(trial, seed=0) if trial.kind == "clean" else trial
        return int(first.key, 16) % self.of == self.index

    def __str__(self) -> str:
        """As it is asked for."""
        return f"{self.index}/{self.of}"


def shard_of(
    text: str | None, *, store: object, base: object = None, environment: Mapping[str, str] = os.environ
) -> Shard | None:
    """The shard that ``3/8``, ``auto/8`` or ``auto`` asks for; ``None`` where none is asked for.

    Args:
        text: As it was given.
        store: Where its outcomes go.
        base: What it goes on from.
        environment: Variables that SLURM or Kubernetes set.

    Raises:
        UsageError: If it is none, there are fewer, its outcomes would go nowhere, or a base goes with no shard.
    """
    found = _FORM.fullmatch(text or "auto/1")
    if found is None or (found[1] != "auto" and not found[2]) or (text is None and base is not None):
        raise UsageError(
            "The shard cannot be read." if text else "A base is for shards.", where="--shard",
            expected="0/8 to 7/8; auto/8 where SLURM or Kubernetes say which of the eight; auto in a SLURM array",
            got=text or f"none, and --base {base}",
        )  # fmt: skip
    if text is None:
        return None
    index, of = (found[1], found[2]) if found[1] != "auto" else _scheduled(found[2], environment)
    if not int(index) < int(of):
        raise UsageError(
            "There is no such shard.", where="--shard", expected=f"a number from 0 to {max(int(of) - 1, 0)}",
            got=f"{index} of {of}", do="Shards are counted from 0: 0/8 is the first of eight, and --array=0-7 all.",
        )  # fmt: skip
    if store is None:
        raise UsageError(
            "A shard needs a store of its own.", where=f"--shard {text}", expected="a file that no other shard writes",
            do=f"Name one: --store part-{index}.wheeltap",
        )  # fmt: skip
    return Shard(int(index), int(of))


def _scheduled(of: str | None, environment: Mapping[str, str]) -> tuple[str, str]:
    """Index and number of shards, from what SLURM or Kubernetes say of this process."""
    said = {name: environment[name] for name in _VARIABLES if re.fullmatch(r"\d{1,9}", environment.get(name, ""))}
    task, pod, count, least, most = map(said.get, _VARIABLES)
    if of and (task or pod):
        return task or pod or "", of
    first = int(least or 0)
    if task and count and int(most or first + int(count) - 1) - first + 1 == int(count):
        return str(int(task) - first), count
    raise UsageError(
        "The scheduler does not say which shard this is.", where=f"--shard auto/{of}" if of else "--shard auto",
        expected=" or ".join(_VARIABLES[:2]) if of else " and ".join(_VARIABLES[::2]),
        got=", ".join(f"{name}={value}" for name, value in said.items()) or "none of them",
        do=f"Outside of SLURM arrays and indexed jobs of Kubernetes say which it is: --shard 0/{of}." if of else
        "Say how many there are: --shard auto/8. A part of an array, and a Kubernetes job, do not say it.",
    )  # fmt: skip


class ShardNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of its part of a plan.

    Attributes:
        shard: ``None`` where several were merged.
        arithmetic: Of the machine: last bits depend on it.
        finished: Whether it ran all that it could know of.
    """

    shard: Shard | None
    arithmetic: str
    finished: bool = False


def shard_note(store: Store, key: str) -> ShardNote | None:
    """What a store says of the shard of a plan that was run into it; ``None`` where none was."""
    note = store.note(f"shard:{key}")
    what, do = "What the store says of its shard cannot be read.", "Run the shard into a new --store."
    said = "a shard, and of which machine"
    return None if note is None else decoded(note, ShardNote, store.path, what, expected=said, do=do)


def put_shard_note(store: Store, key: str, note: ShardNote) -> None:
    """Keeps what a store says of its part of a plan."""
    store.put_note(f"shard:{key}", msgspec.json.encode(note))
