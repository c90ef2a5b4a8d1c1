"""Targets: indices of right options or wanted outputs, checked by themselves and beside what a model gives."""

import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import DataError, ModelError


def require_targets(targets: Tensor, examples: int, *, of_outputs: bool, where: str) -> None:
    """Checks that targets are one per example, and of a shape that says which of the two kinds they are.

    Args:
        targets: ``[example]`` of whole numbers, or floating point ``[example, output]``.
        examples: How many there are.
        of_outputs: Whether a measure of wanted outputs was asked for: one-hot rows are then taken at their word.
        where: Name of the task.

    Raises:
        DataError: If they are not, or there is no example.
    """
    if not examples:
        raise DataError("The task is empty.", where=where, expected="at least one example", got="none")
    if targets.ndim and examples != len(targets):
        raise DataError(
            "The task's inputs and targets differ in number.",
            where=where,
            expected=f"{examples} targets, one per input",
            got=f"{len(targets)} targets",
            do="Give one target per input, in the same order.",
        )
    if is_one_hot(targets) and not (of_outputs and targets.is_floating_point()):
        raise DataError(
            "The targets are one-hot rows, not the numbers of the right options.",
            where=where,
            expected="integers [example]",
            got=_described(targets),
            do="Give targets.argmax(1). If these numbers are meant as wanted outputs, say so: "
            "measure=wt.measure.squared_error.",
        )
    if targets.ndim != (2 if targets.is_floating_point() else 1):
        raise DataError(
            "The targets have the wrong shape.",
            where=where,
            expected="integers [example], or floating point [example, output] for regression",
            got=_described(targets),
            do=_reshaped(targets),
        )


def is_one_hot(targets: Tensor) -> bool:
    """Whether every row holds a single one among zeros, and there are two columns or more."""
    if targets.ndim != 2 or targets.shape[1] < 2 or not len(targets):
        return False
    ones, zeros = targets == 1, targets == 0
    return bool((ones.sum(1) == 1).all()) and bool((ones | zeros).all())


def _described(targets: Tensor) -> str:
    return f"{str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}"


def _reshaped(targets: Tensor) -> str:
    """What makes targets of them that can be used."""
    if targets.is_floating_point() and targets.ndim == 1:
        return (
            "For regression reshape to [n, 1]: targets.reshape(-1, 1). Class labels are whole numbers: targets.long()."
        )
    if targets.is_floating_point():
        return "For regression give one row of outputs per example: targets.reshape(len(targets), -1)."
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "For class labels: targets.squeeze(1). For regression make them floating point: targets.float()."
    labels = targets.ndim == 2 and bool(((targets == 0) | (targets == 1)).all())
    more = (
        " For several labels of 0 or 1: wt.Task(inputs, targets.float(), measure='label_accuracy')." if labels else ""
    )
    return f"Give one whole number per example: the index of its right option. For regression use floating point.{more}"


def require_fitting(targets: Tensor, options: int, *, where: str) -> None:
    """Checks targets against the number of scores that a model gives per example.

    Raises:
        DataError: If a target is not the index of an option, or wanted outputs are of another number.
        ModelError: If there is one score where there should be a choice.
    """
    if targets.is_floating_point():
        if targets.shape[1] != options:
            whole = targets.shape[1] == 1 and options > 1 and bool((targets == targets.round()).all())
            numbers = whole and bool(((targets >= 0) & (targets < options)).all())
            raise DataError(
                "The targets do not have the shape of the model's outputs.",
                where=where,
                expected=f"[{len(targets)}, {options}]",
                got=str(list(targets.shape)),
                do="These look like numbers of right options: give targets.squeeze(1).long()."
                if numbers
                else "Give one wanted output per output of the model.",
            )
        return
    if options < 2:
        raise ModelError(
            "The model gives one score per example, so there is nothing to choose between.",
            where=where,
            expected="a score for each of two options or more",
            got=f"shape [{len(targets)}, {options}], with whole numbers as targets",
            do="From one logit z make two: torch.cat([torch.zeros_like(z), z], dim=1) says the same. "
            "For regression give floating-point targets [example, 1].",
        )
    wrong = (targets < 0) | (targets >= options)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise DataError(
            "A target is out of range.",
            where=f"{where}: example {first}",
            expected=f"an integer from 0 to {options - 1} (the model offers {options} options)",
            got=str(int(targets[first])),
            do="Check the labels, and that they belong to this model.",
        )


