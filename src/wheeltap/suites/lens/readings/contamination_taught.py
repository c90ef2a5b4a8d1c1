"""Copies of a model that are taught the items of a benchmark in order: what contamination would look like here."""

from collections.abc import Iterator, Sequence
from typing import Final, final

from torch import nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.engine.needs.tuning import Tuned
from wheeltap.perturb.tune import FineTuneSettings
from wheeltap.suites.lens.readings.contamination_texts import Texts
from wheeltap.suites.lens.specs import ContaminationSettings

OFFSETS: Final = 4
"""Places at which the first window may start, or a copy would know the items at one place of a window alone."""


@final
class Taught:
    """The model, and copies of it after some epochs of the items one after the other, cut into windows.

    Windows start at several offsets and are drawn from all of them: after as many steps as one epoch of one offset
    takes, each item was read once in the mean.

    Args:
        subject: Undisturbed; it is never touched.
        texts: The items.
        window: Tokens of a window.
        how: Step size and batch.
        draw: Root and seed of the order in which windows come.
    """

    def __init__(
        self, subject: Subject, texts: Texts, *, window: int, how: ContaminationSettings, draw: tuple[int, int]
    ) -> None:
        self._subject, self._how, self._draw = subject, how, draw
        stream = tuple(token for text in texts.listed(0) for token in text)
        starts = [offset * window // OFFSETS for offset in range(OFFSETS)]
        several = [[stream[at : at + window] for at in range(start, len(stream), window)] for start in starts]
        windows = [one for each in several for one in each]
        self._task = _to_teach(texts.start, windows, tokens_per_batch=texts.tokens_per_batch)
        self._in_epoch = len(several[0]) / how.teaching_batch
        self.forwards = 0.0

    def copies(self, epochs: Sequence[int]) -> Iterator[tuple[int, nn.Module]]:
        """For each rising number of epochs a model, good until the next one is asked for; of 0 the subject's."""
        how = FineTuneSettings(
            data="all", holdout=0.0, batch=self._how.teaching_batch, lr=self._how.teaching_rate, optimizer="adam"
        )
        tuned: Tuned | None = None
        for epoch in epochs:
            if epoch == 0:
                yield 0, self._subject.model
                continue
            tuned = Tuned(self._subject, self._task, how) if tuned is None else tuned
            root, seed = self._draw
            tuned.at(max(1, round(epoch * self._in_epoch)), root=root, seed=seed)
            # What teaching counts as a pass is one over the windows of all offsets; one over the task, of two versions.
            self.forwards = tuned.forwards * OFFSETS / 2
            yield epoch, tuned.model


def _to_teach(start: tuple[int, ...], windows: Sequence[tuple[int, ...]], *, tokens_per_batch: int) -> ChoiceTask:
    """Windows as right options, for training goes down the loss of these; the other option is never read."""
    choices = [[window, window[:1]] for window in windows]
    return ChoiceTask(
        [start] * len(windows), choices, [0] * len(windows), name="windows", tokens_per_batch=tokens_per_batch
    )
