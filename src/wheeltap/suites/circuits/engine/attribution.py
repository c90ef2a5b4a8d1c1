"""Scores of edges to first order: edge attribution patching, also with integrated gradients."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.engine.apply import differentiable
from wheeltap.suites.circuits.circuit import Stage
from wheeltap.suites.circuits.engine.calls import Change, hooked
from wheeltap.suites.circuits.engine.edges import EdgeDecoder
from wheeltap.suites.circuits.pairs import PairBatch

Method = Literal["eap", "eap-ig"]

BYTES: Final = 2**27
"""What a backward pass and the gradients of its readers may take: larger batches are hardly faster."""

_ACTIVATIONS: Final = 24
"""Tensors as wide as the residual stream that a block leaves for its backward pass, in GPT-2."""

Scores = NDArray[np.float64]


@final
@dataclass(eq=False)
class _Taps:
    """The tensors of one pass whose gradients are wanted, and the streams that heads were given.

    Attributes:
        tensors: Outputs of projections, and what each MLP, and the end, is given, by module path.
        streams: What is given to the first of the modules before the projections, by layer.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    streams: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def hooked(self, wired: EdgeDecoder) -> AbstractContextManager[None]:
        """While the block runs, a pass fills them."""
        wiring, before, after = wired.wiring, dict[str, Change](), dict[str, Change]()

        def project(path: str, output: Tensor) -> Tensor:
            self.tensors[path] = output
            return output

        def note(layer: int, stream: Tensor) -> Tensor:
            self.streams[layer] = stream.detach()
            return stream

        def single(path: str, stream: Tensor) -> Tensor:
            # The stream goes on past the reader: what the gradient is wanted by is the way into the reader alone.
            self.tensors[path] = stream.view_as(stream)
            return self.tensors[path]

        for layer, block in enumerate(wiring.blocks):
            after |= {affine.path: partial(project, affine.path) for affine in wiring.projections(layer)}
            if block.through:
                before[block.through[0]] = partial(note, layer)
        readers = [block.reader for block in wiring.blocks if block.mlp] + [wiring.end]
        return hooked(wired.model, before | {path: partial(single, path) for path in readers}, after)


def attribute(wired: EdgeDecoder, batches: Sequence[PairBatch], method: Method = "eap-ig", *, steps: int = 5) -> Scores:
    """Return the score of every edge, mean over pairs, ``[edge]``.

    The metric is the logit of the answer less that of the wrong answer: a score says by how much it falls.

    Args:
        wired: The decoder.
        batches: Pairs; those of a batch have equally long contexts.
        method: ``eap`` (gradient on the clean context), or ``eap-ig`` (mean gradient on the way of the embedding from
            the corrupted context to the clean one).
        steps: On that way, for ``eap-ig``.

    Raises:
        ModelError: If the metric or a gradient is not finite.
    """
    graph, pairs = wired.graph, sum(len(batch.clean) for batch in batches)
    sums = [torch.zeros(stage.writers, len(stage.readers), dtype=torch.float64, device=wired.subject.device)
            for stage in graph.stages]  # fmt: skip
    number = wired.wiring.width * next(wired.model.parameters()).element_size()
    tokens = BYTES // (number * (_ACTIVATIONS * graph.layers + 2 * _READERS))
    with weights_still(wired.model), differentiable(wired.model):
        for batch in (part for whole in batches for part in wired.split(whole, tokens=tokens)):
            _Attribution(wired, batch).add_to(sums, steps if method == "eap-ig" else 1)
    scores = torch.cat([total.flatten() for total in sums]).cpu().numpy() / pairs
    if not np.isfinite(scores).all():
        raise ModelError(
            "A score of an edge is not finite.",
            where=f"{wired.subject.name}: {graph.edges[int(np.flatnonzero(~np.isfinite(scores))[0])]}",
            expected="finite gradients of the metric",
            got="NaN or infinity",
            do="Check that the model's logits are finite on both contexts of every pair.",
        )
    # A gradient says how the metric rises: a score is how much it falls.
    return -scores


