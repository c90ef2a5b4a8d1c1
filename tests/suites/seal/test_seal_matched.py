"""What a verification says where tensors are more, fewer, moved or wrapped, and of code that a cast may hide."""

import copy
import traceback
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from wheeltap import Subject, Task
from wheeltap.core.errors import ModelError
from wheeltap.suites.seal import values
from wheeltap.suites.seal.making import SealOptions, inputs_of, make
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.testing import assert_sealed
from wheeltap.suites.seal.verifying import Verification, verify


class Net(nn.Module):
    """Reads tokens, some that no sealed input has; one gain may be folded into the layer after it."""

    def __init__(self, *, turned: bool = False) -> None:
        super().__init__()
        torch.manual_seed(2)
        parts = {"table": nn.Embedding(500, 16), "norm": nn.LayerNorm(16), "up": nn.Linear(16, 16)}
        parts |= {"batch": nn.BatchNorm1d(16), "head": nn.Linear(16, 5)}
        for name in sorted(parts) if turned else parts:
            self.add_module(name, parts[name])
        with torch.no_grad():
            parts["norm"].weight.add_(torch.rand(16))
            parts["norm"].bias[0] = 0.0
            parts["head"].weight[0, 0] = 3.3e-7
            parts["up"].weight[0, :2] = 2.3e-7

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        held = self._modules
        hidden = held["batch"](held["up"](held["norm"](held["table"](inputs))).mean(1)).relu()
        return held["head"](hidden)


@cache
def sealed() -> Seal:
    inputs = torch.randint(500, (40, 12), generator=torch.Generator().manual_seed(0))
    return make(Subject(Net().eval()), Task(inputs, torch.arange(40) % 5), SealOptions(seed=1)).seal


def net(change: Callable[[Net], object] = lambda made: None) -> nn.Module:
    made = Net().eval()
    with torch.no_grad():
        change(made)
    return made


def said(change: Callable[[Net], object]) -> Verification:
    return verify(net(change), sealed())


def mixed(made: Net) -> None:
    head = copy.deepcopy(made.head)
    made.bfloat16().float()
    made.head = head


def test_a_mixture_of_casts_of_ones_own_does_not_pass() -> None:
    found = said(mixed)
    assert (found.verdict, "as sealed and bfloat16" in found.detail) == ("altered", True)


def test_a_setting_is_seen_after_two_casts() -> None:
    assert said(lambda made: made.half().bfloat16().float()).verdict == "equivalent"

    def other(made: Net) -> None:
        made.batch.eps = 1e-3
        made.half().bfloat16().float()

    assert said(other).verdict == "altered"


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.bfloat16().half().float(),
        lambda made: made.double(),
        lambda made: [part.copy_(part.half()) for part in made.parameters() if part.ndim > 1],
        lambda made: [part.copy_(part.bfloat16()) for part in made.parameters()],
    ],
)
def test_what_loaders_make_of_all_weights_is_equivalent(change: Callable[[Net], object]) -> None:
    assert said(change).verdict == "equivalent"


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.batch.num_batches_tracked.add_(3),
        lambda made: made.norm.bias[0].copy_(torch.tensor(-0.0)),
        lambda made: made.double().table.weight[7, 0].mul_(1 + 2.0**-50),
        lambda made: made.table.weight[7, :2].copy_(made.table.weight[7, :2].flip(0)),
    ],
)
def test_every_bit_counts(change: Callable[[Net], object]) -> None:
    """A counter, the sign of a zero, what single precision cannot hold, two numbers in each other's place."""
    assert said(change).verdict == "altered"


def test_bits_of_numbers_that_are_none_count() -> None:
    one, two = torch.full((3,), torch.nan), torch.full((3,), torch.nan)
    two.view(torch.int32)[1] += 1
    whole = [values.leaves(nn.ParameterList([part]), seed=1) for part in (one, one.double(), two, one.reshape(3, 1))]
    assert whole[0] == whole[1]
    assert whole[2] != whole[0] != whole[3]


