"""Disturbing a module in place and undoing it from a copy of exactly what changes."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, final

import torch
from torch import Tensor

from wheeltap.engine.knowledge import Fixed, Knowledge
from wheeltap.errors import RestorationError
from wheeltap.layer import Layer
from wheeltap.perturb import Perturbation
from wheeltap.perturb.base import Draw, Known, Noise, Weights, move
from wheeltap.site import Site
from wheeltap.subject import Subject, weights_digest
from wheeltap.typed import named_modules, squares


@final
class Disturbance:
    """Weights of one subject, replaced while the block runs and put back from a copy when it ends.

    Undo is by copy, never by subtraction: adding and subtracting noise does not give the same bits back.

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
        self.knowledge = known if isinstance(known, Knowledge) else Fixed(known or {})
        self._position = site.position
        self.layers = [
            layer
            for layer in subject.layers
            if site.covers(layer.name)
            and perturbation.accepts(layer)
            and (not perturbation.needs or self.knowledge.covers(layer))
        ]
        self._clean: dict[str, Weights] = {}
        self._live: dict[str, Weights] = {}
        self._lengths: dict[str, float | None] = {}
        self._directions: _Directions | None = None
        self._size = 0.0
        self.relative_norm = 0.0

    def __enter__(self) -> Self:
        with torch.no_grad():
            for layer in self.layers:
                held = self._live[layer.name] = self._held(layer)
                self._clean[layer.name] = Weights(held.weight.clone(), None if held.bias is None else held.bias.clone())
                if isinstance(self.perturbation, Noise):
                    self._lengths[layer.name] = self.perturbation.squared_length(self._clean[layer.name])
            self._size = self.subject.squared_norm or 1.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directions = None
        for layer in self.layers:
            _write(self._held(layer), self._clean[layer.name])
        self._clean.clear()
        self._live.clear()

    def _held(self, layer: Layer) -> Weights:
        """The live parameters of a layer."""
        bias = None if layer.bias is None else self.subject.parameter(layer.bias)
        return Weights(self.subject.parameter(layer.weight), bias)

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
        known = self.knowledge.at(dose, root=root, seed=seed)
        moved = 0.0
        # The first layers last: those of a small net are then still in the processor's cache when it runs.
        for layer in reversed(self.layers):
            held, clean = self._live[layer.name], self._clean[layer.name]
            draw = Draw(root, seed, known.get(layer.name))
            if self._position is not None:
                self._write_one(layer, self._position, dose, draw)
                moved += _distance(held.weight, clean.weight)
            elif isinstance(self.perturbation, Noise):
                moved += dose**2 * self._move(self.perturbation, layer, dose, draw, keep=keep)
            else:
                new = self.perturbation.replace(layer, clean, dose, draw)
                # A bias that is left alone is the clean one, not what the last dose made of it.
                _write(held, Weights(new.weight, clean.bias if new.bias is None else new.bias))
                moved += _distance(held.weight, clean.weight)
                if held.bias is not None and clean.bias is not None and new.bias is not None:
                    moved += _distance(held.bias, clean.bias)
        self.relative_norm = (moved / self._size) ** 0.5

    def _write_one(self, layer: Layer, position: tuple[int, int], dose: float, draw: Draw) -> None:
        """Writes one weight as the perturbation of its whole layer would; the rest of the layer stays clean."""
        held, clean = self._held(layer), self._clean[layer.name]
        new = self.perturbation.replace(layer, clean, dose, draw)
        matrix = layer.matrix(clean.weight).clone()  # of the held weight it may be a copy, not a view
        matrix[position] = layer.matrix(new.weight)[position]
        held.weight.data.copy_(layer.stored(matrix))

    def _move(self, noise: Noise, layer: Layer, dose: float, draw: Draw, *, keep: bool) -> float:
        """Writes a layer moved by noise; gives the squared length of the draw's direction.

        That is kept while doses of one draw follow each other: so one draw serves a whole curve.
        """
        held, clean, known = self._live[layer.name], self._clean[layer.name], self._lengths[layer.name]
        if self._directions is not None and self._directions.key != (draw.root, draw.seed):
            self._directions = None  # freed before the next one is drawn
        if self._directions is None:
            if not keep:
                length = noise.write(held, layer, clean, dose, draw)
                return (known or 0.0) if length is None else length
            self._directions = _Directions((draw.root, draw.seed), {})
        kept = self._directions.along
        if layer.name not in kept:
            along = noise.direction(layer, clean, draw)
            kept[layer.name] = (along, along.squared_norm if known is None else known)
        along, length = kept[layer.name]
        move(held, clean, along, dose)
        return length


@dataclass
class _Directions:
    """One draw's direction by layer, each with its squared length."""

    key: tuple[int, int]
    along: dict[str, tuple[Weights, float]]


def _distance(one: Tensor, two: Tensor) -> float:
    """Squared distance of two tensors."""
    return squares(one.detach() - two)


def _write(held: Weights, new: Weights) -> None:
    with torch.no_grad():
        held.weight.data.copy_(new.weight)
        if held.bias is not None and new.bias is not None:
            held.bias.data.copy_(new.bias)


@contextmanager
def as_before(subject: Subject) -> Generator[None]:
    """Puts back whatever else a forward pass may change: buffers, modes, ``requires_grad``, torch's random numbers."""
    model = subject.model
    modules = [module for _, module in named_modules(model)]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
    ]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in modules]
    devices = [subject.device] if subject.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # pyright: ignore[reportUnknownMemberType]
        try:
            yield
        finally:
            with torch.no_grad():
                for module, name, buffer, contents in buffers:
                    # A forward may also have put another tensor, even of another shape, in its place.
                    setattr(module, name, buffer)
                    buffer.data.copy_(contents)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            for module, mode in modes:
                module.training = mode


@contextmanager
def unharmed(subject: Subject) -> Generator[None]:
    """Proves that a subject leaves the block as it came: weights, buffers, mode and ``requires_grad``.

    What ``as_before`` knows of is put back; weights are the ``Disturbance``'s to restore, and here only checked.

    Raises:
        RestorationError: If a weight is not bit-identical afterwards.
    """
    before = weights_digest(subject.model)
    try:
        with as_before(subject):
            yield
    finally:
        after = weights_digest(subject.model)
        if after != before:
            raise RestorationError(
                "The subject did not come back bit-identical.",
                where=subject.name,
                expected=before,
                got=after,
                do="Throw this run's results away, and report a bug in the perturbation or the engine.",
            )
