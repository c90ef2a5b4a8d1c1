"""Disturbing a module in place and undoing it from its clean weights; and backward passes through it."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self, final

import torch
from torch import Tensor, nn

from wheeltap.core import coverage
from wheeltap.core.errors import RestorationError, UsageError
from wheeltap.core.fingerprint import tensor_digests
from wheeltap.core.interrupts import uninterrupted
from wheeltap.core.layer import Layer, norms
from wheeltap.core.plain import many
from wheeltap.core.site import Site
from wheeltap.core.stages import stage
from wheeltap.core.subject import Subject
from wheeltap.core.typed import named_modules, squares
from wheeltap.engine.activations import ActivationHooks
from wheeltap.engine.clean_weights import CleanWeights
from wheeltap.perturb import Perturbation
from wheeltap.perturb.base import BlockFactors, Draw, Known, Noise, Weights, move


class Knowledge(ABC):
    """What is known of each layer, by name; of some it may depend on dose and draw.

    Attributes:
        forwards: Passes over the task that it took so far.
    """

    forwards: float = 0.0

    def why_not(self, layer: Layer) -> str:
        """Why nothing is known of ``layer``."""
        return "not reached by these examples"

    @abstractmethod
    def covers(self, layer: Layer) -> bool:
        """Whether anything is known of ``layer``; of another the disturbance leaves the weights alone."""

    @abstractmethod
    def at(self, dose: float, *, root: int, seed: int) -> Mapping[str, Known]:
        """What is known at a dose of a draw, by the layer's name; it holds until the next call."""

    def kept(self, scores: Tensor, index: Tensor, *, root: int, seed: int) -> dict[str, Tensor]:
        """What outcomes of a draw keep beside the measures, by name, one number per example; nothing, by default.

        Args:
            scores: Of the disturbed model, ``[example, option]``.
            index: Which of the task's examples these are.
            root: The plan's root seed.
            seed: Index of the draw.
        """
        return {}


@final
@dataclass
class LayerKnowledge(Knowledge):
    """The same at every dose of every draw."""

    known: Mapping[str, Known]
    forwards: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def why_not(self, layer: Layer) -> str:
        """See ``Knowledge.why_not``."""
        return self.left_out.get(layer.name) or super().why_not(layer)

    def covers(self, layer: Layer) -> bool:
        """See ``Knowledge.covers``."""
        return layer.name in self.known

    def at(self, dose: float, *, root: int, seed: int) -> Mapping[str, Known]:
        """See ``Knowledge.at``."""
        return self.known


