"""Classifiers from Hugging Face folders: what they are, and the tasks that files make for them."""

import inspect
import re
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor

from wheeltap.core.errors import DataError
from wheeltap.core.inputs import tensors
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task

_TOKENS, _NUMBERS = 8192, 2**22
"""Tokens, and numbers of images, that one forward call takes at most: more and larger ones cost memory, not time."""


@final
@dataclass(frozen=True)
class Classifier:
    """A subject that gives one score per label.

    Attributes:
        reads: What it classifies.
        labels: Names of its labels, in the order of its scores.
        tokenizer: The transformers tokenizer of a classifier of texts, where there is one beside it.
    """

    subject: Subject
    reads: Literal["text", "image"]
    labels: tuple[str, ...]
    tokenizer: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """The labels, where they are names and not only numbered."""
        generic = all(re.fullmatch(r"LABEL_\d+", label) for label in self.labels)
        return () if generic else self.labels

    @property
    def arguments(self) -> frozenset[str]:
        """Names of what the model may be called with."""
        return frozenset(inspect.signature(self.subject.model.forward).parameters)

    @property
    def wanted(self) -> str:
        """What data it needs, in words."""
        if self.reads == "image":
            return "Give --data FILE.npz with pixel_values [example, channel, height, width] and targets [example]."
        return (
            'Give --data FILE.jsonl with lines such as {"text": "Fine.", "label": "'
            f'{self.labels[0]}"}}, or FILE.npz with input_ids, attention_mask and targets.'
        )


def suited(task: Task, classifier: Classifier) -> Task:
    """The task in batches that the classifier's size allows.

    Raises:
        DataError: If pixels are whole numbers, or of another shape than images have.
    """
    main = next(iter(tensors(task.inputs).values()))
    if classifier.reads == "image":
        _require_pixels(main, task.name)
    size = main[0].numel()
    most = _NUMBERS if main.is_floating_point() else _TOKENS
    task.batch = max(min(task.batch, most // max(size, 1)), 1)
    return task


def _require_pixels(pixels: Tensor, where: str) -> None:
    if pixels.is_floating_point() and pixels.ndim == 4 and pixels.dtype is not torch.bool:
        return
    raise DataError(
        "The images are not as the model reads them.",
        where=where,
        expected="floating-point pixels [example, channel, height, width], scaled as in the model's training",
        got=f"{str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}",
        do="Prepare them with the model's own processor: AutoImageProcessor.from_pretrained(folder)(images, "
        "return_tensors='np')['pixel_values'].",
    )
