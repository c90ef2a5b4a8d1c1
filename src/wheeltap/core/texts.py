"""Texts of language models: windows of equally many tokens, scored by how likely the model finds each token."""

import copy
from collections.abc import Hashable, Iterator, Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.annotations import tensor_digest
from wheeltap.core.choices import require_causal
from wheeltap.core.errors import DataError
from wheeltap.core.inputs import as_scores, require_short
from wheeltap.core.measure import LogPerplexity, Measure
from wheeltap.core.repeats import keys_of
from wheeltap.core.settings import name_of
from wheeltap.core.task import BaseTask, Moments


@final
class TextTask(BaseTask):
    """Windows of a text, each read by itself; every token but the first is scored, given those before it.

    The mean over windows of the mean negative log-likelihood is the logarithm of the text's perplexity. A difference of
    two such means is paired window by window, and is the logarithm of a ratio of perplexities.

    Args:
        windows: Token ids ``[window][position]``, equally many in each.
        name: For reports.
        tokens_per_batch: Bound on the tokens of one forward call.

    Raises:
        DataError: If there are no windows, or they are not equally long, or of fewer than two tokens.
    """

    batch_attribute = "tokens_per_batch"

    def __init__(self, windows: Sequence[Sequence[int]], *, name: str = "text", tokens_per_batch: int = 1024) -> None:
        self.name, self.tokens_per_batch = name_of(name), tokens_per_batch
        lengths = sorted({len(window) for window in windows})
        if len(lengths) != 1 or lengths[0] < 2:
            raise DataError(
                "The windows of a text cannot be scored.", where=self.name,
                expected="windows of equally many tokens, two or more",
                got=f"windows of {', '.join(map(str, lengths[:5])) or 'no'} tokens",
            )  # fmt: skip
        self.ids = torch.tensor([list(window) for window in windows], dtype=torch.long)
        self.targets = torch.zeros(len(self.ids), lengths[0] - 1)  # wanted: log-likelihoods of 0
        share = np.unique(self.ids[:, 1:].numpy(), return_counts=True)[1] / self.targets.numel()
        self.measure: Measure = LogPerplexity(float(-(share * np.log(share)).sum()))

    @property
    def digest(self) -> str:
        """Digest of every token, their order and the annotations."""
        return canon.key("text", [*self.measure.identity, tensor_digest("ids", self.ids), *self.annotations.digests])

    @property
    def contents(self) -> tuple[str, ...]:
        """See ``BaseTask.contents``."""
        return keys_of(self.ids)

    @property
    def tokens(self) -> int:
        """Positions: no two windows are taken to begin alike."""
        return self.ids.numel()

    def places(self) -> dict[Hashable, int]:
        """See ``BaseTask.places``: by window and position."""
        return {(row, at): row for row in range(len(self.ids)) for at in range(self.targets.shape[1])}

    def part(self, index: Tensor) -> "TextTask":
        """See ``BaseTask.part``."""
        part = copy.copy(self)
        part.ids, part.targets, part.watch = self.ids[index.cpu()], self.targets[index.cpu()], None
        return part._annotated(self.annotations.part(index))

    def batch_range(self) -> tuple[int, int]:
        """See ``Batched.batch_range``: the longest sequence fits into each batch."""
        return self.ids.shape[1], self.tokens_per_batch

    def require_readable(self, model: nn.Module) -> None:
        """Raises ``DataError`` if a window is longer than the model can read, ``ModelError`` if it reads ahead."""
        require_short(model, [self.ids.shape[1]], where=self.name, what="window")
        require_causal(model, self.ids[0].tolist(), where=self.name)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    def forward(self, model: nn.Module) -> Tensor:
        """Log-likelihood ``[window, token]`` of each token but the first, on the CPU."""
        device, read = next(model.parameters()).device, list[Tensor]()
        for start, batch in self._batches(self.tokens_per_batch):
            logits = as_scores(model(batch.to(device)))[:, :-1].float().log_softmax(-1)
            if self.watch is not None:
                rows, positions = range(start, start + len(batch)), range(batch.shape[1] - 1)
                self.watch([(row, at) for row in rows for at in positions], logits.flatten(0, 1))
            read.append(logits.gather(-1, batch[:, 1:, None].to(device))[..., 0].cpu())
        return torch.cat(read)

    def loss(self, model: nn.Module, index: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of a token, in nats; see ``BaseTask.loss``.

        Raises:
            DataError: If other targets are asked for.
        """
        if targets is not None:
            raise DataError("A text has no other answers than its own tokens.", where=self.name)
        return -(self if index is None else self.part(index)).forward(model).mean()

    def moments(self) -> Iterator[Moments]:
        """Windows for layer moments; the first position of each is the attention sink."""
        yield from (Moments(batch, sinks=1) for _, batch in self._batches(self.tokens_per_batch // 2))

    def _batches(self, tokens: int) -> Iterator[tuple[int, Tensor]]:
        size = max(tokens // self.ids.shape[1], 1)
        yield from ((start, self.ids[start : start + size]) for start in range(0, len(self.ids), size))
