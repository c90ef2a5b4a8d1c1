"""What is known of a task's examples besides what is scored: groups, factors, symmetry, votes, and what suites add."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.errors import DataError
from wheeltap.core.records import OWN
from wheeltap.core.symmetry import Symmetry

TEMPLATE, IN_ORDER = "share a template, prefix or passage", "follow each other in the file and are scored alike"
"""How examples belong together whose texts are alike, or whose scores depend on those before."""


class Annotation(ABC):
    """What a suite or another package knows of each example of a task, in their order: ``task.with_annotation(one)``.

    A task has at most one of each class, found by it: ``task.annotation(Class)``. Of a task with any, no example is
    left out as a repeat.

    Attributes:
        name: A plural noun for messages ("pairs"). Digests come in the order of names.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of all that readings may use: it is part of the task's own."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def part(self, index: Sequence[int]) -> Self:
        """The same of the examples ``index`` alone, in this order."""


@final
@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Knowledge that readings and statistics use and scores do not.

    Attributes:
        behaviors: The behavior that each example is one of, integer ``[example]``, where it is not its right option.
        groups: Which examples come together (of one template, passage or speaker), integer ``[example]``: they are
            then the sample, and examples within them are not independent.
        found: How groups that were noticed, not declared, belong together, in words; empty where they were declared.
        factors: For each factor its value per example, integer ``[example]``.
        symmetry: The group that moves examples (and outputs) into each other.
        votes: How many people chose each option, integer ``[example, option]``.
        ordinal: Whether the options of the votes are in an order, with equal steps between them.
        others: What suites and other packages know, one of each class, in the order of their names.

    Raises:
        DataError: If a factor is called what only readings may call one.
    """

    behaviors: Tensor | None = None
    groups: Tensor | None = None
    found: str = ""
    factors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    symmetry: Symmetry | None = None
    votes: Tensor | None = None
    ordinal: bool = False
    others: tuple[Annotation, ...] = ()

    def __post_init__(self) -> None:
        if OWN in self.factors:
            raise DataError(
                "A factor of the examples has a name that is taken.",
                where=f"factor {OWN!r}",
                expected="another name: this one is that of a control, which is made of the outputs",
                got=repr(OWN),
                do="Give the factor another name.",
            )

    @property
    def digests(self) -> list[str]:
        """One for each annotation; none where nothing is known."""
        named = (("groups", self.behaviors), ("clusters", self.groups))  # the first as in stores written before
        groups = [tensor_digest(name, values) for name, values in named if values is not None]
        factors = [tensor_digest(f"factor {name}", values) for name, values in sorted(self.factors.items())]
        votes = [] if self.votes is None else [tensor_digest("ordinal votes" if self.ordinal else "votes", self.votes)]
        symmetry = [] if self.symmetry is None else [self.symmetry.digest]
        return [*groups, *factors, *symmetry, *votes, *(one.digest for one in self.others)]

    def slices(self, targets: Tensor) -> dict[str, NDArray[np.int32]]:
        """What divides the examples, ``[example]`` by name: right options are ``class``, then behaviors and factors.

        Of whole numbers that 32 bits hold.
        """
        several = {"class": targets} if targets.ndim == 1 and not targets.is_floating_point() else {}
        several |= {} if self.behaviors is None else {"behavior": self.behaviors}
        held = {name: values.cpu().numpy() for name, values in {**several, **self.factors}.items()}
        return {name: one.astype(np.int32) for name, one in held.items() if abs(one).max(initial=0) < 2**31}

    def part(self, index: Tensor) -> "Annotations":
        """What is known of the examples ``index`` alone: a symmetry does not outlive division."""
        at = index.cpu()
        return Annotations(
            behaviors=None if self.behaviors is None else self.behaviors[at],
            groups=None if self.groups is None else self.groups[at],
            found=self.found,
            factors={name: values[at] for name, values in self.factors.items()},
            votes=None if self.votes is None else self.votes[at],
            ordinal=self.ordinal,
            others=tuple(one.part([int(row) for row in at]) for one in self.others),
        )


def outermost(groups: Sequence[Any] | NDArray[Any] | Tensor) -> Sequence[Any] | NDArray[Any] | Tensor:
    """Of groups within groups ``[example, level]`` the outermost: examples that share it are not independent.

    Names are numbered in order of their first use.

    Raises:
        DataError: If no level holds all others, or a name is empty.
    """
    given = np.asarray(groups.cpu() if isinstance(groups, Tensor) else groups)
    if given.dtype.kind in "USO" and given.ndim in (1, 2) and all(isinstance(one, str) for one in given.flat):
        if nameless := int((given == "").sum()):
            raise DataError("Some examples have no group.", expected="a name for each", got=f"{nameless} empty names",
                            do="Give an example that shares nothing a name of its own.")  # fmt: skip
        numbers = {name: at for at, name in enumerate(dict.fromkeys(given.flat))}
        given = np.vectorize(numbers.__getitem__, otypes=[np.int64])(given)
    if given.ndim != 2 or given.dtype.kind not in "iu" or not given.size:
        return given
    columns = [np.unique(column, return_inverse=True)[1] for column in given.T]
    outer = min(columns, key=lambda column: int(column.max()))
    for at, inner in enumerate(columns):
        if len(np.unique(np.stack([outer, inner]), axis=1).T) != int(inner.max()) + 1:
            raise DataError(
                "The groups are not nested.",
                expected="that each inner group lies in one outer group",
                got=f"level {at + 1} has groups in several outer ones",
                do="Give the groups that were sampled: all examples that share anything belong to one.",
            )
    return outer


def checked_groups(groups: Sequence[Any] | NDArray[Any] | Tensor, *, examples: int, where: str) -> Tensor:
    """Groups (values of a factor) as integers, one per example.

    Raises:
        DataError: If they are not whole numbers, or their number is another.
    """
    try:
        given = torch.as_tensor(groups).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            "The groups are not numbers.",
            where=where,
            expected=f"{examples} whole numbers, one per example",
            got=f"{type(groups).__name__}: {' '.join(str(error).split())[:120]}",
            do="Number the names: names = sorted(set(groups)), then [names.index(group) for group in groups].",
        ) from error
    if given.shape != (examples,) or given.is_floating_point() or given.is_complex():
        raise DataError(
            "The groups do not fit the examples.",
            where=where,
            expected=f"{examples} whole numbers, one per example",
            got=f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}",
            do="Number the groups, and give each example the number of its own.",
        )
    return given.long()


def checked_votes(votes: Sequence[Any] | NDArray[Any] | Tensor, *, examples: int, where: str) -> Tensor:
    """Votes as integers, a row per example.

    Raises:
        DataError: If they are not counts, their number is another, or nobody voted on an example.
    """
    try:
        given = torch.as_tensor(votes).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_votes(where, examples, f"{type(votes).__name__}: {' '.join(str(error).split())[:120]}") from error
    if given.ndim != 2 or given.shape[1] < 2 or given.is_floating_point() or given.is_complex():
        raise _no_votes(where, examples, f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}")
    if len(given) != examples:
        raise _no_votes(where, examples, f"{len(given)} rows")
    counts = given.long()
    silent = torch.nonzero((counts < 0).any(1) | (counts.sum(1) == 0)).flatten()
    if len(silent):
        named = ", ".join(str(int(at) + 1) for at in silent[:5])
        raise _no_votes(where, examples, f"negative counts, or none at all, for {len(silent)} examples: {named}")
    return counts


def _no_votes(where: str, examples: int, got: str) -> DataError:
    return DataError(
        "The votes do not fit the examples.",
        where=where,
        expected=f"whole numbers [{examples}, options]: how many people chose each option of an example, one at least",
        got=got,
        do="Count the people of each example by the option they chose; leave examples out on which nobody voted.",
    )


def tensor_digest(kind: str, tensor: Tensor) -> str:
    """Digest of a tensor's dtype, shape and values."""
    held = tensor.detach().cpu()
    if held.dtype is torch.bfloat16:
        # numpy knows no bfloat16: its bits, under a name of their own.
        return canon.array_digest(f"bfloat16 {kind}", held.view(torch.int16).numpy())
    return canon.array_digest(kind, held.numpy())
