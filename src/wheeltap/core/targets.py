"""Targets: indices of right options or wanted outputs, checked by themselves and beside what a model gives."""

import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.core.measure import Measure, fitting, kinds_of
from wheeltap.core.measures.family import Kind
from wheeltap.core.measures.masks import LEFT_OUT, counted


def read(targets: Tensor, fits: tuple[Kind, ...], *, padding: Tensor | None = None) -> tuple[Tensor, str]:
    """Targets as tasks keep them, and the measure that they ask for where none is asked for.

    Several labels, relevance and masks are floating point: these are not the number of one right option. Tokens are
    masks of width 1. Wanted outputs of any shape are one row per example.

    Args:
        targets: As they were given.
        fits: Kinds of targets that the measure reads which was asked for; none where none was.
        padding: Where it has the shape of targets of tokens, those are left out at which it is 0.
    """
    binary = bool(((targets == 0) | (targets == 1)).all())
    rows, asked = targets.ndim == 2 and targets.shape[1] > 1, not {"labels", "relevance"}.isdisjoint(fits)
    if rows and ("tokens" in fits or not (targets.is_floating_point() or binary or asked)):
        some = torch.ones_like(targets) if padding is None or padding.shape != targets.shape else padding
        return torch.where(some.to(targets.device) == 0, LEFT_OUT[0], targets.float())[:, :, None], "token_accuracy"
    if targets.ndim == 4 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim == 3 and ("masks" in fits or not targets.is_floating_point() or binary):
        return targets.float(), "iou"
    if targets.is_floating_point():
        return targets.reshape(len(targets), -1) if targets.ndim and len(targets) else targets, "squared_error"
    if rows and (asked or (binary and not is_one_hot(targets))):
        return targets.float(), "label_accuracy"
    return (targets.long() if targets.ndim == 1 else targets), "accuracy"


def kinds(targets: Tensor) -> tuple[Kind, ...]:
    """What targets may be, as a task keeps them."""
    if not targets.is_floating_point():
        return ("classes",)
    if targets.ndim == 3:
        return ("masks",) if targets.shape[2] > 1 else ("tokens",)
    if are_labels(targets):
        return ("outputs", "relevance", "labels")
    return ("outputs", "relevance") if bool((targets >= 0.0).all()) else ("outputs",)


_SAID: dict[Kind, str] = {
    "classes": "whole numbers", "outputs": "floating-point numbers", "masks": "a class for each pixel",
    "tokens": "a class for each token",
}  # fmt: skip


def require_fit(measure: Measure, targets: Tensor, *, where: str) -> None:
    """Checks that a measure reads such targets.

    Raises:
        DataError: If it is one of labels, and these are other numbers.
        UsageError: If it is one of other targets.
    """
    fits, known = kinds_of(measure), kinds(targets)
    if "labels" in fits and "outputs" in known and "labels" not in known:
        raise DataError(
            "The targets are no labels.",
            where=where,
            expected="floating point [example, label], each 0 or 1",
            got=f"numbers from {float(targets.min()):g} to {float(targets.max()):g}",
            do="Give 1 where a label holds and 0 where it does not; wanted outputs are scored by squared_error.",
        )
    if fits and set(fits).isdisjoint(known):
        raise UsageError(
            f"The measure {measure.name} does not fit these targets.",
            where=f"{where}: measure",
            expected=", ".join(dict.fromkeys(name for kind in known for name in fitting(kind))),
            got=f"{measure.name}, with {_SAID[known[0]]} as targets",
            do="Answers that a model generates need prompts and answers: see docs/measures.md."
            if "answers" in fits
            else "Class labels are whole numbers: targets.long(). Wanted outputs are floating point: targets.float().",
        )


def flattened(scores: Tensor, targets: Tensor, shape: tuple[int, ...], *, where: str) -> Tensor:
    """Scores as one row per example, where they fit the targets.

    Those of masks are ``[example, class, height, width]``, those of tokens ``[example, token, class]``; with one class
    its axis may be left out. Outputs are of the shape of the wanted ones, but for axes of length 1.

    Args:
        scores: What the model gives.
        targets: As the task keeps them.
        shape: Of the targets of one example as they were given.
        where: Name of the task.

    Raises:
        ModelError: If the model gives other planes than the targets have, or outputs of another shape.
    """
    if targets.ndim == 3:
        each = "token" if targets.shape[2] == 1 else "pixel"
        if each == "token" and scores.ndim in (2, 3):
            planes = (scores if scores.ndim == 3 else scores.unsqueeze(2)).mT.unsqueeze(3)
        else:
            planes = scores.unsqueeze(1) if scores.ndim == 3 else scores
        if planes.ndim == 4 and planes.shape[2:] == targets.shape[1:]:
            return planes.flatten(1)
        axes = ", ".join(map(str, shape))
        raise ModelError(
            f"The model does not give a score for each {each} of the targets.",
            where=where,
            expected=f"[example, {axes}, class]" if each == "token" else f"[example, class, {axes}]",
            got=str(list(scores.shape)),
            do="Wrap the model so that it returns its planes in the size of the masks: functional.interpolate(logits, "
            "size=..., mode='bilinear')."
            if each == "pixel"
            else "Wrap the model so that it returns scores [example, token, class]: logits.transpose(1, 2) where the "
            "class comes first. Several labels of one example are 0 or 1.",
        )
    if targets.is_floating_point() and scores.ndim != 2:
        if len(scores) and [n for n in scores.shape[1:] if n != 1] == [n for n in shape if n != 1]:
            return scores.reshape(len(scores), -1)
        raise ModelError(
            "The model does not give outputs of the shape of the targets.",
            where=where,
            expected=f"[example, {', '.join(map(str, shape))}]",
            got=str(list(scores.shape)),
            do="If each token or pixel has one of two classes: measure='token_accuracy', or 'iou'."
            if are_labels(targets)
            else "Give targets of that shape, or name the output that is meant: wt.Subject(model, output=...).",
        )
    return scores


