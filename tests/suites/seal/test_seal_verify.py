"""What a verification says of harmless conversions, of planted changes, and of nets that only answer alike."""

import copy
import datetime
from typing import Any

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
from wheeltap.sources import load
from wheeltap.suites.seal.inputs import drawn_again
from wheeltap.suites.seal.making import SealOptions, inputs_of, make
from wheeltap.suites.seal.record import Seal, UniformInputs, today
from wheeltap.suites.seal.verifying import Verification, verify


def verified(change: Change, *, full: bool = False) -> Verification:
    return verify(changed(change), digits()[1].seal, full=full)


def test_the_model_itself_is_identical_and_comes_back_as_it_was() -> None:
    model, made = digits()
    before = weights_digest(model)
    assert verify(model, made.seal, full=True).verdict == "identical"
    assert weights_digest(model) == before


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("change", "conversion"),
    [
        (lambda net: net.bfloat16(), "bfloat16"),
        (lambda net: net.half(), "float16"),
        (lambda net: net.double(), "as sealed"),
        (lambda net: net.bfloat16().float(), "bfloat16"),
        (lambda net: [part.copy_(part.half()) for part in weights(net)], "float16 (matrices only)"),
        (lambda net: net.half().bfloat16(), "float16, then bfloat16"),
    ],
)
def test_harmless_conversions_are_equivalent_and_named(change: Change, conversion: str, full: bool) -> None:
    found = verified(change, full=full)
    assert (found.verdict, found.conversion, found.passed) == ("equivalent", conversion, True)


def test_no_harmless_run_is_called_altered() -> None:
    """Kinds of numbers, threads, and a wrapper in every third run."""
    model, made = digits()
    threads = torch.get_num_threads()
    verdicts: list[str] = []
    try:
        for run in range(60):
            torch.set_num_threads(1 + run % 5)
            kind = (torch.float32, torch.float64, torch.bfloat16, torch.float16)[run % 4]
            net = copy.deepcopy(model).to(kind)
            verdicts.append(verify(net if run % 3 else nn.Sequential(net).eval(), made.seal).verdict)
    finally:
        torch.set_num_threads(threads)
    assert set(verdicts) <= {"identical", "equivalent"}


def scaled(net: nn.Module) -> object:
    return weights(net)[1].mul_(1.5)


def offset(net: nn.Module) -> object:
    return list(net.parameters())[3].add_(1.0)


def zeroed(net: nn.Module) -> object:
    return weights(net)[1].zero_()


def rounded(net: nn.Module) -> object:
    for part in weights(net):
        step = part.abs().amax(1, keepdim=True) / 127
        part.copy_((part / step).round() * step)
    return net


def noisy(net: nn.Module) -> object:
    random = torch.Generator().manual_seed(3)
    return [part.mul_(1 + 0.002 * torch.randn(part.shape, generator=random)) for part in net.parameters()]


@pytest.mark.parametrize(
    ("change", "kind", "block"),
    [
        (scaled, "scale", "2"), (offset, "norm offset", "2"), (zeroed, "zeroed", "2"),
        (rounded, "quantized", "0"), (noisy, "noise", "0"),
    ],
)  # fmt: skip
def test_what_was_done_and_where_it_first_shows(change: Change, kind: str, block: str) -> None:
    found = verified(change)
    assert (found.verdict, found.kind, found.block) == ("altered", kind, block)
    assert found.distance > 10.0
    assert found.inputs == 4, "it is sure after the first inputs, and asks no more"


def test_a_step_of_training_is_seen() -> None:
    loaded = load("digits")

    def step(net: nn.Module) -> object:
        with torch.enable_grad():
            loss = loaded.task.loss(net, torch.arange(32))
            slopes = torch.autograd.grad(loss, list(net.parameters()))
        return [part.sub_(1e-3 * slope) for part, slope in zip(net.parameters(), slopes, strict=True)]

    found = verified(step)
    assert (found.verdict, found.kind) == ("altered", "fine-tune")


def test_nine_of_ten_flipped_signs_are_seen_also_where_no_output_shows_them() -> None:
    """Of random weights: some are of units that no input makes answer."""
    rng, seen = np.random.default_rng(0), 0
    sizes = np.array([part.numel() for part in weights(digits()[0])])
    for _ in range(100):
        at = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
        place = int(rng.integers(sizes[at]))
        seen += not verified(lambda net, at=at, place=place: weights(net)[at].view(-1)[place].neg_()).passed
    assert seen >= 90


def test_noise_too_small_for_the_outputs_is_no_other_structure() -> None:
    random = torch.Generator().manual_seed(3)
    found = verified(lambda net: [part.mul_(1 + 1e-6 * torch.randn(part.shape, generator=random))
                                  for part in net.parameters()])  # fmt: skip
    assert (found.verdict, found.kind, found.distance <= 1.0) == ("altered", "noise", True)