@final
class Disturbance:
    """Weights of one subject, replaced while the block runs and put back when it ends; activations too.

    Undo is by ``CleanWeights``, never by subtraction: adding and subtracting noise does not give the same bits back.

    Args:
        subject: Whose weights.
        perturbation: What is done to them.
        site: Which layers.
        known: What the perturbation needs to know of each layer, by name where no dose or draw changes it.
    """

    def __init__(
        self,
        subject: Subject,
        perturbation: Perturbation,
        site: Site,
        known: Knowledge | Mapping[str, Known] | None = None,
    ) -> None:
        self.subject, self.perturbation = subject, perturbation
        self.knowledge = known if isinstance(known, Knowledge) else LayerKnowledge(known or {})
        self._position, layers = located(subject, site)
        self.layers = [
            layer
            for layer in layers
            if site.covers(layer.name)
            and perturbation.accepts(layer)
            and (not perturbation.needs or self.knowledge.covers(layer))
        ]
        self.left_out = {
            layer.name: self.knowledge.why_not(layer)
            if perturbation.accepts(layer)
            else "its weight is used in more than one place"
            if layer.tied
            else f"{perturbation.title}: not defined on it"
            for layer in layers
            if site.covers(layer.name) and layer not in self.layers
        }
        self._clean = CleanWeights(subject, ())
        self._live: dict[str, Weights] = {}
        self._stored: dict[str, tuple[Tensor, Tensor]] = {}
        self._lengths: dict[str, float | None] = {}
        # One draw's directions by layer, each with its squared length.
        self._directions: tuple[tuple[int, int], dict[str, tuple[Weights, float]]] | None = None
        self._size = 0.0
        self.relative_norm = 0.0
        self.hooks = ActivationHooks(subject, perturbation, self.layers) if perturbation.changes != "weights" else None
        self._touched: dict[str, tuple[float, float]] = {}
        self._asked, self._weights = asked(subject, site) if site.everywhere else (0, 0)
        self._sizes = subject.sizes if site.everywhere else {}

    def require_layers(self, site: Site) -> None:
        """Raises ``UsageError`` if it would touch no weight; of a quantized model it says which ones are packed."""
        if self.layers or self.perturbation.changes == "cache":
            return
        packed, name = coverage.packed(self.subject.model), self.subject.name
        held = ", ".join(f"{one.name} ({one.size:,})" for one in packed[:_NAMED])
        more = f" and {len(packed) - _NAMED} more modules" if len(packed) > _NAMED else ""
        if packed:
            raise UsageError(
                f"{name} is quantized already, and packed weights cannot be disturbed.",
                got=f"{held}{more}",
                do="Disturb the model that it was made from.",
            )
        raise UsageError(
            "The disturbance touches no weight.",
            where=f"{name}: {site}",
            expected=f"a site with layers that {self.perturbation.name!r} is defined on",
            got="; ".join(f"{name}: {why}" for name, why in list(self.left_out.items())[:_NAMED]) or None,
        )

    @property
    def untouched(self) -> str:
        """What this disturbance needs to know and could not read of some layers, in words; empty where it could."""
        if not self.left_out or self.perturbation.needs not in _OF_EVERY_LAYER:
            return ""
        sizes = {layer.name: self.subject.parameter(layer.weight).numel() for layer in self.subject.layers}
        share = sum(sizes[name] for name in self.left_out) / sum(sizes.values())
        named = [f"{name} ({why})" for name, why in list(self.left_out.items())[:_NAMED]]
        more = len(self.left_out) - len(named)
        return (
            f"{len(self.left_out)} of {len(sizes)} layers of {self.subject.name}, with {share:.1%} of their weights, "
            f"were left as they are: {', '.join(named)}{f' and {more} more' if more else ''}."
        )

    @stage("disturbing")
    def __enter__(self) -> Self:
        with torch.no_grad():
            self._clean = CleanWeights(self.subject, self.layers)
            for layer in self.layers:
                held = self._live[layer.name] = self._held(layer)
                if layer.length is not None:
                    length = self.subject.parameter(layer.length)
                    self._stored[layer.name] = held.weight.detach().clone(), length.detach().clone()
                if isinstance(self.perturbation, Noise):
                    self._lengths[layer.name] = self.perturbation.squared_length(self._clean.of(layer))
            self._size = self.subject.squared_norm or 1.0
        if self.hooks is not None:
            self.hooks.__enter__()
        return self

    @uninterrupted()
    @stage("restoring")
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directions = None
        if self.hooks is not None:
            self.hooks.__exit__(kind, error, trace)
        lost: Exception | None = None
        for layer in self.layers:
            try:
                _write(self._held(layer), self._clean.of(layer))
            except (RestorationError, OSError) as unread:  # what else there is comes back all the same
                lost = unread
            if layer.length is not None:
                self._write_stored(layer, layer.length)
        self._clean.close()
        self._stored.clear()
        self._live.clear()
        if lost is not None:
            raise lost

    def _held(self, layer: Layer) -> Weights:
        """The live parameters of a layer."""
        bias = None if layer.bias is None else self.subject.parameter(layer.bias)
        return Weights(self.subject.parameter(layer.weight), bias)

    @stage("disturbing")
    @torch.no_grad()
    def apply(self, dose: float, *, root: int, seed: int, keep: bool = True) -> None:
        """Writes the disturbed weights for this dose and draw, from the clean copy each time.

        Afterwards ``relative_norm`` holds ||change|| / ||weights||, of all the subject's weights.

        Args:
            dose: How much.
            root: The plan's root seed.
            seed: Index of the draw.
            keep: Whether other doses of the same draw may follow: it is then drawn once, and held in memory of its
                own.
        """
        self.perturbation.require_dose(dose)
        if keep and isinstance(self.perturbation, Noise):
            self._clean.hold()
        known = self.knowledge.at(dose, root=root, seed=seed)
        moved = 0.0
        if self.hooks is not None:
            self.hooks.dose, self.hooks.cached = dose, 0
            self.hooks.reached.clear()
        # The first layers last: those of a small net are then still in the processor's cache when it runs.
        for layer in reversed(self.layers):
            held, clean = self._live[layer.name], self._clean.of(layer)
            draw, biased = Draw(root, seed, known.get(layer.name)), False
            if self._position is not None:
                # One weight as the perturbation of its whole layer would write it; the rest stays clean.
                new = self.perturbation.replace(layer, clean, dose, draw)
                matrix = layer.matrix(clean.weight).clone()  # of the held weight it may be a copy, not a view
                matrix[self._position] = layer.matrix(new.weight)[self._position]
                held.weight.data.copy_(layer.stored(matrix))
                moved += squares(held.weight.detach() - clean.weight)
            elif isinstance(self.perturbation, Noise):
                moved += dose**2 * self._move(self.perturbation, layer, clean, dose, draw, keep=keep)
                biased = True
            else:
                new = self.perturbation.replace(layer, clean, dose, draw)
                # A bias that is left alone is the clean one, not what the last dose made of it.
                _write(held, Weights(new.weight, clean.bias if new.bias is None else new.bias))
                moved += squares(held.weight.detach() - clean.weight)
                biased = new.bias is not None
                if held.bias is not None and clean.bias is not None and new.bias is not None:
                    moved += squares(held.bias.detach() - clean.bias)
            if layer.length is not None:
                self._set_lengths(layer, layer.length)
            self._touched[layer.name] = self._reached(layer, draw, biased=biased), self._reached(layer, draw)
        self.relative_norm = (moved / self._size) ** 0.5

    @property
    def coverage(self) -> float | None:
        """Share of what the site asks for that was replaced at the last dose: of all weights but those that it spares.

        ``None`` at a site of a part, and of a cache. A bias that is left alone, as rounding does, was not; nor was a
        layer whose inputs should have been replaced too, and were not: whatever reads it does not call its module.
        """
        return self._share(0, self._asked)

    @property
    def reach(self) -> float | None:
        """The same without what every format keeps in full precision: biases, and gains and shifts of norms."""
        return self._share(1, self._weights)

    def _share(self, which: Literal[0, 1], of: int) -> float | None:
        changes, hooks = self.perturbation.changes, self.hooks
        if not of or changes == "cache":
            return None
        read = hooks.reached if hooks is not None else self._touched.keys()
        return sum(sizes[which] for name, sizes in self._touched.items() if name in read) / of

    def _reached(self, layer: Layer, draw: Draw, *, biased: bool = False) -> float:
        """How many weights of a layer are disturbed: of experts that hardly any input reaches, none."""
        size = coverage.held((layer,), self._sizes, biases=biased)
        return size * draw.known.reached if isinstance(draw.known, BlockFactors) else size

    def _set_lengths(self, layer: Layer, path: str) -> None:
        """Makes a weight norm compute what was written: its directions are that, its lengths their norms."""
        weight, length = self.subject.parameter(layer.weight).data, self.subject.parameter(path).data
        if torch.equal(weight, self._clean.of(layer).weight):
            self._write_stored(layer, path)  # to the bit
            return
        length.copy_(norms(weight, like=length))
        # A row of zeros has no direction: it keeps the one it had, and its length says that it is none.
        gone = (length == 0).expand_as(weight) if length.ndim == weight.ndim else length == 0
        weight.copy_(torch.where(gone, self._stored[layer.name][0], weight))

    def _write_stored(self, layer: Layer, path: str) -> None:
        directions, lengths = self._stored[layer.name]
        self.subject.parameter(layer.weight).data.copy_(directions)
        self.subject.parameter(path).data.copy_(lengths)

    def _move(self, noise: Noise, layer: Layer, clean: Weights, dose: float, draw: Draw, *, keep: bool) -> float:
        """Writes a layer moved by noise; gives the squared length of the draw's direction.

        That is kept while doses of one draw follow each other: so one draw serves a whole curve. Not where clean
        weights are read from a file: all directions take as much memory as a copy of them.
        """
        held, known, keep = self._live[layer.name], self._lengths[layer.name], keep and not self._clean.from_file
        if self._directions is not None and self._directions[0] != (draw.root, draw.seed):
            self._directions = None  # freed before the next one is drawn
        if self._directions is None:
            if not keep:
                length = noise.write(held, layer, clean, dose, draw)
                return (known or 0.0) if length is None else length
            self._directions = (draw.root, draw.seed), {}
        kept = self._directions[1]
        if layer.name not in kept:
            along = noise.direction(layer, clean, draw)
            kept[layer.name] = (along, along.squared_norm if known is None else known)
        along, length = kept[layer.name]
        move(held, clean, along, dose)
        return length