def require_targets(targets: Tensor, examples: int, *, of_outputs: bool, of_masks: bool = False, where: str) -> None:
    """Checks that targets are one per example, and of a shape that says which of the two kinds they are.

    Args:
        targets: ``[example]`` of whole numbers, or floating point ``[example, output]``.
        examples: How many there are.
        of_masks: Whether they are classes of pixels, ``[example, height, width]``.
        of_outputs: Whether a measure of wanted outputs was asked for: one-hot rows are then taken at their word.
        where: Name of the task.

    Raises:
        DataError: If they are not, or there is no example.
    """
    if not examples:
        raise DataError("The task is empty.", where=where, expected="at least one example", got="none",
                        do="Check what wrote the examples: all of them may have been filtered out.")  # fmt: skip
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
    if of_masks and not bool(counted(targets).any()):
        raise DataError(
            "The targets have no class anywhere.",
            where=where,
            expected="some that are not left out",
            got=f"all of {targets.numel():,} left out: -100, -1, 255 of a pixel, or 0 in the mask",
            do="Check the marks and the mask: 1 where a token or pixel counts.",
        )
    if targets.ndim != (3 if of_masks else 2 if targets.is_floating_point() else 1):
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
    if targets.ndim == 2 and targets.shape[1] == 1:
        return "For class labels: targets.squeeze(1). For regression make them floating point: targets.float()."
    return "Give one whole number per example: the index of its right option. For regression use floating point."


def require_fitting(targets: Tensor, options: int, *, where: str) -> None:
    """Checks targets against the number of scores that a model gives per example.

    Raises:
        DataError: If a target, or a pixel of one, is not the index of an option; or wanted outputs are of another
            number.
        ModelError: If there is one score where there should be a choice.
    """
    if targets.ndim == 3:
        _require_pixels(targets, max(options // targets[0].numel(), 2), where=where)
        return
    if targets.is_floating_point():
        if targets.shape[1] != options:
            whole = targets.shape[1] == 1 and options > 1 and bool((targets == targets.round()).all())
            numbers = whole and bool(((targets >= 0) & (targets < options)).all())
            raise DataError(
                "The targets do not have the shape of the model's outputs.",
                where=where,
                expected=f"[{len(targets)}, {options}]",
                got=str(list(targets.shape)),
                do="These look like numbers of right options: give targets.reshape(-1).long()."
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


def _require_pixels(masks: Tensor, classes: int, *, where: str) -> None:
    """Raises ``DataError`` if a pixel is of no class of the model's, or 255 (left out) stands for the foreground."""
    some = counted(masks)
    wrong = masks[some & ((masks < 0) | (masks >= classes) | (masks != masks.round()))]
    if len(wrong) or (bool((masks == 255).any()) and not bool((some & (masks > 0)).any())):
        raise DataError(
            "The masks are not of the model's classes.",
            where=where,
            expected=f"whole numbers from 0 to {classes - 1}; -1, -100 or 255 where a pixel is left out",
            got=f"{float(wrong[0]):g}" if len(wrong) else "0 and 255 alone: all of the foreground would be left out",
            do="Number the classes from 0 on; of a foreground: (masks > 0).long().",
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


def shows_labels(scores: Tensor, targets: Tensor) -> bool:
    """Whether outputs beside wanted ones of 0 and 1 are logits of labels, or probabilities of several."""
    if scores.shape != targets.shape:
        return False
    shares = bool((scores >= 0.0).all()) and bool((scores <= 1.0).all())
    return _are_logits(scores, targets) or (shares and targets.shape[1] > 1)


def _are_logits(scores: Tensor, targets: Tensor) -> bool:
    shares = targets.mean(0, keepdim=True).expand_as(targets)
    worse = (scores - targets).square().mean() > (shares - targets).square().mean()
    as_logits = functional.binary_cross_entropy_with_logits(scores, targets)
    return bool(worse) and bool(as_logits < functional.binary_cross_entropy(shares, targets))


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
    if not are_labels(targets) or not _are_logits(scores, targets):
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
    """Mean cross-entropy of scores over options, or of pixels; or mean squared error of wanted outputs."""
    held = targets.to(scores.device)
    if held.ndim == 3:
        planes, some = scores.reshape(len(scores), -1, *held.shape[1:]), counted(held)
        if planes.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(planes[:, 0][some], held[some].to(scores.dtype))
        return functional.cross_entropy(planes, torch.where(some, held, -100.0).long())
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
