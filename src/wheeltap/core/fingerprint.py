"""Fingerprints: digests of everything that a model's answers depend on, and of its weights alone."""

import hashlib
from collections.abc import Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.anatomy import module_parts, origins, tensor_parts
from wheeltap.core.describe import SHAPE, Describer, HeldNumber
from wheeltap.core.scripted import scripts_in, shown
from wheeltap.core.stages import stage
from wheeltap.core.typed import named_modules


@final
@dataclass(frozen=True)
class Description:
    """What decides a model's answers, part by part.

    Attributes:
        items: Name to digest: of structure, attributes and hooks of every module, every parameter and buffer to the
            bit, code of the user's own classes and functions, and the globals that these load.
        unread: Where something stands that could not be read, and what it is.
        held: Numbers besides parameters and buffers that may be weights, by where they stand.
    """

    items: dict[str, str]
    unread: dict[str, str]
    held: dict[str, HeldNumber]

    def digest(self, *, without: Set[str] = frozenset()) -> str:
        """The fingerprint: a digest of all items but those in ``without``, and the parts of what is another there."""
        kept = besides(self.items.keys(), without)
        return canon.key("model", [_VERSION, *sorted((name, self.items[name]) for name in kept)])

    def differing(self, other: "Description") -> frozenset[str]:
        """Names of the items that two descriptions do not have in common."""
        names = self.items.keys() | other.items.keys()
        return frozenset(name for name in names if self.items.get(name) != other.items.get(name))


def besides(names: Set[str], passing: Set[str]) -> frozenset[str]:
    """Those of ``names`` that are not in ``passing``, nor parts of an object that has other parts each time."""
    changing = tuple(name.removesuffix(SHAPE) for name in passing if name.endswith(SHAPE))
    return frozenset(name for name in names if name not in passing and not (changing and name.startswith(changing)))


@stage("fingerprints")
def described(model: nn.Module) -> Description:
    """Everything that decides what ``model`` computes, as far as it can be read."""
    names: dict[int, str] = {}
    for kind, held in (
        ("module", named_modules(model)), ("parameter", model.named_parameters()), ("buffer", model.named_buffers()),
    ):  # fmt: skip
        names |= {id(part): f"{kind} {name}" for name, part in held}
    reader = Describer(names)
    items: dict[str, str] = {}
    for path, module, script, saved in scripts_in(named_modules(model)):
        parts, children = module_parts(module), list[list[list[str]]]()
        for kind in ("_modules", "_parameters", "_buffers"):  # what is held twice has one name elsewhere
            held = cast("dict[str, Any]", parts.pop(kind, {}))
            children.append([[name, "" if part is None else names.get(id(part), "")] for name, part in held.items()])
        if script is not None:
            items[f"code {path}"] = canon.key("code", script.code)
        if saved is not None:
            items |= {f"{_ATTRIBUTE}{path}.{name} (saved)": canon.key("saved", one) for name, one in saved.items()}
            parts = {name: one for name, one in parts.items() if not isinstance(one, _OF_SCRIPTS)} | dict(
                shown(module, saved)
            )
        items[f"structure {path}"] = canon.key("structure", [reader.class_of(type(module)), *children])
        for name, value in parts.items():
            items[f"{_ATTRIBUTE}{path}.{name}"] = reader.read(f"{_ATTRIBUTE}{path}.{name}", value)
    items |= tensor_digests(model)
    for tensors in (model.named_parameters(), model.named_buffers()):
        for name, tensor in tensors:
            for attribute, value in vars(tensor).items():
                if attribute not in origins(tensor):
                    items[f"{_ATTRIBUTE}{name}.{attribute}"] = reader.read(f"{_ATTRIBUTE}{name}.{attribute}", value)
    every = cast("Any", nn.modules.module)  # hooks that torch calls for every module there is
    hooks = [list(every._global_forward_pre_hooks.values()), list(every._global_forward_hooks.values())]
    items["hooks of all modules"] = reader.read("hooks of all modules", hooks)
    items |= dict(reader.items())
    # Where a part of a model stands: an attribute by its path.
    places = {where: where.removeprefix(_ATTRIBUTE).lstrip(".") for where in (*reader.unread, *reader.held)}
    unread = {places[where]: what for where, what in reader.unread.items()}
    return Description(items, unread, {places[where]: what for where, what in reader.held.items()})


_VERSION = 2
"""Since 2 attributes of tensors count, and so do weights that no layer holds: shares of before are not kept."""

_OF_SCRIPTS: Any = tuple(
    getattr(cast("Any", torch)._C, name) for name in ("ScriptModule", "ConcreteModuleType", "ScriptMethod")
)
"""Kinds of attributes by which torch holds a scripted module, which is read from its file."""

_ATTRIBUTE = "attribute "
"""How the names of items begin that are attributes of modules."""


@stage("fingerprints")
def tensor_digests(model: nn.Module) -> dict[str, str]:
    """Digest of each parameter and buffer by its kind and name, as in ``Description.items``."""
    held: dict[str, tuple[str, Tensor]]
    held = {f"parameter {name}": (name, one) for name, one in model.named_parameters()}
    held |= {f"buffer {name}": (name, one) for name, one in model.named_buffers()}
    if sum(one.nbytes for _, one in held.values()) < _LARGE:
        return {key: _digest_of([one]) for key, one in held.items()}
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # hashing lets other threads run
        return dict(zip(held, threads.map(_digest_of, ([one] for one in held.values())), strict=True))


_LARGE = 2**24
"""Bytes from which threads pay."""


@stage("fingerprints")
def weights_digest(model: nn.Module) -> str:
    """Digest of every parameter and buffer: name, dtype, shape, bytes. Equal means bit-identical."""
    return _digest_of([*model.named_parameters(), *model.named_buffers()])


def _digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        dtype, shape, data = tensor_parts(tensor)
        state.update(canon.canonical([name, dtype, shape]))
        state.update(data)
    return state.hexdigest()