@final
class _Attribution:
    """The scores of one small batch."""

    def __init__(self, wired: EdgeDecoder, batch: PairBatch) -> None:
        self.wired, self.batch = wired, batch
        self.clean = wired.written(batch.clean)
        self.corrupted = wired.written(batch.corrupted)
        moved = [two - one for one, two in zip(self.clean, self.corrupted, strict=True)]
        # Places where nothing differs add nothing: of causal models those before the first token that does.
        differs = torch.stack([part.ne(0.0).any(-1).any(0) for part in moved]).any(0).nonzero()
        self.since = int(differs[0]) if len(differs) else 0
        self.moved = [part[:, self.since :] for part in moved]

    def add_to(self, sums: list[Tensor], steps: int) -> None:
        """Add the sum over this batch of every edge's score, times -1, to each stage's ``[writer, reader]``."""
        for step in range(1, steps + 1):
            self._add(sums, self._gradients(step / steps), weight=1.0 / steps)

    def _gradients(self, share: float) -> _Taps:
        """Return the gradients of the metric at every tap, the embedding this share of the way to the clean one."""
        wired, one, two = self.wired, self.clean[0], self.corrupted[0]
        start = (one if share == 1.0 else two + share * (one - two)).detach().requires_grad_()
        taps = _Taps()
        with (
            torch.enable_grad(),
            taps.hooked(wired),
            wired.replacing({0: lambda _: start.clone()}),
        ):  # blocks may add to it in place
            value = self.batch.gaps(wired.logits(self.batch.clean)).sum()
        wanted = {path: tensor for path, tensor in taps.tensors.items() if tensor.requires_grad}
        found = torch.autograd.grad(value, [*wanted.values()], allow_unused=True, materialize_grads=True)
        slopes = {path: slope[:, self.since :] for path, slope in zip(wanted, found, strict=True)}
        return _Taps(slopes, {layer: stream[:, self.since :] for layer, stream in taps.streams.items()})

    def _add(self, sums: list[Tensor], slopes: _Taps, *, weight: float) -> None:
        """Adds products of differences and gradients; each part is spread over its heads once for many readers."""
        stages, window = self.wired.graph.stages, dict[int, Tensor]()
        for at, stage in enumerate(stages):
            window[at] = self._by_reader(stage, slopes).flatten(1)
            if at == len(stages) - 1 or sum(map(len, window.values())) >= _READERS:
                own, together = {stage: sums[stage] for stage in window}, torch.cat([*window.values()])
                window.clear()
                for part in range(len(self.wired.parts)):
                    self._add_part(own, together, part, weight)

    def _add_part(self, sums: Mapping[int, Tensor], slopes: Tensor, at: int, weight: float) -> None:
        """Adds one part's products to the sums of some stages; ``slopes`` are of all their readers, in order."""
        part, stages = self.wired.parts[at], self.wired.graph.stages
        readers = [len(stages[stage].readers) for stage in sums]
        if part.first < max(stages[stage].writers for stage in sums):
            products = weight * (self.wired.spread(at, self.moved[at]).flatten(1) @ slopes.T).double()
            for (stage, own), product in zip(sums.items(), torch.split_with_sizes(products, readers, 1), strict=True):
                if part.first < stages[stage].writers:
                    own[part.first : part.first + part.count] += product

    def _by_reader(self, stage: Stage, slopes: _Taps) -> Tensor:
        """Gradient by the stream that each reader of a stage is given, ``[reader, row, place, width]``."""
        wired = self.wired
        if stage.layer == wired.graph.layers:
            return slopes.tensors[wired.wiring.end][None]
        block, found = wired.wiring.blocks[stage.layer], list[Tensor]()
        if "<" in stage.readers[0]:
            heads = sum(wired.wiring.counts().values())
            normed = slopes.tensors[wired.wiring.end].new_zeros(0)
            for affine, columns in wired.channels(stage.layer):
                maps, rows = wired.maps(affine, len(columns))
                own = slopes.tensors[affine.path][..., rows]
                own = own.view(*own.shape[:2], len(columns), -1)
                own = torch.einsum("bphw,hwd->hbpd", own, maps)
                normed = normed if len(normed) else own.new_zeros(heads, *own.shape[1:])
                normed[columns] = own
            found.append(self._back(block.through, slopes.streams.get(stage.layer), normed))
        if not stage.readers[-1].endswith(">"):
            single = slopes.tensors[block.reader][None]
            found.append(self._back(block.before, slopes.streams.get(stage.layer), single))
        return torch.cat(found)

    def _back(self, paths: Sequence[str], stream: Tensor | None, slopes: Tensor) -> Tensor:
        """Gradients ``[reader, row, place, feature]`` taken back through the modules before the readers."""
        if not paths or stream is None:
            return slopes
        with torch.enable_grad():
            given = stream.expand(len(slopes), *stream.shape).detach().requires_grad_()
            return torch.autograd.grad(self.wired.through(paths, given), given, slopes)[0]


_READERS: Final = 128
"""Gradients that are held at once: a part is spread over its heads again for each such lot."""


@contextmanager
def weights_still(model: nn.Module) -> Generator[None]:
    """While the block runs, no weight takes a gradient: a pass then keeps only what activations need."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)
