"""Subjects: a model under audit, with its gates, fingerprint, layers and blocks."""

import contextlib
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, cast, final

import msgspec
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.nn.parameter import is_lazy

from wheeltap.core import canon, coverage
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.files import Contents
from wheeltap.core.fingerprint import Identity, identify
from wheeltap.core.inputs import parts_of, shown_parts
from wheeltap.core.layer import Layer, find_blocks, find_layers, weight_in
from wheeltap.core.records import MemberOrigin, Role, SubjectRecord
from wheeltap.core.settings import checked, name_of
from wheeltap.core.typed import first_of, inner, named_modules, squares


@final
@dataclass(frozen=True)
class CleanPasses:
    """What passes over a task show of a model.

    Attributes:
        task: Digest of the task.
        scores: The model's undisturbed scores, ``[example, option]``.
        identity: Identity of the model after the passes.
        initial: Identity of the model as it was loaded and is restored to, unless the passes rewrite weights.
        volatile: Names of the identity's items that every call changes. They are no part of the fingerprint.
        forwards: Passes over the task that this took.
        spent: Whether a run rests on it: the next one looks again.
    """

    task: str
    scores: Tensor
    identity: Identity
    initial: Identity
    volatile: Set[str]
    forwards: float
    spent: bool = False


@final
class Subject:
    """A ``torch.nn.Module`` in eval mode, ready to be disturbed and always given back as it was.

    Args:
        model: In eval mode, with finite parameters on one real device.
        name: What reports call it.
        data: Paths of buffers or parameters that are data and no weights, such as a pool of documents: they are neither
            disturbed nor counted.
        output: Which part of what the model returns are its scores, by name or number, where ``as_scores`` would take
            another or none.

    Attributes:
        layers: What disturbances change.
        settled: What passes over a task showed, once one was made.
        fixed: Weights that are no parameters, by name, with how many numbers each has: known once it is settled.
        mixes: Whether an example's answer depends on which others are in its batch: known once it is settled.
        contents: What lies beside the weights, where the model comes from a folder or file.

    Raises:
        ModelError: If the model is not a module, is in training mode, or has non-finite or missing weights.
        UsageError: If ``data`` names what the model does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "model",
        data: str | Collection[str] = (),
        output: str | int | None = None,
    ) -> None:
        self.model, self.name = model, name_of(name)
        self.output: str | None = None
        _require_auditable(model, name)
        if output is not None:
            self.choose(str(output))
        self.data = frozenset((data,) if isinstance(data, str) else data)
        known = [path for path, _ in (*model.named_buffers(), *model.named_parameters())]
        if not self.data <= {*known}:
            raise UsageError(
                "The model has no such data.",
                where=f"{name}: {', '.join(sorted(self.data.difference(known)))}",
                expected=", ".join(known[:20]),
                got="no buffer and no parameter of that name",
                do="Name it by the path that model.named_buffers() gives.",
            )
        self.layers: tuple[Layer, ...] = tuple(one for one in find_layers(model) if one.weight not in self.data)
        self.fixed: dict[str, int] = {}
        self.mixes = False
        self.contents: Contents | None = None
        self._traced = False
        self._apart: tuple[Layer, ...] = ()
        self._variant = 0
        self._record: SubjectRecord | None = None
        self._squared_norm: float | None = None
        self.settled: CleanPasses | None = None
        if not self.layers and not coverage.packed(model):  # a quantized model is a reference all the same
            raise ModelError(
                "The model has no weights that wheeltap can disturb.",
                where=name,
                expected="at least one parameter with two axes or more that is no gain of a norm, or quantized weights",
                got=type(model).__name__,
                do="Wrap the model so that its weights are parameters of its modules.",
            )

    def choose(self, output: str) -> None:
        """Takes one part of what the model returns for its scores, by name or number; the module given stays as it is.

        ``model`` is another one then, with the same modules, parameters and buffers.
        """
        other = type(self.model).__new__(type(self.model))
        other.__dict__.update(self.model.__dict__)
        other.__dict__["_forward_hooks"] = other.__dict__["_forward_hooks"].copy()
        other.register_forward_hook(_OutputChoice(output))
        self.model, self.output, self._record = other, output, None

    @property
    def device(self) -> torch.device:
        """Where the model is, and so where everything runs."""
        return first_of(self.model).device

    @property
    def squared_norm(self) -> float:
        """Sum of squares of all weights, undisturbed: taken once, when first asked for."""
        if self._squared_norm is None:
            computed = [layer for layer in self.layers if layer.length is not None]
            apart = {name for layer in computed for name in (layer.weight, layer.length)}
            named = self.model.named_parameters()
            own = sum(squares(held) for name, held in named if name not in apart and not inner(held))
            self._squared_norm = own + sum(squares(self.weight(layer)) for layer in computed)
        return self._squared_norm

    @property
    def sizes(self) -> dict[str, int]:
        """How many weights each parameter has, by its path, a tied one once; of a copy, those of its base.

        So are packed weights, and others that are no parameters (``fixed``).
        """
        apart = {layer.weight for layer in self._apart} | self.data
        sizes = coverage.sizes(self.model, buffers=not self._traced)
        return {name: size for name, size in sizes.items() if name not in apart} | self.fixed

    @property
    def parameters(self) -> tuple[str, ...]:
        """Paths of the parameters, a tied one once; of a copy, those of its base."""
        apart = {layer.weight for layer in self._apart} | self.data
        return tuple(name for name, _ in self.model.named_parameters() if name not in apart)

    @property
    def path(self) -> str:
        """Numerical path class: part of every trial's key."""
        dtype = first_of(self.model).dtype
        how = "/rounded once" if dtype.itemsize < 4 else ""  # noise in 16 bits; before, products were rounded too
        return f"plain/{self.device.type}{how}/{str(dtype).removeprefix('torch.')}"

    @property
    def record(self) -> SubjectRecord:
        """What stores and reports keep of this subject.

        Raises:
            ModelError: If a weight is that of a script, and no parameter that can be set.
        """
        if self._record is None:
            for layer in self.layers:
                try:
                    self.parameter(layer.weight)
                except AttributeError as error:
                    raise self._of_a_script(layer) from error
            sizes = self.sizes
            # Function-space noise must know the moments of the inputs of these, all of them together.
            kinds = ("linear", "transposed", "attention")
            dense = [layer for layer in self.layers if layer.kind in kinds and not layer.unread]
            self._record = SubjectRecord(
                name=self.name,
                fingerprint=self._fingerprint(),
                parameters=sum(sizes.values()),
                blocks=find_blocks(self.model, self.layers),
                layers=tuple(layer.name for layer in self.layers),
                weights=tuple(layer.weight for layer in self.layers),
                ends=coverage.ends(self.model, self.layers),
                untouched=coverage.untouched(self.layers, sizes, fixed=self.fixed.keys()),
                mixes=self.mixes or None,
                composed=coverage.composed(self.model),
                output=self.output,
                covered=coverage.held(self.layers, sizes),
                widest=max((layer.fan_in + 1 for layer in dense), default=0),
                path=self.path,
            )
        return self._record

    @property
    def identity(self) -> str:
        """Digest of tensors, class sources and chosen output: equal for models that only their outputs tell apart."""
        if self.settled is None:
            digest = identify(self.model).digest()
        else:
            digest = self.settled.identity.digest(without=self.settled.volatile)
        return digest if self.output is None else canon.key("output", [digest, self.output])

    def _fingerprint(self) -> str:
        return self.identity if not self._variant else canon.key("variant", [self.identity, self._variant])

    def set_variant(self, variant: int) -> None:
        """Tell this model apart from others of equal identity, whose clean outputs differ.

        Args:
            variant: Number among the distinct clean outputs of models with this identity; 0 for the first ones.
        """
        if variant != self._variant:
            self._variant, self._record = variant, None

    def settle(
        self,
        settled: CleanPasses,
        *,
        tied: Set[str],
        right: Set[str] = frozenset(),
    ) -> None:
        """Takes what passes over the task showed; the record is made again of the model as it is now.

        Args:
            settled: That.
            tied: Paths of weights that are used in more than one place: by functions, not only by modules.
            right: Paths of weights on the right of a product: of those that no known module stores, a column is a unit.
        """
        self.settled, self._record, self._squared_norm = settled, None, None
        self.layers = tuple(
            replace(
                layer,
                tied=layer.tied or layer.weight in tied,
                kind="stacked" if layer.kind == "plain" and layer.weight in right else layer.kind,
            )
            for layer in self.layers
        )

    @checked
    def count(self, fixed: Mapping[str, int], *, traced: bool) -> None:
        """Take the sizes of weights that are no parameters (``engine.non_parameters``); the record is made again."""
        packed = {path for path, held in self.model.named_parameters() if inner(held)}  # counted by their shape
        kept = (name for name in fixed if name not in self.data and name.rpartition(".")[0] not in packed)
        self.fixed = {name: fixed[name] for name in kept}
        self._traced, self._record = traced, None

    def known_as(self, record: SubjectRecord) -> None:
        """Takes the record that a plan has of it: the fingerprint of a member that a recipe makes is how it is made.

        Raises:
            ModelError: If it is not the model that was planned.
        """
        own, made = self.record, record.artifact is not None
        planned, found = ((one.layers, one.parameters, "" if made else one.fingerprint) for one in (record, own))
        if planned != found:
            raise ModelError(
                "This is not the model that was planned.",
                where=record.name,
                expected=f"{record.parameters:,} parameters in {len(record.layers)} layers ({record.fingerprint[:8]})",
                got=f"{own.parameters:,} in {len(own.layers)} ({own.fingerprint[:8]})",
                do="Weights or code changed since: make a new plan.",
            )
        self._record = record

    def derived(self, model: nn.Module, record: SubjectRecord) -> "Subject":
        """The control subject ``model``, made from this one as ``record`` says (see ``derived_record``).

        It is disturbed only where this one is (a weight that a gauge untied stays out), unless its maps are cut anew:
        its layers are then its own.
        """
        child = Subject(model, name=record.name, data=self.data)
        child.count(self.fixed, traced=self._traced)
        known = {layer.name: layer for layer in self.layers}
        anew = record.made is not None and "regroup" in record.made.operations
        child._apart = () if anew else tuple(layer for layer in child.layers if layer.name not in known)
        child.layers = tuple(
            replace(layer, tied=known[layer.name].tied, kind=known[layer.name].kind) if layer.name in known else layer
            for layer in child.layers
            if layer.name in known or anew
        )
        child._record = record
        return child

    def parameter(self, name: str) -> Tensor:
        """The parameter at path ``name``."""
        return cast("Tensor", attrgetter(name)(self.model))  # scripted modules have no get_parameter

    def weight(self, layer: Layer) -> Tensor:
        """A layer's weight as stored; where the module computes it by a weight norm, that.

        Raises:
            ModelError: If it is that of a script.
        """
        try:
            return weight_in(self.model, layer)
        except (RuntimeError, AttributeError) as error:  # a script; a loaded one holds tensors, not parameters
            raise self._of_a_script(layer) from error

    def _of_a_script(self, layer: Layer) -> ModelError:
        return ModelError(
            "The weights of a script (torch.jit) cannot be disturbed.",
            where=f"{self.name}: {layer.weight}",
            expected="the Python module that it was made from, in eval mode",
            got="a script",
            do="Audit that module with the same weights: module.load_state_dict(script.state_dict()).",
        )


