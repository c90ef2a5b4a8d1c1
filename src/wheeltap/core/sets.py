"""Several test sets as one task: each is scored as by itself, and together every example counts the same."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.annotations import Annotations
from wheeltap.core.errors import DataError, WheeltapError
from wheeltap.core.measure import beside, chance_of, squared_error, values_of
from wheeltap.core.records import SET, SLICE, TaskRecord
from wheeltap.core.task import BaseTask, Moments
from wheeltap.core.typed import to_array, to_tensor

_BELOW = 1e4
"""How far below its other scores an example's score of an option is that only other sets have: its probability is 0."""


@final
class JoinedTask(BaseTask):
    """Test sets one behind the other, each read in its own batches, with its own inputs, options and chance.

    Pooled, every example counts the same: a score of all is the mean of the sets' scores weighted by their sizes, also
    of F1 and AUC, which are taken within each set. So it is that of an example drawn from all of them, its interval is
    that of one sample, and no set of few examples decides it, as it would if each set counted the same.

    Raises:
        DataError: If two sets have one name.
    """

    def __init__(self, parts: Sequence[BaseTask]) -> None:
        self.parts, names = tuple(parts), [part.name for part in parts]
        if len(set(names)) < len(names):
            raise DataError(
                "Two test sets have the same name.", where="the examples", expected="a name of its own for each",
                got=", ".join(names), do="Rename a file; in Python name them: wt.audit(model, {'first': task, ...}).",
            )  # fmt: skip
        self.name, self.measure = " + ".join(names), self.parts[0].measure
        self.sizes, self.widths = [len(part.targets) for part in parts], [0] * len(parts)
        self.starts = [0, *np.cumsum(self.sizes).tolist()]
        held = [part.targets.cpu() for part in parts]
        alike = len({(one.is_floating_point(), one.shape[1:]) for one in held}) == 1
        self.targets = torch.cat(held) if alike else torch.ones(self.starts[-1], 1)
        own = [np.arange(len(one.targets)) if (known := one.clusters) is None else known.cpu().numpy() for one in parts]
        pairs = np.stack([np.repeat(np.arange(len(parts)), self.sizes), np.concatenate(own)])
        self.annotations = Annotations(groups=to_tensor(np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)))

    @property
    def digest(self) -> str:
        """Digest of the sets, their order, and groups."""
        return canon.key("sets", [[part.digest for part in self.parts], *self.annotations.digests])

    @property
    def contents(self) -> tuple[str, ...]:
        """See ``BaseTask.contents``."""
        each = [part.contents for part in self.parts]
        return tuple(chain(*each)) if all(each) else ()

    @property
    def common(self) -> float | None:
        """What always giving each set's most common answer scores, where all sets have one."""
        each = [part.common for part in self.parts]
        return None if None in each else float(np.average(cast("list[float]", each), weights=self.sizes))

    @property
    def record(self) -> TaskRecord:
        """See ``BaseTask.record``; with that of each set."""
        each = tuple(part.record for part in self.parts)
        chosen = each[0].chosen if len({one.chosen for one in each}) == 1 else None
        return msgspec.structs.replace(super().record, answer=None, sets=each, chosen=chosen)

    def part(self, index: Tensor) -> "JoinedTask":
        """See ``BaseTask.part``; in rising order alone."""
        if bool((index.diff() < 0).any()):
            raise DataError("Examples of several test sets stay in their order.", where=self.name)
        own = [index[(index >= start) & (index < stop)] - start for start, stop in pairwise(self.starts)]
        made = JoinedTask([part.part(some) for part, some in zip(self.parts, own, strict=True) if len(some)])
        made.annotations = self.annotations.part(index)
        return made

    @property
    def tokens(self) -> int:
        """See ``BaseTask.tokens``; what two sets share counts twice."""
        return sum(part.tokens for part in self.parts)

    @property
    def adaptive(self) -> bool:
        """See ``BaseTask.adaptive``."""
        return any(part.adaptive for part in self.parts)

    def halve_batch(self) -> bool:
        """See ``Batched.halve_batch``."""
        return sum(part.halve_batch() for part in self.parts) > 0

    def save_batch(self) -> Callable[[], None]:
        """See ``Batched.save_batch``."""
        restorers = [part.save_batch() for part in self.parts]

        def restore() -> None:
            for restore_part in restorers:
                restore_part()

        return restore

    def moments(self) -> Iterator[Moments]:
        """Inputs of one set after the other."""
        return chain.from_iterable(part.moments() for part in self.parts)

    def forward(self, model: nn.Module) -> Tensor:
        """Raises ``DataError``: nothing goes down a gradient of several sets; for ``scores`` see there."""
        raise DataError("Several test sets have no gradient.", where=self.name, do="Ask this of one set at a time.")

    def scores(self, model: nn.Module) -> Tensor:
        """See ``BaseTask.scores``; of options that a set does not have far below its own."""
        found = [part.scores(model) for part in self.parts]
        self.widths[:] = [one.shape[1] for one in found]
        more = [(one.amin(1, True) - _BELOW).expand(-1, max(self.widths) - one.shape[1]) for one in found]
        return torch.cat([torch.cat(both, 1) for both in zip(found, more, strict=True)])

    def apart(self, *rows: Tensor) -> Iterator[tuple[BaseTask, list[Tensor]]]:
        """Each set with its own of some rows ``[example, option]``."""
        for part, (start, stop), width in zip(self.parts, pairwise(self.starts), self.widths, strict=True):
            yield part, [one[start:stop, : width or None] for one in rows]


