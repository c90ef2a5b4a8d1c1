"""Verdicts on harmless conversions, on planted changes, and on nets that only answer alike."""

import copy
import datetime

import msgspec
import numpy as np
import pytest
import torch
from sealed import Change, changed, digits, task, weights
from torch import nn

import wheeltap as wt
from wheeltap import gauge
from wheeltap.core.errors import FileFormatError, ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.sources import load
from wheeltap.suites.seal import values
from wheeltap.suites.seal.inputs import draw, drawn_again
from wheeltap.suites.seal.making import SealOptions, inputs_of, make
from wheeltap.suites.seal.record import Seal, UniformInputs, today
from wheeltap.suites.seal.testing import assert_sealed
from wheeltap.suites.seal.verifying import Verification, verify


def verified(change: Change) -> Verification:
    return verify(changed(change), digits()[1])


def test_the_model_itself_is_identical_and_comes_back_as_it_was() -> None:
    model, seal = digits()
    before = weights_digest(model)
    found = verify(model, seal)
    assert (found.verdict, found.bits, found.passed) == ("identical", 128, True)
    assert weights_digest(model) == before


@pytest.mark.parametrize(
    ("change", "conversion"),
    [
        (lambda net: net.bfloat16(), "bfloat16"),
        (lambda net: net.half(), "float16"),
        (lambda net: net.double(), "as sealed"),
        (lambda net: net.bfloat16().float(), "bfloat16"),
        (lambda net: [part.copy_(part.half()) for part in weights(net)], "float16 (matrices only)"),
        (lambda net: net.half().bfloat16(), "float16, then bfloat16"),
        (lambda net: net.bfloat16().half(), "bfloat16, then float16"),
    ],
)
def test_harmless_conversions_are_equivalent_and_named(change: Change, conversion: str) -> None:
    found = verified(change)
    assert (found.verdict, found.conversion, found.passed) == ("equivalent", conversion, True)


def test_no_harmless_run_is_called_altered() -> None:
    """Kinds of numbers, threads, and a wrapper in every third run."""
    model, seal = digits()
    threads, verdicts = torch.get_num_threads(), list[str]()
    try:
        for run in range(20):
            torch.set_num_threads(1 + run % 5)
            kind = (torch.float32, torch.float64, torch.bfloat16, torch.float16)[run % 4]
            net = copy.deepcopy(model).to(kind)
            verdicts.append(verify(net if run % 3 else nn.Sequential(net).eval(), seal).verdict)
    finally:
        torch.set_num_threads(threads)
    assert set(verdicts) <= {"identical", "equivalent"}


def rounded(net: nn.Module) -> object:
    for part in weights(net):
        step = part.abs().amax(1, keepdim=True) / 127
        part.copy_((part / step).round() * step)
    return net


def noisy(size: float) -> Change:
    def change(net: nn.Module) -> object:
        random = torch.Generator().manual_seed(3)
        return [part.mul_(1 + size * torch.randn(part.shape, generator=random)) for part in net.parameters()]

    return change


def stepped(net: nn.Module) -> object:
    task = load("digits").task
    with torch.enable_grad():
        loss = task.loss(net.requires_grad_(True), torch.arange(32))
        slopes = torch.autograd.grad(loss, list(net.parameters()))
    return [part.sub_(1e-3 * slope) for part, slope in zip(net.requires_grad_(False).parameters(), slopes, strict=True)]


@pytest.mark.parametrize(
    ("change", "kind", "block"),
    [
        (lambda net: weights(net)[1].mul_(1.5), "scale", "2"),
        (lambda net: weights(net)[1].add_(0.25), "offset", "2"),
        (lambda net: weights(net)[1].zero_(), "zeroed", "2"),
        (rounded, "quantized", "0"),
        (noisy(0.002), "noise", "0"),
        (stepped, "fine-tune", "0"),
        (lambda net: weights(net)[1][3].neg_(), "damaged", "2"),
    ],
)  # fmt: skip
def test_what_was_done_and_where_it_first_shows(change: Change, kind: str, block: str) -> None:
    found = verified(change)
    assert (found.verdict, found.kind, found.block) == ("altered", kind, block)
    assert found.distance > 10.0


def test_each_flipped_sign_is_seen_also_where_no_output_shows_it() -> None:
    """Of random weights: some are of units that no input makes answer."""
    rng = np.random.default_rng(0)
    sizes = np.array([part.numel() for part in weights(digits()[0])])
    for _ in range(20):
        index = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
        place = int(rng.integers(sizes[index]))
        assert not verified(lambda net, at=index, place=place: weights(net)[at].view(-1)[place].neg_()).passed


