"""Dictionaries on a device that is none: its tensors lie on the CPU, and refuse what CUDA's would refuse.

Run by ``test_dictionary_device``: a device is for a whole process.
"""

import copy
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as tree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

DEVICE = "another"
aten: Any = torch.ops.aten
ACROSS = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)


class Elsewhere(torch.Tensor):
    """A tensor that says that it is on the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(DEVICE, 0),
        )  # fmt: skip
        made.held = held
        return made

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        return self.held.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made: Any = Elsewhere(self.held.clone())
        made = torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
        return memo.setdefault(id(self), made)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return called(func, args, kwargs or {})


def called(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a function of torch gives, computed on the CPU; refused where tensors are on two devices."""
    leaves = tree.tree_leaves((args, kwargs))
    asked = next((one for one in leaves if isinstance(one, torch.device)), None)
    ours = any(isinstance(one, Elsewhere) for one in leaves)
    if not ours and (asked is None or asked.type != DEVICE):
        return func(*args, **kwargs)
    if ours and func not in ACROSS:
        given = tree.tree_leaves((args[0], *args[2:]) if func in INDEXED else (args, kwargs))
        if any(isinstance(one, torch.Tensor) and one.ndim and not isinstance(one, Elsewhere) for one in given):
            raise RuntimeError(f"tensors on two devices: {func}")
    if any(isinstance(one, torch.Generator) for one in leaves):
        raise RuntimeError(f"a generator of another device: {func}")

    def inner(one: Any) -> Any:
        return one.held if isinstance(one, Elsewhere) else torch.device("cpu") if isinstance(one, torch.device) else one

    found = func(*tree.tree_map(inner, args), **tree.tree_map(inner, kwargs))
    if func is aten.copy_.default:
        return args[0]
    if asked is not None and asked.type == "cpu":
        return found
    found = tree.tree_map(lambda one: Elsewhere(one) if isinstance(one, torch.Tensor) else one, found)
    return return_and_correct_aliasing(func, args, kwargs, found) if func._schema.is_mutable else found


class Mode(TorchDispatchMode):
    """A block in which tensors can be made on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return called(func, args, kwargs or {})


def moved(make: Any) -> Any:
    """``torch.tensor`` fills memory itself: it is made on the CPU, and sent."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return make(*args, **kwargs) if device is None else make(*args, **kwargs).to(device)

    return made


def main(folder: Path) -> None:
    backend_registration._setup_privateuseone_for_python_backend(DEVICE)
    torch.tensor = moved(torch.tensor)
    import wheeltap as wt
    from benchmarks.dictionaries.known import planted

    net, task, entry = planted(0, each=4)
    how: dict[str, Any] = {"site": "site", "steps": 20, "features": 40, "k": 3}
    with Mode():
        there = copy.deepcopy(net).to(DEVICE)
        for architecture in ("topk", "relu"):
            made = list[Any]()
            for where, one in (("cpu", net), (DEVICE, there)):
                os.environ["WHEELTAP_NETS"] = str(folder / where)  # what is kept is kept for all devices
                made.append(wt.dictionaries.train(one, task, architecture=architecture, **how))
                assert made[-1].b_dec.device.type == where
            own, other = made
            for name, tensor in other.state_dict().items():
                torch.testing.assert_close(tensor.cpu(), own.state_dict()[name], rtol=1e-3, atol=1e-4)
        wt.dictionaries.save(other, folder / "one.safetensors")
        for given in (folder / "one.safetensors", entry[0]):  # both on the CPU
            report = wt.dictionaries.check(there, given, task, site="site", seeds=2, steps=12, nulls="random")
            assert not [one.because for one in report.findings if one.status == "error"]
    print("checked")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