@final
@dataclass(frozen=True)
class _OutputChoice:
    """A hook that gives one part of what a model returns in place of all."""

    output: str

    def __call__(self, module: nn.Module, args: object, returned: Any) -> Tensor:
        if isinstance(returned, Tensor):
            raise ModelError(
                "The model returns one tensor, so there is no part of it to choose.",
                where=f"output {self.output!r}",
                expected="several parts: a mapping, a tuple, a list, or an object with attributes",
                got=f"a tensor of shape {list(returned.shape)}",
                do="Leave out --output (in Python output=): this tensor is the scores.",
            )
        found = parts_of(returned).get(self.output)
        if isinstance(found, Tensor):
            return found
        raise ModelError(
            "The model's output has no such part.",
            where=f"output {self.output!r}",
            expected="the name or number of a tensor",
            got=shown_parts(returned),
            do="Give one of these to --output, or to wt.Subject(model, output=...).",
        )


def derived_record(base: SubjectRecord, made: MemberOrigin, *, role: Role, label: str = "") -> SubjectRecord:
    """The record of a control before (or without) making it. Layers and blocks are the base's.

    Its fingerprint is that of the base and how it is made, so that its trials are found in a store without making it.

    Args:
        base: Of the subject it is made from.
        made: How.
        role: What it is for.
        label: Tells controls of one role apart.
    """
    name = f"{base.name} ({role}{f' {label}' if label else ''})"
    fingerprint = canon.key("derived", [base.fingerprint, made])
    return msgspec.structs.replace(
        base, name=name, fingerprint=fingerprint, role=role, base=base.fingerprint, made=made, artifact=None
    )