def test_noise_too_small_for_the_outputs_is_altered() -> None:
    found = verified(noisy(1e-6))
    assert (found.verdict, found.kind, found.distance <= 1.0) == ("altered", "noise", True)


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net[0].bias[:1].copy_(torch.tensor([-0.0])),
        lambda net: net.double()[0].weight[7, 0].mul_(1 + 2.0**-50),
        lambda net: [part.copy_(part.bfloat16()) for part in weights(net)[:1]],
        lambda net: net.register_parameter("scale", nn.Parameter(torch.ones(()))),
        lambda net: net.register_buffer("copied", net[0].weight.clone()),
    ],
)
def test_every_bit_and_tensor_counts(change: Change) -> None:
    """The sign of a zero, what single precision cannot hold, a cast of one matrix, a tensor more."""
    zero = changed(lambda net: net[0].bias[:1].zero_())
    seal = make(wt.Subject(zero), load("digits").task, SealOptions(inputs=2)).seal
    with torch.no_grad():
        change(zero)
    assert verify(zero, seal).verdict == "altered"


def test_bits_of_numbers_that_are_none_count() -> None:
    one, two = torch.full((3,), torch.nan), torch.full((3,), torch.nan)
    two.view(torch.int32)[1] += 1
    whole = [values.leaves(nn.ParameterList([part]), seed=1) for part in (one, one.double(), two, one.reshape(3, 1))]
    assert whole[0] == whole[1]
    assert whole[2] != whole[0] != whole[3]


@pytest.mark.parametrize("name", ["permute", "cancel"])
def test_of_a_reparametrized_copy_outputs_alone_are_shown(name: str) -> None:
    model, seal = digits()
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    copied = gauge.twin(model, gauge.describe(family, name, seed=1), family=family)
    found = verify(copied, seal)
    assert (found.verdict, found.passed, found.bits) == ("same on the inputs asked", False, 0)


def test_a_net_that_was_fitted_to_the_inputs_does_not_pass() -> None:
    """Other weights below, and a last layer solved for the sealed answers."""
    model, seal = digits()
    inputs, random = inputs_of(seal), torch.Generator().manual_seed(5)

    def fitted(net: nn.Module) -> None:
        for part in net.parameters():
            part.copy_(part.std() * torch.randn(part.shape, generator=random))
        hidden = net[:-1](inputs).double()
        answers = (model(inputs) - net[-1].bias).double()
        net[-1].weight.copy_(torch.linalg.lstsq(hidden, answers, driver="gelsd").solution.T)

    found = verified(fitted)
    assert (found.verdict, found.passed, found.bits) == ("same on the inputs asked", False, 0)


def test_another_net_is_another_model_and_one_that_was_trained_for_long_is_not() -> None:
    def drawn(kept: float, size: float) -> Change:
        random = torch.Generator().manual_seed(2)
        return lambda net: [
            part.copy_(kept * part + size * part.std() * torch.randn(part.shape, generator=random))
            for part in net.parameters()
        ]

    assert verified(drawn(0.0, 1.0)).verdict == "other model"
    assert verified(drawn(1.0, 0.7)).verdict == "altered"


def test_a_seal_that_has_expired_verifies_nothing() -> None:
    loaded = load("digits")
    last = today() + datetime.timedelta(days=3)
    seal = make(loaded.subject, loaded.task, SealOptions(inputs=2, expires=last.isoformat())).seal
    found = verify(loaded.subject, seal, today=last)
    assert (found.passed, found.name, found.sealed, found.expires) == (True, "digits", str(today()), str(last))
    for day in (last + datetime.timedelta(days=1), today() - datetime.timedelta(days=2)):
        with pytest.raises(UsageError):
            verify(loaded.subject, seal, today=day)
    with pytest.raises(UsageError):
        SealOptions(expires=str(today() - datetime.timedelta(days=1)))