def located(subject: Subject, site: Site) -> tuple[tuple[int, int] | None, tuple[Layer, ...]]:
    """Row and column of a single number, and the layers among which it is: a parameter is a layer of its own there.

    Raises:
        UsageError: If the subject has no such parameter, or it is smaller.
    """
    if site.entry is None:
        return site.position, subject.layers
    path, place = site.entry
    shape = tuple(subject.parameter(path).shape) if path in subject.parameters else None
    if shape is None or len(place) != len(shape) or any(at >= size for at, size in zip(place, shape, strict=True)):
        raise UsageError(
            "The model has no such number.",
            where=f"{subject.name}: {site}",
            expected="the path of a parameter" if shape is None else f"indices in {list(shape)}",
            do="Name it by the path that model.named_parameters() gives, and its indices.",
        )
    last = shape[-1] if shape else 1
    flat = 0
    for at, size in zip(place, shape, strict=True):
        flat = flat * size + at
    return divmod(flat, last), (Layer(path, "plain", weight=path, bias=None, shape=shape),)


def asked(subject: Subject, site: Site) -> tuple[int, int]:
    """How many weights a site of the whole model asks for, and how many of them no format keeps in full precision.

    All parameters but those of layers that it spares; without biases, and gains and shifts of norms.
    """
    sizes = subject.sizes
    spared, rest = ([one for one in subject.layers if (one.name in site.spared) == own] for own in (True, False))
    every = sum(sizes.values()) - coverage.held(spared, sizes)
    return every, every - sum(sizes.get(path, 0) for path in coverage.vectors(subject.model, rest))