def test_the_same_weights_in_other_modules_and_exchanged_ones_do_not_pass() -> None:
    turned = Net(turned=True).eval()
    turned.load_state_dict(Net().state_dict())
    found = verify(turned, sealed())
    assert (found.verdict, "order of modules" in found.detail) == ("altered", True)

    def exchanged(made: Net) -> None:
        gain = made.norm.weight.clone()
        made.norm.weight.copy_(made.batch.weight)
        made.batch.weight.copy_(gain)

    assert said(exchanged).kind == "swapped"


def test_more_tensors_are_altered_and_named() -> None:
    found = said(lambda made: made.register_parameter("scale", nn.Parameter(torch.ones(()))))
    assert (found.verdict, "Not sealed: tensor scale" in found.detail) == ("altered", True)
    assert not said(lambda made: made.register_buffer("copied", made.head.weight.clone())).passed

    def damaged(made: Net) -> None:
        made.register_buffer("places", torch.arange(3))
        made.up.weight[3].neg_()

    found = said(damaged)
    assert (found.verdict, found.block, "places" in found.detail) == ("altered", "up", True)
    with pytest.raises(ModelError, match=r"head.weight was \[5, 16\] and is \[6, 16\]"):
        said(lambda made: setattr(made, "head", nn.Linear(16, 6).eval()))


def unread(made: Net) -> list[int]:
    return sorted(set(range(500)) - set(torch.as_tensor(inputs_of(sealed())).unique().tolist()))


def folded(made: Net) -> None:
    scale = 2.0 ** torch.arange(-3.0, 5.0).repeat(2)
    made.norm.weight.mul_(scale)
    made.norm.bias.mul_(scale)
    made.up.weight.div_(scale)


def rescaled(made: Net) -> None:
    """One unit."""
    made.batch.weight[3].mul_(2.0)
    made.batch.bias[3].mul_(2.0)
    made.head.weight[:, 3].div_(2.0)


def hidden(made: Net) -> None:
    """Damage where no input looks, beside a copy that computes the same."""
    made.table.weight[unread(made)] = 5.0
    rescaled(made)


@pytest.mark.parametrize(
    "change", [folded, rescaled, hidden, lambda made: [part.weight.mul_(1 + 2e-7) for part in (made.up, made.head)]]
)
def test_other_weights_with_the_same_outputs_are_altered(change: Callable[[Net], object]) -> None:
    found = said(change)
    assert (found.verdict, found.distance <= 1.0, found.bits) == ("altered", True, 0)


class Held(nn.Module):
    """Calls a net that it does not hold as a module."""

    def __init__(self, made: nn.Module, *, buffers: bool) -> None:
        super().__init__()
        self.call = made.forward
        for name, part in made.state_dict().items() if buffers else ():
            self.register_buffer(name.replace(".", "_"), part)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.call(inputs)


def test_a_runtime_does_not_pass_by_its_outputs() -> None:
    sealed_net, flipped = net(), net(lambda made: made.table.weight[unread(made)[0]].neg_())
    assert verify(Held(sealed_net, buffers=True), sealed()).verdict == "altered"
    assert verify(Held(flipped, buffers=True), sealed(), full=True).verdict == "altered"
    assert verify(Held(flipped, buffers=False), sealed()).verdict == "same on the inputs asked"
    assert_sealed(Held(flipped, buffers=False), sealed(), outputs_only=True)
    with pytest.raises(AssertionError, match="same on the inputs asked"):
        assert_sealed(Held(flipped, buffers=False), sealed())


def test_blocks_are_named_as_sealed_inside_a_wrapper() -> None:
    flipped = net(lambda made: made.up.weight[3].neg_())
    found = verify(nn.DataParallel(flipped).eval(), sealed())
    assert (found.block, found.detail.count("module.")) == ("up", 0)
    assert not any("blocks were not seen" in note for note in found.notes)
    assert any("32 tokens at most" in note for note in found.notes)