class Noisy(nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + torch.randn(3)


class Counts(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.calls = nn.Buffer(torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(inputs)


def shared() -> nn.Module:
    made = nn.Linear(6, 3)
    made.bias = nn.Parameter(torch.ones(1).expand(3))
    return made


def inference() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(6, 3)


def test_models_that_cannot_be_sealed_are_refused_and_come_back_as_they_were() -> None:
    """Random outputs, a counter of calls, numbers that share memory, tensors that nobody may write to."""
    for make_net in (lambda: Noisy(6, 3), lambda: Counts(6, 3), shared, inference):
        made = make_net().eval()
        before = weights_digest(made)
        with pytest.raises(ModelError):
            make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2))
        assert weights_digest(made) == before


class Tied(nn.Module):
    """A decoder whose weights are a view of the encoder's, and no gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.enc, self.dec = nn.Linear(6, 8), nn.Linear(8, 6)
        self.dec.weight = nn.Parameter(self.enc.weight.detach().t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.dec(self.enc(inputs).relu())


def test_a_model_without_gradients_and_with_views_is_sealed_all_the_same() -> None:
    made = Tied().eval()
    before = weights_digest(made)
    seal = make(wt.Subject(made), task(), SealOptions(inputs=2)).seal
    assert weights_digest(made) == before
    assert verify(copy.deepcopy(made), seal).verdict == "identical"


class Runtime(nn.Module):
    """Calls a net that it does not hold as a module."""

    def __init__(self, model: nn.Module, off: float = 0.0) -> None:
        super().__init__()
        self.call, self.off = model.forward, off

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.call(inputs) * (1.0 + self.off)


def test_a_runtime_without_weights_is_verified_by_its_outputs() -> None:
    model, seal = digits()
    found = verify(Runtime(model), seal)
    assert (found.verdict, found.bits) == ("same on the inputs asked", 0)
    assert_sealed(Runtime(model), seal, outputs_only=True)
    with pytest.raises(AssertionError):
        assert_sealed(Runtime(model), seal)
    with pytest.raises(AssertionError):
        assert_sealed(Runtime(model, 0.05), seal, outputs_only=True)


def test_what_cannot_be_verified_is_refused() -> None:
    """No module, another architecture, and a module under autocast."""
    model, seal = digits()
    other = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)).eval()
    for wrong in (model.forward, other):
        with pytest.raises(ModelError):
            verify(wrong, seal)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelError) as refused:
        verify(Subject(other, name="hf:deployed"), seal)
    assert (refused.value.exit_code, refused.value.where) == (2, "hf:deployed")
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ModelError):
        verify(model, seal)


# ---- inputs -------------------------------------------------------------------------------------------------------


def test_inputs_are_examples_of_the_task_at_random_by_the_seed() -> None:
    loaded = load("digits")
    assert isinstance(loaded.task, wt.Task) and loaded.task.more is not None
    both = (loaded.task.inputs, loaded.task.more)
    examples = {row.tobytes() for part in both for row in torch.as_tensor(part).numpy()}
    sets = list[tuple[bytes, ...]]()
    for seed in (1, 1, 2):
        inputs, drawn = draw(loaded.subject, loaded.task, total=12, seed=seed)
        assert isinstance(inputs, torch.Tensor) and drawn is None
        sets.append(tuple(row.tobytes() for row in inputs.numpy()))
    assert sets[0] == sets[1] != sets[2]
    assert len(set(sets[0])) == 12 and examples.issuperset({*sets[0], *sets[2]})


def test_inputs_too_large_to_keep_are_drawn_again() -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    inputs = torch.rand(4, 3, 96, 96)
    net(inputs)
    seal = make(wt.Subject(net), wt.Task(inputs, torch.arange(4)), SealOptions(seed=1)).seal
    assert len(seal.bytes()) < 64 * 1024
    assert verify(net, seal).verdict == "identical"
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0].neg_()
    assert verify(net, seal).distance > 1.0


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (3, 8 * pow(3, -1, 2**64) % 2**64)}, {"shape": (-2, -4)}, {"shape": (1,) * 70},
        {"low": -1e308, "high": 1e308}, {"high": float("nan")},
    ],
)  # fmt: skip
def test_a_hostile_description_of_inputs_is_refused(change: dict[str, object]) -> None:
    drawn = UniformInputs(seed=1, shape=(4, 6), low=0.0, high=1.0)
    assert drawn_again(drawn).shape == (4, 6)
    with pytest.raises(FileFormatError):
        drawn_again(msgspec.structs.replace(drawn, **change))


def test_a_seal_whose_parts_do_not_fit_is_refused() -> None:
    model, seal = digits()
    body = seal.body
    for change in (
        {"blocks": body.blocks[1:]}, {"tolerances": msgspec.structs.replace(body.tolerances, output=1e9)},
        {"values": body.tensors}, {"structure": body.structure[:40]},
    ):  # fmt: skip
        with pytest.raises(FileFormatError):
            verify(model, Seal.of(msgspec.structs.replace(body, **change)))