_OF_EVERY_LAYER = ("moments", "inputs")
"""What a disturbance of every layer needs to know of each; other knowledge is of some layers by its nature."""

_NAMED = 4
"""Layers that are named in a sentence; of more the number is given."""


def _write(held: Weights, new: Weights) -> None:
    with torch.no_grad():
        held.weight.data.copy_(new.weight)
        if held.bias is not None and new.bias is not None:
            held.bias.data.copy_(new.bias)


def state_of(model: nn.Module) -> Callable[[], None]:
    """Gives what makes a model again what it is now but for its weights: buffers, attributes, modes, ``requires_grad``.

    Attributes are put back as the objects that they were: what changes inside of one (a dict that a forward fills)
    stays changed.
    """
    modules = [
        (module, dict(vars(module)), [(name, one, one.detach().clone()) for name, one in buffers])
        for _, module in named_modules(model)
        for buffers in [list(module.named_buffers(recurse=False))]
    ]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    @torch.no_grad()
    def put_back() -> None:
        for module, attributes, buffers in modules:
            held = vars(module)
            for name in held.keys() - attributes.keys():
                del held[name]
            held.update(attributes)
            for name, buffer, contents in buffers:
                # A forward may also have put another tensor, even of another shape, in its place.
                setattr(module, name, buffer)
                buffer.data.copy_(contents)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

    return put_back


@contextmanager
def preserved_state(subject: Subject) -> Generator[None]:
    """Puts back whatever else than weights a forward pass may change (see ``state_of``), random numbers too."""
    put_back = state_of(subject.model)
    with same_random_numbers(subject):
        try:
            yield
        finally:
            put_back()


@contextmanager
def same_random_numbers(subject: Subject) -> Generator[None]:
    """Puts back the state of torch's random numbers, on the CPU and on the subject's device."""
    devices = [subject.device] if subject.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # pyright: ignore[reportUnknownMemberType]
        yield


@contextmanager
def verified_restoration(subject: Subject, before: dict[str, str] | None = None) -> Generator[dict[str, str]]:
    """Proves that a subject leaves the block as it came: weights, buffers, mode and ``requires_grad``.

    What ``preserved_state`` knows of is put back; weights are the ``Disturbance``'s to restore, and here only checked.
    Gives the digests of its tensors, which an earlier proof that nothing came after may pass on.

    Raises:
        RestorationError: If a weight is not bit-identical afterwards.
    """
    before = before or tensor_digests(subject.model)
    try:
        with preserved_state(subject):
            yield before
    finally:
        after = tensor_digests(subject.model)
        if after != before and not isinstance(sys.exception(), RestorationError):
            changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            raise RestorationError(
                "The subject did not come back bit-identical.",
                where=subject.name,
                expected="every parameter and buffer as it was",
                got=f"{many(len(changed), 'tensor')} with other bits: {', '.join(changed[:_NAMED])}",
                do="Throw this run's results away. If the model's forward writes into its weights, take that out; else "
                "report a bug in the perturbation or the engine.",
            )


@contextmanager
def differentiable(model: nn.Module) -> Generator[None]:
    """While the block runs, gradients can be had of ``model``, whatever its modules.

    Of recurrent layers cuDNN has them in training mode alone; torch's own kernels, which then take its place, always.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = before and not recurrent
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
