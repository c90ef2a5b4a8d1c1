"""Tasks: fixed-order, digested examples, and what the benchmark would score."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import canon, repeats
from wheeltap.core import measure as measures
from wheeltap.core.annotations import (
    TEMPLATE,
    Annotation,
    Annotations,
    checked_groups,
    checked_votes,
    outermost,
    tensor_digest,
)
from wheeltap.core.batching import Batched, checked_size
from wheeltap.core.errors import DataError
from wheeltap.core.inputs import (
    Inputs,
    Moments,
    answered,
    as_inputs,
    as_scores,
    as_tensor,
    chosen,
    count,
    flat,
    lengths_of,
    require_short,
    shapes,
    split,
    tensors,
)  # fmt: skip
from wheeltap.core.measure import Measure
from wheeltap.core.records import TaskRecord
from wheeltap.core.repeats import lookalikes, sizes_of
from wheeltap.core.settings import checked, name_of
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.targets import (
    flattened,
    mean_loss,
    read,
    require_finite,
    require_fit,
    require_fitting,
    require_scores,
    require_targets,
)
from wheeltap.core.typed import to_array, to_tensor

Kind = TypeVar("Kind", bound="BaseTask")
Known = TypeVar("Known", bound=Annotation)

Watch = Callable[[Sequence[Hashable], Tensor], None]
"""What is shown the log-probabilities ``[place, token]`` of next tokens at some places of a task, as a pass goes."""

_CHOSEN = {
    "label_accuracy": "scored as several labels", "iou": "scored as masks", "token_accuracy": "scored as tokens",
}  # fmt: skip
"""How a report says that a measure follows from targets that are no plain classes or numbers."""

_MANY = 0.5
"""Share of the examples from which their most common answer has a name."""


class BaseTask(Batched, ABC):
    """What every task offers the engine.

    Attributes:
        name: For reports.
        targets: Index of the right option per example; or floating point: wanted outputs, labels, relevance, masks.
        measure: What the benchmark would score.
        chosen: Whether that follows from the targets, and was not asked for.
        annotations: What else is known of the examples: ``with_groups``, ``with_behaviors``, ``with_factors``,
            ``with_symmetry``, ``with_votes``, ``with_annotation``.
        more: Further inputs, which serve only to estimate layer moments.
        repeats: How many examples that repeat others were left out: see ``once``.
        watch: What a pass shows distributions of next tokens, where the task reads some: see ``places``.
        left_out: How many examples were left out, to which the measure gives no number.
    """

    name: str
    targets: Tensor
    measure: Measure
    annotations: Annotations = Annotations()
    more: Any = None
    repeats: int = 0
    watch: Watch | None = None
    chosen: bool = False
    left_out: int = 0

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of examples, order, targets and scoring rule; of the annotations where they were given."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Digest of the input of each example, whatever its right answer; empty where examples cannot be distinguished.

        A copy in another precision, or one that is filled up otherwise, is the same example.
        """
        return ()

    def with_behaviors(self: Kind, behaviors: Sequence[Any] | NDArray[Any] | Tensor) -> Kind:
        """The same examples, with the behavior that each is one of: without this, its group, or its right option.

        Args:
            behaviors: Integers ``[example]``.

        Raises:
            DataError: If they have another length, or are not whole numbers.
        """
        checked = checked_groups(behaviors, examples=len(self.targets), where=self.name)
        return self._annotated(replace(self.annotations, behaviors=checked))

    def with_groups(self: Kind, groups: Sequence[Any] | NDArray[Any] | Tensor) -> Kind:
        """The same examples, with what each shares with others: a template, a passage, a document, a speaker.

        Every interval and test is then over groups. Groups that are the right options are kinds, and no sample.

        Args:
            groups: Integers or names ``[example]``, or ``[example, level]`` of groups within groups.

        Raises:
            DataError: If they have another length, are neither whole numbers nor names, or are not nested.
        """
        checked = checked_groups(outermost(groups), examples=len(self.targets), where=self.name)
        return self._annotated(replace(self.annotations, groups=checked, found=""))

    def with_noticed(self: Kind, groups: Tensor, how: str) -> Kind:
        """The same examples, in groups that were noticed and that belong together in this way; no behaviors."""
        return self._annotated(replace(self.annotations, groups=groups, found=how))

    def with_factors(self: Kind, factors: Mapping[str, Sequence[Any] | NDArray[Any] | Tensor]) -> Kind:
        """The same examples, of which these factors are known too.

        Args:
            factors: Name to integers ``[example]``.

        Raises:
            DataError: If one has another length, or is not of whole numbers.
        """
        known = dict(self.annotations.factors)
        for name, values in factors.items():
            known[name] = checked_groups(values, examples=len(self.targets), where=f"{self.name}: factor {name}")
        return self._annotated(replace(self.annotations, factors=known))

    def with_symmetry(self: Kind, symmetry: Symmetry) -> Kind:
        """The same examples, which this group moves into each other.

        Raises:
            DataError: If it acts on another number of examples.
        """
        if symmetry.size != len(self.targets):
            raise DataError(
                "The symmetry does not fit the examples.",
                where=f"{self.name}: {symmetry.name}",
                expected=f"a group acting on {len(self.targets)} examples",
                got=f"one acting on {symmetry.size}",
                do="Make it from the task's own inputs, in their order.",
            )
        return self._annotated(replace(self.annotations, symmetry=symmetry))

    @checked
    def with_votes(self: Kind, votes: Sequence[Any] | NDArray[Any] | Tensor, *, ordinal: bool = False) -> Kind:
        """The same examples, with what people said of each.

        Args:
            votes: Integers ``[example, option]``: how many people chose each option.
            ordinal: Whether the options are in an order, with equal steps between them.

        Raises:
            DataError: If they have another length, are no counts, or nobody voted on an example.
        """
        checked = checked_votes(votes, examples=len(self.targets), where=self.name)
        return self._annotated(replace(self.annotations, votes=checked, ordinal=ordinal))

    def with_annotation(self: Kind, annotation: Annotation) -> Kind:
        """The same examples, with what a suite or another package knows of each.

        Raises:
            DataError: If it is about another number of examples.
        """
        if len(annotation) != len(self.targets):
            raise DataError(
                f"The {annotation.name} are of other examples.",
                where=self.name,
                expected=f"{len(self.targets)}, one for each example",
                got=str(len(annotation)),
            )
        others = (one for one in self.annotations.others if type(one) is not type(annotation))
        ordered = tuple(sorted((*others, annotation), key=lambda one: one.name))
        return self._annotated(replace(self.annotations, others=ordered))

    def annotation(self, kind: type[Known]) -> Known | None:
        """The annotation of this class, if the task has one."""
        return next((one for one in self.annotations.others if isinstance(one, kind)), None)

    def _annotated(self: Kind, annotations: Annotations) -> Kind:
        other = copy.copy(self)
        other.annotations = annotations
        return other

    @property
    def clusters(self) -> Tensor | None:
        """The groups, ``[example]``, where they are a sample: those that are the right options themselves are not.

        ``None`` also where each example is a group of its own.
        """
        groups = self.annotations.groups
        if groups is None or len(np.unique(groups.cpu().numpy())) == len(groups):
            return None
        kinds = self._are_kinds and ((sets := self.copies) is None or not repeats.alike(sets, groups.cpu().numpy()))
        return None if kinds else groups

    @property
    def _are_kinds(self) -> bool:
        """Whether the groups are the right options."""
        groups, targets = self.annotations.groups, self.targets.cpu()
        if groups is None or targets.is_floating_point() or targets.ndim != 1:
            return False
        return repeats.alike(groups.cpu().numpy(), targets.numpy())

    def halves(self, rng: np.random.Generator, members: NDArray[np.intp] | None = None) -> tuple[Tensor, Tensor]:
        """Two random halves of the examples ``members``, or of all: what is chosen on one is measured on the other.

        Groups are not divided, unless all members are of one. Of an odd number the second half has one more.
        """
        some = np.arange(len(self.targets)) if members is None else members
        unit = some if self.clusters is None else self.clusters.cpu().numpy()[some]
        unit = some if len(np.unique(unit)) == 1 else unit
        order = rng.permutation(np.unique(unit))
        first = np.isin(unit, order[: len(order) // 2])
        return to_tensor(some[first]), to_tensor(some[~first])

    @property
    def behaviors(self) -> Tensor:
        """The behavior that each example belongs to, ``[example]``: as given, else its group or its right option."""
        groups = None if self.annotations.found else self.annotations.groups
        for known in (self.annotations.behaviors, groups):
            if known is not None:
                return known
        return torch.zeros(len(self.targets), dtype=torch.long) if self.targets.is_floating_point() else self.targets

    def scored_by(self: Kind, measure: Measure | str) -> Kind:
        """The same examples, scored by another measure.

        Raises:
            UnknownName: If there is no such measure.
            UsageError: If it does not fit the targets.
        """
        other = copy.copy(self)
        other.measure = measures.named(measure, where=self.name)
        require_fit(other.measure, other.targets, where=self.name)
        return other

    @property
    def slices(self) -> dict[str, NDArray[np.int32]]:
        """What divides the examples, ``[example]`` by name: see ``Annotations.slices``."""
        return self.annotations.slices(self.targets)

    def part(self, index: Tensor) -> "BaseTask":
        """The same task with the examples ``index`` alone, in that order.

        Raises:
            DataError: If tasks of this kind cannot be divided.
        """
        raise DataError(
            "This task cannot be divided.",
            where=self.name,
            expected=f"a method part(index) of {type(self).__name__}",
            got="none",
            do="Write one that returns the task of the examples index, and their groups.",
        )

    def once(self: Kind) -> Kind:
        """The same task with one example of each, where so many repeat others that intervals would be too narrow.

        Repeats have the same inputs, target and annotations, so the same outcome whatever is done to a model. Where
        equal inputs have different ones none is left out: how often each answer is right is the score. Those whose
        inputs alone are the same, or differ by next to nothing, are groups then, but for rows of so few features that
        equal ones come by chance; so are texts that look alike, where no groups were declared. The task itself where
        there are few, and where its examples belong together: by a symmetry, or by what a suite knows of them.
        """
        known = self.annotations
        if known.symmetry is not None or known.others:
            return self
        keys, some = self._keys(), self
        first = None if keys is None or self._by_chance else repeats.firsts(keys)
        if first is not None and len(first) == len({*self.contents} or first):
            some = cast("Kind", self.part(torch.tensor(first)))
            some.repeats, some.more = len(self.targets) - len(first), self.more
        if (sets := some.copies) is not None:
            groups = to_tensor(repeats.merged(sets, None if some._are_kinds else some.annotations.groups))
            return some._annotated(replace(some.annotations, groups=groups, behaviors=some.behaviors))
        found = None if known.groups is not None else some._lookalikes()
        if found is None:
            return some
        grouped = some.with_noticed(to_tensor(found), TEMPLATE)
        return some if grouped.clusters is None else grouped

    def _lookalikes(self) -> NDArray[np.intp] | None:
        """Groups of examples that look alike, ``[example]``; ``None`` where there are none, or examples are no text."""
        return None

    @property
    def _by_chance(self) -> bool:
        """Whether so few inputs are possible that independent examples repeat, with one target and another."""
        return False

    def _keys(self) -> Sequence[object] | None:
        """What tells each example from others: inputs, target and annotations; ``None``: not known."""
        return None

    @property
    def copies(self) -> NDArray[np.int64] | None:
        """Sets of examples whose inputs differ by nothing or by a tiny change, ``[example]``; ``None`` where few do."""
        return repeats.same(self.contents)

    def places(self) -> Mapping[Hashable, int]:
        """Where a pass reads next tokens of a language model: each place with the first example that it belongs to."""
        return {}

    @property
    def adaptive(self) -> bool:
        """Whether later calls of the model depend on what it answered to earlier ones, as where it generates text.

        Then what the calls of one pass gave cannot stand in for those of another.
        """
        return False

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Distinct rows of input available for estimating layer moments."""

    @property
    def moment_passes(self) -> float:
        """What one pass over ``moments`` costs, in passes over the task."""
        return 1.0

    @abstractmethod
    def forward(self, model: nn.Module) -> Float[Tensor, "example option"]:
        """One pass over the whole task: the model's scores over each example's options."""

    def loss(self, model: nn.Module, index: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        """Mean loss over examples, with a gradient: what fine-tuning goes down and slopes are slopes of.

        Cross-entropy of the scores over options in nats, or mean squared error of wanted outputs.

        Args:
            model: Whose loss.
            index: Which examples; all by default.
            targets: Right options (wanted outputs) of these, where not the task's own.

        Raises:
            DataError: If only some examples are asked for and the task cannot be divided.
        """
        some = self if index is None else self.part(index)
        return mean_loss(some.forward(model), some.targets if targets is None else targets)

    def require_readable(self, model: nn.Module) -> None:
        """Raises ``ModelError`` if the model breaks what ``forward`` takes for granted; nothing, by default."""
        return

    @abstractmethod
    def moments(self) -> Iterator[Moments]:
        """Inputs, batch by batch, for estimating layer moments."""

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Everything recorded per example: one pass serves all."""
        standard = () if self.targets.is_floating_point() else measures.RECORDED
        return standard if self.measure in standard else (self.measure, *standard)

    def scores(self, model: nn.Module) -> Float[Tensor, "example option"]:
        """``forward`` without gradients, checked for shape, in float32 on the CPU.

        Raises:
            ModelError: If the model does not give one row of scores per example.
            DataError: If a target is not the index of an option.
        """
        with torch.no_grad():
            scores = self.forward(model).float().cpu()
        require_scores(scores, len(self.targets), where=self.name)
        if not isinstance(self.measure, measures.AveragePrecision):
            require_fitting(self.targets, scores.shape[1], where=self.name)
        return scores

    @property
    def record(self) -> TaskRecord:
        """What stores and reports keep of this task."""
        known, common, chosen = self.annotations, self.common, _CHOSEN.get(self.measure.name)
        groups = None if known.groups is None else known.groups.cpu().numpy()
        return TaskRecord(
            name=self.name,
            digest=self.digest,
            examples=len(self.targets),
            measure=self.measure.name,
            measures=tuple(m.name for m in self.measures),
            higher_is_better=self.measure.higher_is_better,
            bounded=self.measure.bounded,
            range=self.measure.range,
            chosen=f"{chosen}: --measure changes that" if self.chosen and chosen else None,
            left_out=self.left_out or None,
            tokens=self.tokens,
            common=common,
            answer=None if (common or 0.0) < _MANY else int(self.targets.mode()[0]),
            repeats=self.repeats or None,
            distinct=None if groups is not None or self._by_chance else repeats.few_different(self.contents),
            alike=len(np.unique(sets)) if groups is not None and (sets := self.copies) is not None else None,
            found=f"{sizes_of(groups)} that {known.found}" if known.found and groups is not None else None,
        )

    @property
    def common(self) -> float | None:
        """Share of the examples with the most common right answer; ``None`` where answers are no classes."""
        return None


@final
class Task(BaseTask):
    """Examples with targets for a model called as ``model(inputs)``.

    Inputs by name, ``Task({"input_ids": ..., "attention_mask": ...}, targets)``, are for a model called as
    ``model(input_ids=..., attention_mask=...)``. Floating-point inputs are cast to the dtype of the model's first
    floating-point parameter when it is called, unless it has parameters of theirs too; whole numbers stay as they are.
    What else is known of them is added afterward: ``Task(inputs, targets).with_factors(factors)``; see ``BaseTask``.

    Args:
        inputs: ``[example, ...]``, or a mapping of names to such; kept in this order. Tensors or numpy arrays.
        targets: Integer ``[example]``; floating point ``[example, ...]`` for regression; several labels of 0 or 1
            ``[example, label]``; masks, whole numbers ``[example, height, width]``; relevance ``[example, document]``;
            tokens, whole numbers ``[example, token]``: padding is -100, or an ``attention_mask`` of 0 among the inputs.
        measure: What the benchmark would score, or its name; by default what the targets are: accuracy, squared error,
            label accuracy, IoU, token accuracy.
        name: For reports.
        batch: Examples per forward call.
        more: Further inputs of the same kind, ``[row, ...]``, used only for estimating layer moments.
        groups: What each example shares with others (a patient, a document, an original): see ``with_groups``.

    Raises:
        DataError: If the task is empty, lengths or shapes differ, targets are one-hot, or values are not finite.
        UsageError: If there is no such measure, or it does not fit the targets.
    """

    batch_attribute = "batch"

    def __init__(  # noqa: PLR0913 - a door: each is a choice of its own
        self,
        inputs: Any,
        targets: Any,
        *,
        measure: Measure | type[Measure] | str | None = None,
        name: str = "task",
        batch: int = 512,
        more: Any = None,
        groups: Sequence[Any] | NDArray[Any] | Tensor | None = None,
    ) -> None:
        self.name, self.batch = name_of(name), checked_size(batch, where=name)
        self.inputs: Inputs = as_inputs(inputs, where=name)
        self.more: Inputs | None = None if more is None else as_inputs(more, where=name)
        wanted = None if measure is None else measures.named(measure, where=name)
        fits = () if wanted is None else measures.kinds_of(wanted)
        given = as_tensor(targets, what="targets", where=name)
        self.targets, usual = read(given, fits, padding=tensors(self.inputs).get("attention_mask"))
        self.shape = tuple(given.shape[1:])
        of_outputs = wanted is not None and fits != ("classes",)  # one of the user's own may be
        of_masks = usual in ("iou", "token_accuracy")
        require_targets(self.targets, count(self.inputs), of_outputs=of_outputs, of_masks=of_masks, where=name)
        self.measure, self.chosen = wanted or measures.BY_NAME[usual], wanted is None
        self._require_sound()
        if groups is not None:
            self.annotations = self.with_groups(groups).annotations

    def _require_sound(self) -> None:
        require_fit(self.measure, self.targets, where=self.name)
        if self.more is not None and shapes(self.more) != shapes(self.inputs):
            raise DataError(
                "The task's further inputs have another shape than its inputs.",
                where=self.name,
                expected=shapes(self.inputs),
                got=shapes(self.more),
                do="Give inputs of the same kind to more=.",
            )
        for kind, inputs in (("inputs", self.inputs), ("further inputs", self.more)):
            for name, tensor in tensors({} if inputs is None else inputs).items():
                require_finite(f"{kind} {name}".strip(), tensor, where=self.name)
        require_finite("targets", self.targets, where=self.name)

    @property
    def digest(self) -> str:
        """Digest of inputs, targets, their order and what is scored."""
        parts = [*self._digests("inputs", self.inputs), tensor_digest("targets", self.targets)]
        if self.more is not None:
            parts += self._digests("more", self.more)
        return canon.key("task", [*self.measure.identity, *parts, *self.annotations.digests])

    @property
    def contents(self) -> tuple[str, ...]:
        """See ``BaseTask.contents``."""
        return repeats.keys_of(self.inputs)

    @staticmethod
    def _digests(kind: str, inputs: Inputs) -> list[str]:
        return [tensor_digest(f"{kind} {name}".strip(), tensor) for name, tensor in sorted(tensors(inputs).items())]

    @property
    def common(self) -> float | None:
        """See ``BaseTask.common``."""
        if self.targets.is_floating_point() or not self.measure.bounded:
            return None
        return float(np.unique(to_array(self.targets), return_counts=True)[1].max()) / len(self.targets)

    def _keys(self) -> Sequence[object]:
        return repeats.keys_of(self.inputs, self.targets, *repeats.rows_of(self.annotations))

    def _lookalikes(self) -> NDArray[np.intp] | None:
        texts = repeats.tokens_of(self.inputs)
        if texts is None:
            return None
        if isinstance(self.inputs, Tensor):  # perhaps no words: the same number at another place is another one
            return lookalikes([[f"{at}:{token}" for at, token in enumerate(row)] for row in texts])
        return lookalikes([[*map(str, row)] for row in texts])

    @property
    def copies(self) -> NDArray[np.int64] | None:
        """See ``BaseTask.copies``."""
        near = repeats.copies(self.inputs, self.targets)
        if near is not None:
            return near
        return None if self._by_chance else super().copies

    @property
    def _by_chance(self) -> bool:
        return repeats.by_chance(self.inputs, self.targets)

    @property
    def tokens(self) -> int:
        """Distinct rows of input available for estimating layer moments."""
        rows = [flat(inputs) for inputs in (self.inputs, self.more) if inputs is not None]
        return len(np.unique(np.concatenate(rows), axis=0))

    @property
    def moment_passes(self) -> float:
        """See ``BaseTask.moment_passes``."""
        return 1.0 if self.more is None else 1.0 + count(self.more) / count(self.inputs)

    def part(self, index: Tensor) -> "Task":
        """See ``BaseTask.part``."""
        index, part = index.cpu(), copy.copy(self)
        part.inputs, part.targets = chosen(self.inputs, index), self.targets[index.to(self.targets.device)]
        part.more, part.repeats, part.left_out = None, 0, 0
        return part._annotated(self.annotations.part(index))

    def scored_by(self, measure: Measure | str) -> "Task":
        """See ``BaseTask.scored_by``; labels may be classes of tokens."""
        other, fits = copy.copy(self), measures.kinds_of(measures.named(measure, where=self.name))
        if "tokens" in fits and self.targets.ndim == 2:
            other.targets, _ = read(self.targets, fits, padding=tensors(self.inputs).get("attention_mask"))
        other = super(Task, other).scored_by(measure)
        other.chosen = False
        return other

    def batch_range(self) -> tuple[int, int]:
        """See ``Batched.batch_range``."""
        return 1, count(self.inputs)

    def require_readable(self, model: nn.Module) -> None:
        """Raises ``DataError`` if an example has more tokens than the model can read."""
        require_short(model, lengths_of(self.inputs), where=self.name)

    def forward(self, model: nn.Module) -> Tensor:
        """Scores ``[example, option]``, of copies of the inputs: a model may write into them."""
        batches = split(self.inputs, self.batch)
        scores = torch.cat([as_scores(answered(model, one), examples=count(one)) for one in batches])
        free = isinstance(self.measure, measures.AveragePrecision)  # its function knows what they are
        return scores.flatten(1) if free else flattened(scores, self.targets, self.shape, where=self.name)

    def moments(self) -> Iterator[Moments]:
        """Inputs for layer moments: the task's own and ``more``."""
        for rows in (self.inputs, self.more):
            if rows is not None:
                yield from map(Moments, split(rows, self.batch))


__all__ = ["BaseTask", "Moments", "Task", "as_scores", "mean_loss"]