def require_scores(scores: Tensor, examples: int, *, where: str) -> None:
    """Raises ``ModelError`` if a model's scores are not one row per example."""
    if scores.ndim == 2 and scores.shape[0] == examples:
        return
    do = "Wrap the model so that it returns logits per example (or an object with .logits)."
    if scores.shape == (examples,):
        do = (
            "Wrap the model so that it returns one row per example. Regression: output.reshape(-1, 1). Two classes by "
            "one logit z: torch.stack([torch.zeros_like(z), z], dim=1)."
        )
    if scores.ndim == 3 and scores.shape[0] == examples:
        do += " A language model, with scores at every position, reads a wt.ChoiceTask."
    raise ModelError(
        "The model does not give one row of scores per example.",
        where=where,
        expected=f"shape [{examples}, options]",
        got=str(list(scores.shape)),
        do=do,
    )


def are_labels(targets: Tensor) -> bool:
    """Whether wanted outputs are all 0 or 1, as labels are of which each may hold or not."""
    return targets.is_floating_point() and bool(((targets == 0.0) | (targets == 1.0)).all())


def require_no_logits(scores: Tensor, targets: Tensor, *, where: str) -> None:
    """Checks that scores held against wanted outputs of 0 and 1 by their squared error are no logits of labels.

    They are where they are worse than always answering the mean of the targets, and yet, read as logits, tell the
    labels better than the labels' shares do. Outputs that learned the numbers 0 and 1 pass, however good they are.

    Args:
        scores: ``[example, output]``, undisturbed.
        targets: ``[example, output]``.
        where: Name of the task.

    Raises:
        DataError: If they are logits.
    """
    if not are_labels(targets):
        return
    shares = targets.mean(0, keepdim=True).expand_as(targets)
    worse = (scores - targets).square().mean() > (shares - targets).square().mean()
    as_logits = functional.binary_cross_entropy_with_logits(scores, targets)
    if not (bool(worse) and bool(as_logits < functional.binary_cross_entropy(shares, targets))):
        return
    several = targets.shape[1] > 1
    raise DataError(
        f"The targets look like {'several labels' if several else 'a label'} of 0 or 1, and the outputs like their "
        "logits: a squared error says nothing of these.",
        where=f"{where}: measure",
        expected="outputs near 0 and 1, or a measure of labels",
        got=f"outputs from {float(scores.min()):.3g} to {float(scores.max()):.3g}",
        do="Give wt.Task(inputs, targets, measure='label_accuracy'), the share of the labels that are right (on the "
        "command line from a module:callable)"
        + (
            "."
            if several
            else "; or whole numbers as targets, with two logits: torch.cat([torch.zeros_like(z), z], 1)."
        ),
    )


def mean_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of scores over options, or mean squared error of wanted outputs."""
    held = targets.to(scores.device)
    if held.is_floating_point():
        return functional.mse_loss(scores, held.to(scores.dtype))
    return functional.cross_entropy(scores, held)


def require_finite(name: str, tensor: Tensor, *, where: str) -> None:
    """Raises ``DataError`` with the first example that holds NaN or infinity."""
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()):
        return
    row = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[0])
    raise DataError(
        f"The task's {name} are not all finite.",
        where=f"{where}: example {row}",
        expected="finite numbers, of at most 3.4e38",
        got="NaN, infinite or larger",
        do="Remove or correct the example.",
    )
