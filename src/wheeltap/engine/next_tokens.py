"""How what a language model says next differs, over its vocabulary, from what the undisturbed one says.

The undisturbed distributions are held in memory, at as many places as fit, evenly spaced among those that the task
reads; a pass is compared as it goes, and nothing is written to a file.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.records import Trial
from wheeltap.core.task import BaseTask, Watch
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.perturb import Perturbation

BYTES: Final = 2**27
"""What the undisturbed distributions of a subject may take: some 680 places of a vocabulary of 49,152."""


_AT_ONCE: Final = 16
"""Places that are compared together: each takes several vectors as long as the vocabulary."""


@final
class NextTokens:
    """The undisturbed log-probabilities of subjects, and what others are beside those of one.

    Those of a few subjects are held, as long as they all fit.

    Args:
        task: Whose places are read.
        memory: Bytes that may be used beside models, of which they take an eighth at most.
    """

    def __init__(self, task: BaseTask, *, memory: int | None = None) -> None:
        self._task = task
        self._limit = BYTES if memory is None else min(BYTES, memory // 8)
        self._every = task.places()
        self._row: dict[Hashable, int] = {}
        self._held: dict[str, tuple[dict[Hashable, int], Tensor]] = {}
        self._clean = torch.empty(0)

    @staticmethod
    def asked(trial: Trial, perturbation: Perturbation) -> bool:
        """Whether a trial is compared: a disturbance without draws of the whole model on the whole task."""
        return trial.site.everywhere and trial.subset is None and not perturbation.random

    def know(self, fingerprint: str, run: Callable[[], Tensor]) -> None:
        """Makes a subject's distributions those to compare with; a pass of it where they are not held."""
        if self._every and fingerprint not in self._held:
            self.clean(fingerprint, run)
        self._row, self._clean = self._held.get(fingerprint, (self._row, self._clean))

    def clean(self, fingerprint: str, run: Callable[[], Tensor]) -> Tensor:
        """What a pass of an undisturbed subject gives, whose distributions are held from then on."""
        self._held.pop(fingerprint, None)
        if sum(one.nbytes for _, one in self._held.values()) + self._clean.nbytes > self._limit:
            self._held.clear()
        self._row, self._clean = {}, torch.empty(0)
        scores = self._watched(self._keep, run)
        self._held[fingerprint] = self._row, self._clean
        return scores

    def compared(self, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, NDArray[Any]]]:
        """What a pass of another model gives, and what its distributions are beside those that are held.

        These are, of each place, ``token_kl``, the divergence from the undisturbed distribution in nats, ``token_top``,
        whether the likeliest token is the same, and ``token_item``, the first example that it belongs to; and
        ``tokens``, how many places the task reads. None where a divergence is not finite.
        """
        divergence, same = np.full(len(self._row), np.nan, dtype=np.float32), np.zeros(len(self._row), dtype=np.bool_)

        def compare(places: Sequence[Hashable], log_probabilities: Tensor) -> None:
            for start in range(0, len(places), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                rows, there, here = self._both(places[part], log_probabilities[part])
                terms = (there.exp() * (there - here)).masked_fill_(there == -torch.inf, 0.0)
                divergence[rows] = to_array(terms.sum(1).clamp_min(0.0))
                same[rows] = to_array(there.argmax(1) == here.argmax(1))

        scores = self._watched(compare, run)
        if not self._every or not np.isfinite(divergence).all():
            return scores, {}
        items = np.array([self._every[place] for place in self._row], dtype=np.int32)
        count = np.array(len(self._every), dtype=np.int32)
        return scores, {"token_kl": divergence, "token_top": same, "token_item": items, "tokens": count}

    def _watched(self, watch: Watch, run: Callable[[], Tensor]) -> Tensor:
        self._task.watch = watch
        try:
            return run()
        finally:
            self._task.watch = None

    def _keep(self, places: Sequence[Hashable], log_probabilities: Tensor) -> None:
        if not self._row:
            every, size = list(self._every), log_probabilities.shape[1]
            most = max(min(len(every), self._limit // (4 * size)), 1)
            self._row = {every[at * len(every) // most]: at for at in range(most)}
            self._clean = torch.empty(most, size)
        rows, _, here = self._both(places, log_probabilities)
        self._clean[to_tensor(rows)] = here

    def _both(self, places: Sequence[Hashable], log_probabilities: Tensor) -> tuple[NDArray[np.intp], Tensor, Tensor]:
        """Rows that are held of some places, with the undisturbed log-probabilities ``[row, token]`` and these."""
        at = [at for at, place in enumerate(places) if place in self._row]
        rows = np.array([self._row[places[one]] for one in at], dtype=np.intp)
        return rows, self._clean[to_tensor(rows)], log_probabilities[torch.tensor(at, dtype=torch.long)].cpu()