@pytest.mark.parametrize("name", ["permute", "rescale", "cancel"])
def test_of_a_reparametrized_copy_outputs_alone_are_shown(name: str) -> None:
    model, made = digits()
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    copied = gauge.twin(model, gauge.describe(family, name, seed=1), family=family)
    found = verify(copied, made.seal, full=True)
    assert (found.verdict, found.passed, found.bits) == ("same on the inputs asked", False, 0)


@pytest.mark.parametrize("full", [False, True])
def test_a_net_that_was_fitted_to_the_inputs_does_not_pass(full: bool) -> None:
    """Other weights below, and a last layer solved for the sealed answers."""
    model, made = digits()
    inputs = inputs_of(made.seal)
    random = torch.Generator().manual_seed(5)

    def fitted(net: nn.Module) -> None:
        for part in net.parameters():
            part.copy_(part.std() * torch.randn(part.shape, generator=random))
        hidden = net[:-1](inputs).double()
        answers = (model(inputs) - net[-1].bias).double()
        net[-1].weight.copy_(torch.linalg.lstsq(hidden, answers, driver="gelsd").solution.T)

    found = verified(fitted, full=full)
    assert (found.verdict, found.passed, found.bits) == ("same on the inputs asked", False, 0)


def test_a_model_whose_numbers_share_memory_is_refused_and_comes_back_as_it_was() -> None:
    made = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).eval()
    made[1].bias = nn.Parameter(torch.ones(1).expand(3))
    before = weights_digest(made)
    with pytest.raises(ModelError, match="share memory"):
        make(wt.Subject(made), wt.Task(torch.randn(12, 4), torch.arange(12) % 3), SealOptions(inputs=2))
    assert weights_digest(made) == before


def test_another_net_is_another_model() -> None:
    def drawn(net: nn.Module) -> object:
        random = torch.Generator().manual_seed(2)
        return [part.copy_(part.std() * torch.randn(part.shape, generator=random)) for part in net.parameters()]

    assert verified(drawn).verdict == "other model"


def test_a_net_that_was_trained_on_for_long_is_altered_and_no_stranger() -> None:
    """Its matrices moved by .7 of their size, and still point where the sealed ones do."""

    def further(net: nn.Module) -> object:
        random = torch.Generator().manual_seed(2)
        return [part.add_(0.7 * part.std() * torch.randn(part.shape, generator=random)) for part in net.parameters()]

    assert verified(further).verdict == "altered"


def test_another_architecture_is_refused() -> None:
    net = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)).eval()
    with pytest.raises(ModelError, match="another architecture"):
        verify(net, digits()[1].seal)


def test_a_seal_that_has_expired_verifies_nothing() -> None:
    loaded = load("digits")
    last = today() + datetime.timedelta(days=3)
    seal = make(loaded.subject, loaded.task, SealOptions(inputs=2, expires=last.isoformat())).seal
    found = verify(loaded.subject, seal, today=last)
    assert (found.passed, found.name, found.sealed, found.expires) == (True, "digits", str(today()), str(last))
    with pytest.raises(UsageError, match="expired"):
        verify(loaded.subject, seal, today=last + datetime.timedelta(days=1))
    with pytest.raises(UsageError, match="dated in the future"):
        verify(loaded.subject, seal, today=today() - datetime.timedelta(days=2))
    with pytest.raises(UsageError, match="has expired would be made"):
        SealOptions(expires=str(today() - datetime.timedelta(days=1)))


def test_a_model_that_draws_at_random_is_not_sealed() -> None:
    class Noisy(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            scores = self.inner(inputs)
            return scores + torch.randn_like(scores) * scores.std()

    from wheeltap import Subject

    with pytest.raises(ModelError, match="same for the same inputs"):
        make(Subject(Noisy(copy.deepcopy(digits()[0])).eval()), load("digits").task)


class Single(nn.Linear):
    """Has a kernel for single precision alone."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dtype is torch.float64:
            raise RuntimeError("no kernel for Double")
        return super().forward(inputs)


def test_a_model_that_refuses_double_precision_is_sealed_all_the_same() -> None:
    from wheeltap import Subject

    torch.manual_seed(1)
    net = Single(64, 10).eval()
    assert verify(net, make(Subject(net), load("digits").task, SealOptions(inputs=2)).seal).verdict == "identical"


class Normed(nn.Sequential):
    """A small net with a norm, whose gains may be stored with an offset of 1, and a second output."""

    def __init__(self, *, less: float = 0.0, eps: float = 1e-5) -> None:
        torch.manual_seed(1)
        super().__init__(nn.Linear(64, 32), nn.LayerNorm(32, eps=eps), nn.ReLU(), nn.Linear(32, 10))
        self.box, self.less, self.sign = nn.Linear(32, 2), less, 1.0
        with torch.no_grad():
            self[1].weight.add_(torch.rand(32)).sub_(less)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gained, norm = self[1].weight + self.less, self[1]
        hidden = nn.functional.layer_norm(self[0](inputs), (32,), gained, norm.bias, norm.eps).relu()
        return self[3](hidden), self.sign * self.box(hidden)


def normed() -> Seal:
    from wheeltap import Subject

    return make(Subject(Normed().eval()), load("digits").task, SealOptions(seed=3)).seal


def test_what_no_weight_shows_is_altered() -> None:
    """Code, settings, a second output, another way of storing gains."""
    seal = normed()
    assert verify(Normed().eval(), seal).verdict == "identical"
    found = verify(Normed(less=1.0).eval(), seal)
    assert (found.verdict, found.kind, "attribute less" in found.detail) == ("altered", "norm offset", True)
    assert verify(Normed(eps=1e-2).eval(), seal).verdict == "altered"
    flipped = Normed().eval()
    flipped.sign = -1.0
    assert verify(flipped, seal).verdict == "altered"
    with torch.no_grad():
        (other := Normed().eval()).box.weight[0, 0] += 0.1
    assert verify(other, seal).kind == "damaged"


class Reader(nn.Module):
    """Reads tokens: some that no sealed input has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.head = nn.Embedding(3000, 8), nn.Linear(8, 5)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(inputs).mean(1))


