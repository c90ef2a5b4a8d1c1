"""Tasks: fixed-order, digested examples, and what the benchmark would score."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from wheeltap.core import canon, measure
from wheeltap.core.annotations import Annotations, checked_groups, require_fit, tensor_digest
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.measure import Measure
from wheeltap.core.records import TaskRecord
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.typed import to_array


@dataclass(frozen=True)
class Moments:
    """One batch of inputs for estimating layer moments.

    Attributes:
        inputs: What the model is called with.
        sinks: Leading positions of the second axis that serve as attention sinks: kept in the input moments
            (dropped, their whitened norm explodes), left out of the output moments (their massive activations
            would set the scale).
    """

    inputs: Any
    sinks: int = 0


Kind = TypeVar("Kind", bound="BaseTask")


class BaseTask(ABC):
    """What every task offers the engine.

    Attributes:
        name: For reports.
        targets: Index of the right option per example, or the wanted outputs.
        measure: What the benchmark would score.
        annotations: What else is known of the examples: ``with_groups``, ``with_factors``, ``with_symmetry``.
    """

    name: str
    targets: Tensor
    measure: Measure
    annotations: Annotations = Annotations()

    @property
    @abstractmethod
    def digest(self) -> str:
        """Digest of examples, order, targets and scoring rule; of the annotations where they were given."""

    def with_groups(self: Kind, groups: Sequence[int] | Tensor) -> Kind:
        """The same examples, told which behaviour each is one of: without this, that of its right option.

        Args:
            groups: Integers ``[example]``: the number of its behaviour.

        Raises:
            DataError: If they have another length, or are not whole numbers.
        """
        checked = checked_groups(groups, examples=len(self.targets), where=self.name)
        return self._annotated(replace(self.annotations, groups=checked))

    def with_factors(self: Kind, factors: Mapping[str, Tensor]) -> Kind:
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
        require_fit(symmetry, len(self.targets), where=self.name)
        return self._annotated(replace(self.annotations, symmetry=symmetry))

    def _annotated(self: Kind, annotations: Annotations) -> Kind:
        other = copy.copy(self)
        other.annotations = annotations
        return other

    @property
    def groups(self) -> Tensor:
        """The behaviour that each example belongs to, ``[example]``: as given, else its right option."""
        if self.annotations.groups is not None:
            return self.annotations.groups
        return torch.zeros(len(self.targets), dtype=torch.long) if self.targets.is_floating_point() else self.targets

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

    def halve_batch(self) -> bool:
        """Halves the examples per forward call; ``False`` where there is nothing left to halve."""
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
        standard = () if self.targets.is_floating_point() else measure.RECORDED
        return standard if self.measure in standard else (self.measure, *standard)

    def scores(self, model: nn.Module) -> Float[Tensor, "example option"]:
        """``forward`` without gradients, checked for shape, in float32 on the CPU.

        Raises:
            ModelError: If the model does not give one row of scores per example.
            DataError: If a target is not the index of an option.
        """
        with torch.no_grad():
            scores = self.forward(model).float().cpu()
        if scores.ndim != 2 or scores.shape[0] != len(self.targets):
            raise ModelError(
                "The model does not give one row of scores per example.",
                where=self.name,
                expected=f"shape [{len(self.targets)}, options]",
                got=str(list(scores.shape)),
                do="Wrap the model so that it returns logits per example (or an object with .logits).",
            )
        self._require_targets(scores.shape[1])
        return scores

    def _require_targets(self, options: int) -> None:
        if self.targets.is_floating_point():
            if self.targets.shape[1] != options:
                raise DataError(
                    "The targets do not have the shape of the model's outputs.",
                    where=self.name,
                    expected=f"[{len(self.targets)}, {options}]",
                    got=str(list(self.targets.shape)),
                    do="Give one wanted output per output of the model.",
                )
            return
        if options < 2:
            raise ModelError(
                "The model gives one score per example, so there is nothing to choose between.",
                where=self.name,
                expected="a score for each of two options or more",
                got=f"shape [{len(self.targets)}, {options}], with whole numbers as targets",
                do="From one logit z make two: torch.cat([torch.zeros_like(z), z], dim=1) says the same. "
                "For regression give floating-point targets [example, 1].",
            )
        wrong = (self.targets < 0) | (self.targets >= options)
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise DataError(
                "A target is out of range.",
                where=f"{self.name}: example {first}",
                expected=f"an integer from 0 to {options - 1} (the model offers {options} options)",
                got=str(int(self.targets[first])),
                do="Check the labels, and that they belong to this model.",
            )

    @property
    def record(self) -> TaskRecord:
        """What stores and reports keep of this task."""
        return TaskRecord(
            name=self.name,
            digest=self.digest,
            examples=len(self.targets),
            measure=self.measure.name,
            measures=tuple(m.name for m in self.measures),
            higher_is_better=self.measure.higher_is_better,
            bounded=self.measure.bounded,
            tokens=self.tokens,
        )


def as_scores(output: Any) -> Tensor:
    """The tensor of scores in whatever a model returned: itself, its ``.logits``, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    whole: Any = output
    for held in (
        whole.get("logits") if isinstance(output, dict) else getattr(whole, "logits", None),
        whole[0] if isinstance(output, tuple) and len(whole) else None,
    ):
        if isinstance(held, Tensor):
            return held
    raise ModelError(
        "The model's output holds no scores.",
        expected="a tensor, an object with .logits, or a tuple that starts with a tensor",
        got=type(whole).__name__,
        do="Wrap the model so that it returns logits.",
    )