def _made_of(given: object) -> str:
    """How a module is made of what was given in place of one."""
    if given is None:
        return "Give the model. Where a function made it, check that the function returns it."
    if isinstance(given, type):
        return f"Make an instance: {given.__name__}(...).eval()."
    if isinstance(given, Mapping):
        return "These look like weights alone. Build the module, then module.load_state_dict(weights); module.eval()."
    if isinstance(given, ExportedProgram):
        return _EXPORTED
    if callable(given):
        return (
            "A function has no weights that can be disturbed. Put it into the forward of a torch.nn.Module that holds "
            "its weights as parameters. Answers without a model are judged by verbs of their own: wheeltap --help."
        )
    return "Pass the module itself, or a subclass of torch.nn.Module that wraps what you have."


_TOGETHER: Final = 2**22
"""Numbers that are looked at together."""

_EXPORTED: Final = "Audit the module that it was exported from, in eval mode: it has the same weights."


def _require_auditable(model: nn.Module, name: str) -> None:
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        got = "None" if model is None else type(model).__name__
        got = f"the class {model.__name__}" if isinstance(model, type) else got
        raise ModelError(
            "The subject is not a torch module.",
            where=name,
            expected="a torch.nn.Module",
            got=got,
            do=_made_of(model),
        )
    # The module of an exported program replaces its own ``train`` and ``eval``.
    graphs = ((path, module) for path, module in named_modules(model) if isinstance(module, GraphModule))
    exported = [path for path, module in graphs if {"train", "eval"} <= vars(module).keys()]
    if exported:
        raise ModelError(
            "The model is an exported graph (torch.export).",
            where=f"{name}: {exported[0] or 'the model itself'}",
            expected="the module that it was exported from",
            got="the module of an exported program, which has no eval mode and is not the same module twice",
            do=_EXPORTED,
        )
    # A frozen scripted module has no mode.
    modes = {path: getattr(module, "training", False) for path, module in named_modules(model)}
    training = [path or "the model itself" for path, on in modes.items() if on]
    if training:
        raise ModelError(
            "The model is in training mode.",
            where=f"{name}: {training[0]}",
            expected="eval mode in every submodule",
            got=f"{len(training)} submodules in training mode",
            do="Call model.eval() first; dropout and batch statistics would be counted as fragility. Conversions such "
            "as torch.ao.quantization.quantize_dynamic make new modules: call eval() on their result.",
        )
    renormed = [path for path, module in named_modules(model) if getattr(module, "max_norm", None) is not None]
    if renormed:
        raise ModelError(
            "The model rewrites weights in its forward pass.",
            where=f"{name}: {renormed[0]}",
            expected="embeddings without max_norm",
            got=f"{len(renormed)} modules with max_norm, which shortens the rows that a pass looks up",
            do="Run one pass over all rows, then set max_norm to None: the answers stay the same.",
        )
    _require_numbers(model, name)