def measured(task: BaseTask, scores: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Every measure's value per example, by name: of several test sets within each.

    Args:
        task: The examples.
        scores: ``[example, option]``.
        clean: The undisturbed ones.
    """
    if isinstance(task, JoinedTask):
        each = [(part, measured(part, *rows)) for part, rows in task.apart(scores, clean)]
        return {
            one.name: torch.cat([found[part.measure.name if one is task.measure else one.name] for part, found in each])
            for one in task.measures
        }
    try:
        return {one.name: values_of(one, scores, task.targets.cpu(), clean) for one in task.measures}
    except WheeltapError as error:
        raise error if error.where else error.at(task.name) from error


def facts(task: BaseTask, scores: Tensor) -> dict[str, NDArray[Any]]:
    """What undisturbed scores ``[example, option]`` tell beside the values of measures, and the task of its examples.

    Of several test sets each one's are there too, by its number and name: ``set 0 chance``.
    """
    values: dict[str, NDArray[Any]] = {"scores": to_array(scores)}
    if (clusters := task.clusters) is not None:
        values["group"] = np.unique(clusters.cpu().numpy(), return_inverse=True)[1].astype(np.float32)
    values |= {f"{SLICE}{name}": labels for name, labels in task.slices.items()}
    if isinstance(task, JoinedTask):
        each = [facts(part, rows[0]) for part, rows in task.apart(scores)]
        shares = np.array(task.sizes) / len(scores)
        values["chance"] = np.array(shares @ [one["chance"] for one in each], dtype=np.float32)
        if all("constant" in one for one in each):
            values["constant"] = np.concatenate([one["constant"] for one in each])
        if all("carried" in one for one in each):
            # As many as would vary as much as the weighted mean; how far one can move it is as in its set.
            worth, far, least = np.array([one["carried"] for one in each]).T
            values["carried"] = np.array([1.0 / (shares**2 / worth).sum(), far.max(), least[0]], dtype=np.float32)
        return values | {f"{SET} {at} {name}": one for at, own in enumerate(each) for name, one in own.items()}
    measure, targets = task.measure, task.targets.cpu()
    values["chance"] = np.array(chance_of(measure, scores, targets), dtype=np.float32)
    values |= {name: to_array(tensor) for name, tensor in beside(measure, scores, targets).items()}
    if not measure.bounded:
        constant = measure.constant(scores, targets).float()
        values |= {"constant": to_array(constant)} if bool(torch.isfinite(constant).all()) else {}
    if measure is squared_error:
        values["spreads"] = to_array(targets.float().var(0, correction=0))
        values["rescaled"] = np.array(squared_error.rescaled(scores, targets), dtype=np.float32)
    return values