def test_a_row_that_no_input_reads_is_checked_all_the_same() -> None:
    from wheeltap import Subject, Task

    inputs = torch.randint(3000, (40, 12), generator=torch.Generator().manual_seed(0))
    seal = make(Subject(Reader().eval()), Task(inputs, torch.arange(40) % 5), SealOptions(seed=1)).seal
    unread = sorted(set(range(3000)) - set(inputs_of(seal).unique().tolist()))
    model = Reader().eval()
    with torch.no_grad():
        model.table.weight[unread[0]] = model.table.weight[unread[1]]
    found = verify(model, seal, full=True)
    assert (found.verdict, found.block, found.distance <= 1.0) == ("altered", "table", True)


def test_a_runtime_without_weights_is_verified_by_its_outputs() -> None:
    model, made = digits()

    class Runtime(nn.Module):
        def __init__(self, off: float) -> None:
            super().__init__()
            self.off = off

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return model(inputs) * (1.0 + self.off)

    found = verify(Runtime(0.0), made.seal)
    assert (found.verdict, found.bits, "cannot be read" in found.detail) == ("same on the inputs asked", 0, True)
    assert not verify(Runtime(0.05), made.seal).passed


HOSTILE: dict[str, dict[str, Any]] = {
    "a product that wraps": {"shape": (3, 8 * pow(3, -1, 2**64) % 2**64)},
    "lengths below 0": {"shape": (-2, -4)},
    "too many axes": {"shape": (1,) * 70},
    "no numbers between": {"least": (5.0,) * 4},
    "numbers too far apart": {"least": (-1e308,) * 4, "most": (1e308,) * 4},
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_description_of_inputs_is_refused(change: str) -> None:
    drawn = UniformInputs(seed=(1, 2, 3, 4), shape=(6,), least=(0.0,) * 4, most=(1.0,) * 4)
    assert drawn_again(drawn).shape == (4, 6)
    with pytest.raises(FileFormatError, match="cannot be drawn"):
        drawn_again(msgspec.structs.replace(drawn, **HOSTILE[change]))


class Tied(nn.Module):
    """A decoder whose weights are a view of the encoder's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.enc, self.dec = nn.Linear(6, 8), nn.Linear(8, 6)
        self.dec.weight = nn.Parameter(self.enc.weight.detach().t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.dec(self.enc(inputs).relu())


def test_a_model_with_views_of_weights_comes_back_as_it_was() -> None:
    made, untouched = Tied().eval(), Tied().state_dict()
    seal = make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2)).seal
    assert all(torch.equal(one, untouched[name]) for name, one in made.state_dict().items())
    assert verify(made, seal).verdict == "identical"


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body, self.calls = nn.Linear(6, 3), nn.Buffer(torch.zeros(()))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(inputs)


def test_a_model_that_counts_its_calls_is_refused_and_comes_back_as_it_was() -> None:
    made = Counts().eval()
    with pytest.raises(ModelError, match="changes its own numbers"):
        make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2))
    assert float(made.calls) == 0.0


def test_a_model_that_nobody_may_write_to_is_refused() -> None:
    with torch.inference_mode():
        made = nn.Sequential(nn.Linear(6, 3)).eval()
    with pytest.raises(ModelError, match="inference_mode"):
        make(wt.Subject(made), task(), SealOptions(inputs=4, seed=2))


def test_inputs_too_large_to_keep_are_drawn_again() -> None:
    from wheeltap import Subject, Task

    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).eval()
    inputs = torch.rand(4, 3, 96, 96)
    net(inputs)
    seal = make(Subject(net), Task(inputs, torch.arange(4)), SealOptions(seed=1)).seal
    assert len(seal.bytes()) < 64 * 1024
    assert verify(net, seal).verdict == "identical"
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0].neg_()
    assert verify(net, seal).distance > 1.0
