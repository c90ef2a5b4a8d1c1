"""What a verification says of harmless conversions, of planted changes, and of nets that only answer alike."""

import copy
import datetime

import numpy as np
import pytest
import torch
from sealed import Change, changed, digits, weights
from torch import nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.seal.making import Asked, inputs_of, make
from wheeltap.seal.verifying import Verification, verify
from wheeltap.sources import load


def verified(change: Change, *, full: bool = False) -> Verification:
    """Of a changed copy of the digits net."""
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
        (lambda net: [part.copy_(part.half()) for part in weights(net)], "float16, matrices alone"),
    ],
)
def test_harmless_conversions_are_equivalent_and_named(change: Change, conversion: str, full: bool) -> None:
    found = verified(change, full=full)
    assert (found.verdict, found.conversion, found.passed) == ("equivalent", conversion, True)


def test_no_harmless_run_is_called_altered() -> None:
    """Two hundred: kinds of numbers, threads, and inputs one by one in every third run."""
    model, made = digits()
    threads = torch.get_num_threads()
    verdicts: list[str] = []
    try:
        for run in range(200):
            torch.set_num_threads(1 + run % 5)
            kind = (torch.float32, torch.float64, torch.bfloat16, torch.float16)[run % 4]
            net = copy.deepcopy(model).to(kind)
            verdicts.append(verify(net if run % 3 else Wrapped.of(net), made.seal).verdict)
    finally:
        torch.set_num_threads(threads)
    assert set(verdicts) <= {"identical", "equivalent"}


class Wrapped(nn.Sequential):
    """The same modules, which take the inputs of a call one by one: other sums in other batches."""

    @classmethod
    def of(cls, net: nn.Module) -> "Wrapped":
        """Of a net in sequence."""
        return cls(*net.children()).eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs
        for module in self:
            rows = torch.cat([module(rows[at : at + 1]) for at in range(len(rows))])
        return rows


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


@pytest.mark.parametrize("name", ["permute", "rescale", "cancel"])
def test_a_reparametrized_copy_has_the_same_function_and_another_structure(name: str) -> None:
    model, made = digits()
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    copied = gauge.twin(model, gauge.describe(family, name, seed=1), family=family)
    found = verify(copied, made.seal, full=True)
    assert (found.verdict, found.passed) == ("same function, different structure", False)


def test_a_net_that_was_fitted_to_the_inputs_passes_by_its_outputs_and_fails_the_challenges() -> None:
    """Blocks would give it away at once, so it is shown a seal without any."""
    import msgspec

    from wheeltap.seal.record import Packed, Seal

    model, made = digits()
    fitted = Fitted(model, inputs_of(made.seal))
    none = Packed.of(np.zeros((0, 0, 4), dtype=np.float32))
    stored = tuple(
        msgspec.structs.replace(one, seen=msgspec.structs.replace(one.seen, blocks=none, moments=none))
        for one in made.seal.body.stored
    )
    tolerances = msgspec.structs.replace(made.seal.body.tolerances, blocks=())
    blind = Seal.of(msgspec.structs.replace(made.seal.body, blocks=(), stored=stored, tolerances=tolerances))
    assert verify(fitted, blind).verdict == "equivalent"
    found = verify(fitted, blind, full=True)
    assert (found.verdict, found.passed) == ("same function, different structure", False)


class Fitted(nn.Module):
    """Other weights of the same shapes, and by heart what the sealed net answers on the sealed inputs."""

    def __init__(self, model: nn.Module, inputs: object) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model)
        random = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for part in self.inner.parameters():
                part.copy_(part.std() * torch.randn(part.shape, generator=random))
            self.register_buffer("by_heart", model(inputs) - self.inner(inputs))
        self.register_buffer("known", inputs)
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        at = (inputs[:, None] == self.known[None]).all(2).int().argmax(1)
        return self.inner(inputs) + self.by_heart[at]


def test_another_net_is_another_model() -> None:
    def drawn(net: nn.Module) -> object:
        random = torch.Generator().manual_seed(2)
        return [part.copy_(part.std() * torch.randn(part.shape, generator=random)) for part in net.parameters()]

    assert verified(drawn).verdict == "other model"


def test_another_architecture_is_refused() -> None:
    net = nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)).eval()
    with pytest.raises(ModelError, match="another architecture"):
        verify(net, digits()[1].seal)


def test_a_seal_that_has_expired_verifies_nothing() -> None:
    loaded = load("digits")
    seal = make(loaded.subject, loaded.task, Asked(inputs=2, expires="2026-01-31")).seal
    assert verify(loaded.subject, seal, today=datetime.date(2026, 1, 31)).passed
    with pytest.raises(UsageError, match="expired"):
        verify(loaded.subject, seal, today=datetime.date(2026, 2, 1))


def test_a_model_that_draws_at_random_is_not_sealed() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(digits()[0])

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            scores = self.inner(inputs)
            return scores + torch.randn_like(scores) * scores.std()

    from wheeltap import Subject

    with pytest.raises(ModelError, match="same for the same inputs"):
        make(Subject(Noisy().eval()), load("digits").task)