def test_what_cannot_be_verified_is_refused() -> None:
    with pytest.raises(ModelError, match="no module"):
        verify(net().forward, sealed())  # pyright: ignore[reportArgumentType]
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ModelError, match="autocast"):
        verify(net(), sealed())


class Served(Net):
    """A net whose forward gives no gradients; or its first layers alone give none."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.how == "backbone":
            with torch.no_grad():
                hidden = self.table(inputs).mean(1)
            return self.head(self.up(hidden))
        if self.how == "numpy":
            return super().forward(inputs) * float(self.head.bias.numpy().shape[0])
        with torch.no_grad() if self.how == "no_grad" else torch.inference_mode():
            return super().forward(inputs)


@pytest.mark.parametrize("how", ["no_grad", "backbone", "inference", "numpy"])
def test_a_forward_without_gradients_is_sealed_and_says_what_is_not_known(how: str) -> None:
    inputs = torch.randint(500, (40, 12), generator=torch.Generator().manual_seed(0))
    made = make(Subject(Served(how).eval()), Task(inputs, torch.arange(40) % 5), SealOptions(inputs=2, seed=1))
    assert made.choice.unknown == pytest.approx(1 / 3 if how == "backbone" else 1.0)  # one of its three layers
    assert (made.choice.reached > 0.0) == (how == "backbone")
    assert verify(Served(how).eval(), made.seal).verdict == "identical"


class Lying(dict[str, Any]):
    """Shows its first parts, and gives others."""

    def __init__(self, shown: dict[str, Any], given: dict[str, Any]) -> None:
        super().__init__(given)
        self.shown = shown

    def items(self) -> Any:
        return self.shown.items()


class Hooks(OrderedDict[int, Any]):
    """Shows a hook to torch alone."""

    def items(self) -> Any:
        """All, when a module is called."""
        called = "_call_impl" in {frame.name for frame in traceback.extract_stack()}
        return super().items() if called else {}.items()


def given(made: Net) -> None:
    other = nn.Parameter(made.table.weight * 1.0)
    other.data[unread(made)] = 5.0
    vars(made.table)["_parameters"] = Lying(vars(made.table)["_parameters"], {"weight": other})


def hooked(made: Net) -> None:
    vars(made)["_forward_hooks"] = hooks = Hooks()
    hooks[0] = lambda module, inputs, scores: scores


def attribute(made: Net) -> None:
    before, shown = made.forward, dict(vars(made))
    made.__dict__ = Lying(shown, {**shown, "forward": lambda inputs: before(inputs) + (inputs[:, :1] > 498)})


@pytest.mark.parametrize("change", [given, hooked, attribute], ids=lambda one: one.__name__)
def test_containers_that_show_one_thing_and_give_another_are_refused(change: Callable[[Net], None]) -> None:
    with pytest.raises(ModelError, match="container of its own"):
        said(change)


class Dispatched(TorchDispatchMode):
    """Stands between operations of torch and their kernels."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_names_that_only_a_look_up_finds_are_refused_and_modes_under_way_altered() -> None:
    def hidden(made: Net) -> None:
        vars(made.up)["_parameters"] = held = OrderedDict(vars(made.up)["_parameters"])
        dict[str, Any].__setitem__(held, "scale", nn.Parameter(torch.ones(())))

    with pytest.raises(ModelError, match="container of its own"):
        said(hidden)
    with Dispatched():
        assert said(lambda made: None).verdict == "altered"


def test_hooks_of_saving_are_altered() -> None:
    def saved(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, local: object) -> None:
        state["table.weight"] = state["table.weight"] * 2.0

    found = said(lambda made: made._register_state_dict_hook(saved))
    assert (found.verdict, "_state_dict_hooks" in found.detail) == ("altered", True)
