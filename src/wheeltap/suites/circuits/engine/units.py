"""A decoder with units ablated, or with disturbed weights inside and outside a circuit."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.inputs import as_scores
from wheeltap.core.typed import to_tensor
from wheeltap.gauge.hidden import weight_of
from wheeltap.suites.circuits.engine.calls import Change, hooked
from wheeltap.suites.circuits.engine.sites import Sublayer, UnitSite, sources, sublayers
from wheeltap.suites.circuits.pairs import PairBatch
from wheeltap.suites.circuits.specs import NOISE

Values = Mapping[str, Tensor]
"""By site, what stands for ablated units: ``[unit]``, or ``[example, place, unit]``."""

Kept = NDArray[np.bool_]
"""``[unit]``, over all sites in order."""


@final
class UnitNet:
    """The units of a decoder, and passes in which some are ablated. Its weights are only read.

    Args:
        model: From tokens ``[example, place]`` to scores ``[example, place, token]``; in eval mode.
        tokens: A few sequences that it can read, ``[example, place]``.

    Attributes:
        layers: Attention and MLPs in order.
        sites: Where units are, in order of computation.
        slices: Of each site, its units among all.
        units: How many there are in all.

    Raises:
        ModelError: If its units are not known.
    """

    def __init__(self, model: nn.Module, tokens: Tensor) -> None:
        self.model, self._tokens = model, tokens
        self.layers: tuple[Sublayer, ...] = sublayers(model, tokens)
        self.sites: tuple[UnitSite, ...] = tuple(site for layer in self.layers for site in layer.sites)
        ends = np.cumsum([0, *(site.units for site in self.sites)])
        self.slices = {site.name: slice(int(ends[at]), int(ends[at + 1])) for at, site in enumerate(self.sites)}
        self.units = int(ends[-1])

    # ---- passes -----------------------------------------------------------------------------------------------

    def scores(self, tokens: Tensor, mask: Tensor | None = None, values: Values | None = None) -> Tensor:
        """Scores at the last place, ``[example, token]``.

        Args:
            tokens: ``[example, place]``.
            mask: ``[unit]``, from 0 (ablated) to 1 (kept), over all sites; nothing is ablated without one.
            values: What stands for ablated units; 0 where a site has none.
        """
        changes = nullcontext() if mask is None else self._at(partial(self._masked, mask, values or {}))
        with changes:
            return as_scores(self.model(tokens))[:, -1]

    def _masked(self, mask: Tensor, values: Values, site: UnitSite, given: Tensor) -> Tensor:
        own = mask[self.slices[site.name]].to(given.dtype)
        held = values.get(site.name)
        return given * own if held is None else given * own + held.to(given.dtype) * (1.0 - own)

    def _at(self, change: Callable[[UnitSite, Tensor], Tensor]) -> AbstractContextManager[None]:
        """While the block runs, the units of each site are what a function makes of them."""
        before, after = dict[str, Change](), dict[str, Change]()
        for site in self.sites:
            (before if site.side == "input" else after).update(dict.fromkeys(site.layers, partial(change, site)))
        return hooked(self.model, before, after)

    def recorded(self, tokens: Tensor) -> dict[str, Tensor]:
        """What every unit holds in a clean pass, by site: ``[example, place, unit]``."""
        found: dict[str, Tensor] = {}

        def keep(site: UnitSite, given: Tensor) -> Tensor:
            found[site.name] = given.detach()
            return given

        with torch.no_grad(), self._at(keep):
            self.model(tokens)
        return found

    def means(self, sequences: Sequence[Tensor]) -> dict[str, Tensor]:
        """Mean of every unit over all places of some sequences (``[example, place]`` each), by site: ``[unit]``."""
        sums = {site.name: torch.zeros(site.units, dtype=torch.float64) for site in self.sites}
        for tokens in sequences:
            for name, held in self.recorded(tokens).items():
                sums[name] += held.double().sum((0, 1)).cpu()
        count = sum(tokens.numel() for tokens in sequences)
        return {name: (total / count).float().to(self.device) for name, total in sums.items()}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    # ---- pairs ------------------------------------------------------------------------------------------------

    def gaps(self, batch: PairBatch, mask: Tensor | None = None, values: Values | None = None) -> Tensor:
        """How much higher the right answer's score is than the other one's, ``[side, pair]``: clean, corrupted.

        ``[example, ...]`` values must hold both sides: the clean ones first.
        """
        both = batch.both_sides().part(slice(None), device=self.device)
        scores = self.scores(both.clean, mask, values)
        return both.gaps(scores.to(torch.promote_types(scores.dtype, torch.float32))).view(2, -1)

    # ---- edges ------------------------------------------------------------------------------------------------

    def edges(self, kept: Kept) -> int:
        """Weights that are not 0 and lie between two units that are kept."""
        mask = to_tensor(np.asarray(kept))
        return sum(int(wire.nonzero[mask[wire.rows]][:, mask[wire.columns]].sum()) for wire in self.wires)

    @cached_property
    def wires(self) -> list["Wire"]:
        """Every matrix between units."""
        found: list[Wire] = []
        for layer in self.layers:
            read, *held, write = (self._numbers(site) for site in layer.sites)
            hidden = torch.cat(held)
            if layer.mixes:
                hidden = hidden[sources(self.model, self._tokens, layer).cpu()]
            for at, path in enumerate(layer.ins):
                found.append(self._wire(path, held[at if layer.mixes else 0], read))
            found.append(self._wire(layer.out, write, hidden))
        return found

    def _numbers(self, site: UnitSite) -> Tensor:
        held = self.slices[site.name]
        return torch.arange(held.start, held.stop)

    def _wire(self, path: str, rows: Tensor, columns: Tensor) -> "Wire":
        module = self.model.get_submodule(path)
        transposed, held = type(module).__name__ == "Conv1D", weight_of(module)
        return Wire(path, rows, columns, transposed, ((held.T if transposed else held) != 0).cpu())


@final
@dataclass(frozen=True)
class Wire:
    """A matrix between units.

    Attributes:
        path: Module path.
        rows: Which unit each output is, ``[output]``.
        columns: Which unit each input is, or is the value of, ``[input]``.
        transposed: Whether the module stores ``[input, output]``.
        nonzero: Which weights are not 0, ``[output, input]``.
    """

    path: str
    rows: Tensor
    columns: Tensor
    transposed: bool
    nonzero: Tensor

    def weight(self, model: nn.Module) -> Tensor:
        """The matrix, ``[output, input]``: a view of what the module holds."""
        held = weight_of(model.get_submodule(self.path))
        return held.T if self.transposed else held


def two_sided(gaps: Tensor) -> Tensor:
    """Cross-entropy of the right one of two answers, from score gaps ``[side, pair]``: mean over sides, ``[pair]``."""
    return nn.functional.softplus(-gaps).mean(0)


_BITS: Final = 4


@final
class CircuitWeights:
    """Which weights lie between units of a circuit, and which others there are. The net must be a copy: it is changed.

    Args:
        net: Of a copy of the model.
        kept: The circuit.

    Attributes:
        own: Weights of the circuit: flags over all weights in order.
    """

    def __init__(self, net: UnitNet, kept: Kept) -> None:
        self.net = net
        mask = to_tensor(np.asarray(kept))
        inside = [wire.nonzero & mask[wire.rows][:, None] & mask[wire.columns] for wire in net.wires]
        self.own = torch.cat([one.flatten() for one in inside])
        nonzero = torch.cat([wire.nonzero.flatten() for wire in net.wires])
        self._others = (nonzero & ~self.own).nonzero()[:, 0].numpy()

    def others(self, *, root: int, draw: int) -> Tensor:
        """As many weights that are not 0 outside of the circuit, drawn at random: flags over all weights in order."""
        rng = seeds.generator(root, "other weights", draw)
        taken = rng.choice(self._others, size=min(int(self.own.sum()), len(self._others)), replace=False)
        flags = torch.zeros(len(self.own), dtype=torch.bool)
        flags[to_tensor(taken)] = True
        return flags

    @contextmanager
    def disturbed(self, kind: str, flags: Tensor, *, rng: np.random.Generator) -> Generator[None]:
        """While the block runs, the weights that are flagged are disturbed."""
        held, start = list[tuple[Tensor, Tensor]](), 0
        try:
            for wire in self.net.wires:
                weight = wire.weight(self.net.model)
                own = flags[start : start + weight.numel()].view(weight.shape).to(weight.device)
                start += weight.numel()
                held.append((weight, weight.clone()))
                weight[own] = _changed(kind, weight, rng=rng)[own]
            yield
        finally:
            for weight, before in held:
                weight.copy_(before)


def _changed(kind: str, weight: Tensor, *, rng: np.random.Generator) -> Tensor:
    """A matrix, disturbed as a whole."""
    match kind:
        case "pruning":
            return torch.zeros_like(weight)
        case "4-bit rounding":
            step = weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / (2 ** (_BITS - 1) - 1)
            return (weight / step).round() * step
        case _:
            drawn = to_tensor(rng.standard_normal(weight.shape).astype(np.float32), like=weight)
            return weight * (1.0 + NOISE * drawn)