def mean_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of scores over options, or mean squared error of wanted outputs."""
    held = targets.to(scores.device)
    if held.is_floating_point():
        return functional.mse_loss(scores, held.to(scores.dtype))
    return functional.cross_entropy(scores, held)


def _split(rows: Tensor, size: int) -> Iterator[Tensor]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@final
class Task(BaseTask):
    """Examples with integer labels (or wanted outputs) for a model called as ``model(inputs)``.

    What else is known of them is told afterwards: ``Task(inputs, targets).with_groups(groups)``; see ``BaseTask``.

    Args:
        inputs: ``[example, ...]``; kept in this order.
        targets: Integer ``[example]``, or floating point ``[example, output]`` for regression.
        measure: What the benchmark would score; by default accuracy, or squared error for regression.
        name: For reports.
        batch: Examples per forward call.
        more: Further inputs of the same kind, ``[row, ...]``, used only for estimating layer moments.

    Raises:
        DataError: If the task is empty, lengths differ, or values are not finite.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        measure: Measure | None = None,
        name: str = "task",
        batch: int = 512,
        more: Tensor | None = None,
    ) -> None:
        self.name, self.batch = name, batch
        self.inputs = torch.as_tensor(inputs)
        self.targets = torch.as_tensor(targets)
        self.more = None if more is None else torch.as_tensor(more)
        self._require_sound()
        if not self.targets.is_floating_point():
            self.targets = self.targets.long()
        self.measure = measure or (_SQUARED_ERROR if self.targets.is_floating_point() else _ACCURACY)

    def _require_sound(self) -> None:
        if self.inputs.ndim == 0 or len(self.inputs) == 0:
            raise DataError("The task is empty.", where=self.name, expected="at least one example", got="none")
        if self.targets.ndim and len(self.inputs) != len(self.targets):
            raise DataError(
                "The task's inputs and targets differ in number.",
                where=self.name,
                expected=f"{len(self.inputs)} targets, one per input",
                got=f"{len(self.targets)} targets",
                do="Give one target per input, in the same order.",
            )
        wanted = 2 if self.targets.is_floating_point() else 1
        if self.targets.ndim != wanted:
            raise DataError(
                "The targets have the wrong shape.",
                where=self.name,
                expected="integers [example], or floating point [example, output] for regression",
                got=f"{str(self.targets.dtype).removeprefix('torch.')} {list(self.targets.shape)}",
                do="Class labels are whole numbers; store them as an integer type.",
            )
        if self.more is not None and self.more.shape[1:] != self.inputs.shape[1:]:
            raise DataError(
                "The task's further inputs have another shape than its inputs.",
                where=self.name,
                expected=f"[row, {', '.join(map(str, self.inputs.shape[1:]))}]",
                got=str(list(self.more.shape)),
                do="Give inputs of the same kind to more=.",
            )
        parts = (("inputs", self.inputs), ("targets", self.targets), ("further inputs", self.more))
        for label, tensor in parts:
            if tensor is not None and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                row = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[0])
                raise DataError(
                    f"The task's {label} are not all finite.",
                    where=f"{self.name}: example {row}",
                    expected="finite numbers",
                    got="NaN or infinite",
                    do="Remove or mend the example.",
                )

    @property
    def digest(self) -> str:
        """Digest of inputs, targets, their order and what is scored."""
        parts = [tensor_digest("inputs", self.inputs), tensor_digest("targets", self.targets)]
        if self.more is not None:
            parts.append(tensor_digest("more", self.more))
        return canon.key("task", [*self.measure.identity, *parts, *self.annotations.digests])

    @property
    def tokens(self) -> int:
        """Distinct rows of input available for estimating layer moments."""
        rows = self.inputs.reshape(len(self.inputs), -1)
        if self.more is not None:
            rows = torch.cat([rows, self.more.reshape(len(self.more), -1)])
        return len(np.unique(to_array(rows), axis=0))

    @property
    def moment_passes(self) -> float:
        """See ``BaseTask.moment_passes``."""
        return 1.0 if self.more is None else 1.0 + len(self.more) / len(self.inputs)

    def part(self, index: Tensor) -> "Task":
        """See ``BaseTask.part``."""
        index = index.cpu()
        part = Task(
            self.inputs[index.to(self.inputs.device)],
            self.targets[index.to(self.targets.device)],
            measure=self.measure,
            name=self.name,
            batch=self.batch,
        )
        return part._annotated(self.annotations.part(index))

    def halve_batch(self) -> bool:
        """See ``BaseTask.halve_batch``."""
        if self.batch == 1:
            return False
        self.batch = max(min(self.batch, len(self.inputs)) // 2, 1)
        return True

    def forward(self, model: nn.Module) -> Tensor:
        """Scores ``[example, option]``, of copies of the inputs: a model may write into them."""
        device = next(model.parameters()).device
        return torch.cat([as_scores(model(part.to(device, copy=True))) for part in _split(self.inputs, self.batch)])

    def moments(self) -> Iterator[Moments]:
        """Inputs for layer moments: the task's own and ``more``."""
        for rows in (self.inputs, *(() if self.more is None else (self.more,))):
            for part in _split(rows, self.batch):
                yield Moments(part.clone())


# Bound under other names because ``measure`` is also the name of an argument above.
_ACCURACY, _SQUARED_ERROR = measure.accuracy, measure.squared_error

__all__ = ["BaseTask", "Moments", "Task", "as_scores", "mean_loss"]