def _require_numbers(model: nn.Module, name: str) -> None:
    """That parameters and buffers are dense and have data, and that weights are finite."""
    for kind, tensors in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for path, tensor in tensors:
            if tensor.layout is not torch.strided:
                raise ModelError(
                    f"A {kind} is stored in a layout that cannot be disturbed.",
                    where=f"{name}: {path}",
                    expected="a dense tensor (torch.strided)",
                    got=str(tensor.layout).removeprefix("torch."),
                    do="Store it dense: tensor.to_dense().",
                )
            lazy = is_lazy(tensor)
            if lazy or tensor.is_meta:
                raise ModelError(
                    f"A {kind} has no data.",
                    where=f"{name}: {path}",
                    expected="a tensor on a real device",
                    got="one of a lazy module that was never called" if lazy else "a tensor on the meta device",
                    do="Load the weights before the audit, without offloading; call a lazy module once.",
                )
            # Masks are buffers that hold -inf on purpose; only weights must be finite.
            strange = torch.zeros(0)
            if kind == "parameter":
                with contextlib.suppress(NotImplementedError):  # a kind of packed weights that has no answer
                    flat = tensor.detach().reshape(-1)
                    starts = range(0, len(flat), _TOGETHER)
                    if not all(bool(torch.isfinite(flat[at : at + _TOGETHER]).all()) for at in starts):
                        strange = ~torch.isfinite(tensor.detach())
            if bool(strange.any()):
                first = torch.unravel_index(strange.flatten().byte().argmax(), strange.shape)
                raise ModelError(
                    "The model has weights that are not finite.",
                    where=f"{name}: {path}",
                    expected="finite numbers",
                    got=f"{int(strange.sum())} NaN or infinite values, the first at {[int(axis) for axis in first]}",
                    do="Load a valid checkpoint; no disturbance of these weights would mean anything.",
                )
