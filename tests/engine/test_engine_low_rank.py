"""Low-rank copies that share a pass, and cached prefixes, give the scores of the plain path; else they refuse."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_nets import Block, ConvNet, TiedLanguageModel, choices, numbers, seeded
from engine_trials import require_slow, run, trial
from torch import Tensor, nn
from twins import Wired

from tests.nets.tiny_lm import tiny_lm
from wheeltap.core import measure
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.fast.low_rank import LowRankCopies
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.models.mlp import mlp
from wheeltap.perturb.base import Draw, Weights
from wheeltap.perturb.noise import LowRankNoise

ROOT, SEEDS, DOSE = 7, (3, 4, 9), 0.2
COPIES = [(DOSE, seed) for seed in SEEDS]


def flat(inputs: Tensor, *, options: int = 4, batch: int = 4) -> Task:
    return Task(inputs, torch.arange(len(inputs)) % options, batch=batch, measure=measure.nll)


def _normed() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.LayerNorm(12), nn.Linear(12, 4))


def _dilated() -> nn.Module:
    conv = (nn.Conv2d(1, 3, 3, stride=2, padding=1, padding_mode="circular"), nn.ReLU(), nn.Conv2d(3, 4, 2, dilation=2))
    return nn.Sequential(*conv, nn.Flatten(), nn.Linear(16, 4))


def _tiny(kind: str) -> tuple[Subject, BaseTask]:
    tiny = tiny_lm(kind, steps=0, examples=20)
    return tiny.subject, tiny.task


CASES: dict[str, Callable[[], tuple[Subject, BaseTask]]] = {
    "mlp": lambda: (Subject(seeded(lambda: mlp((6, 12, 4)))), flat(numbers(9, 6))),
    "norm": lambda: (Subject(seeded(_normed)), flat(numbers(9, 6))),
    "convolutions": lambda: (Subject(seeded(ConvNet)), flat(numbers(9, 1, 8, 8), options=5)),
    "stride, dilation": lambda: (Subject(seeded(_dilated)), flat(numbers(9, 1, 8, 8))),
    "tied": lambda: (Subject(seeded(TiedLanguageModel)), choices(12)),
    "gpt2": lambda: _tiny("gpt2"),
    "llama": lambda: _tiny("llama"),
}


def written(subject: Subject, task: BaseTask, noise: LowRankNoise, *, seed: int, site: Site = WHOLE) -> Tensor:
    """Scores of a deep copy with the materialised change in its weights."""
    model = copy.deepcopy(subject.model)
    for layer in subject.layers:
        if site.covers(layer.name):
            weight = model.get_parameter(layer.weight)
            new = noise.replace(layer, Weights(weight.detach().clone()), DOSE, Draw(ROOT, seed))
            weight.data.copy_(new.weight)
    return task.scores(model)


def is_near(own: Tensor, slow: Tensor) -> bool:
    return float((own - slow).abs().max()) <= 1e-5 * float(slow.abs().max())


def are_written(found: Tensor, subject: Subject, task: BaseTask, noise: LowRankNoise, *, site: Site = WHOLE) -> bool:
    """Whether the scores of each of ``COPIES`` are those of the change written into a deep copy."""
    slow = [written(subject, task, noise, seed=seed, site=site) for seed in SEEDS]
    return len(found) == len(slow) and all(map(is_near, found, slow))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_folded_copies_equal_written_ones(name: str, rank: int) -> None:
    subject, task = CASES[name]()
    before, noise = weights_digest(subject.model), LowRankNoise({"rank": rank})
    clean = task.scores(subject.model)
    copies = LowRankCopies(subject, task, noise)
    assert copies.path == f"low-rank folded, rank {rank}"
    for _ in range(2):  # the first pass proves itself, the second does not
        found = copies.scores(COPIES, root=ROOT)
        assert are_written(found, subject, task, noise)
        assert float((found - clean).abs().amax((1, 2)).min()) > 1e-3 * float(found.abs().max())
    assert weights_digest(subject.model) == before
    assert not any("forward" in vars(module) for module in subject.model.modules())


@pytest.mark.parametrize(("name", "site"), [("mlp", Site("layer", "2")), ("gpt2", Site("block", "transformer.h.1"))])
def test_a_site_is_all_that_is_disturbed(name: str, site: Site) -> None:
    subject, task = CASES[name]()
    noise = LowRankNoise()
    found = LowRankCopies(subject, task, noise, site).scores(COPIES, root=ROOT)
    assert are_written(found, subject, task, noise, site=site)


def test_one_pass_over_the_weights_serves_all_copies() -> None:
    subject, task = CASES["mlp"]()
    copies = LowRankCopies(subject, task, LowRankNoise())
    copies.scores(COPIES, root=ROOT)
    rows: list[int] = []
    first = subject.model.get_submodule("0")
    hook = first.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    copies.scores([(DOSE, seed) for seed in range(8)], root=ROOT)
    hook.remove()
    assert rows == [8 * 4, 8 * 4, 8 * 1], "three batches of 4, 4 and 1"


@pytest.mark.parametrize("name", CASES)
def test_where_answers_are_too_large_to_be_kept_copies_go_one_by_one(name: str) -> None:
    subject, task = CASES[name]()
    noise = LowRankNoise()
    copies = LowRankCopies(subject, task, noise, limit=1)
    assert (copies.at_once, copies.path, copies.spent) == (1, "low-rank beside the weights, rank 1", 1.0)
    assert are_written(copies.scores(COPIES, root=ROOT), subject, task, noise)
    assert copies.spent == 2.0, "the plain pass of the proof"
    assert not any("forward" in vars(module) for module in subject.model.modules())


@pytest.mark.parametrize(("tokens", "at_once"), [(4, 128), (256, 2), (257, 1), (600, 1)])
def test_as_many_copies_share_a_pass_as_fill_the_cache(tokens: int, at_once: int) -> None:
    subject = CASES["mlp"]()[0]
    copies = LowRankCopies(subject, flat(numbers(tokens, 6), batch=tokens), LowRankNoise())
    assert copies.at_once == at_once
    assert copies.path == ("low-rank folded, rank 1" if at_once > 1 else "low-rank beside the weights, rank 1")


def test_dose_zero_is_the_clean_model() -> None:
    subject, task = CASES["mlp"]()
    clean, copies = task.scores(subject.model), LowRankCopies(subject, task, LowRankNoise())
    assert torch.allclose(copies.scores([(0.0, seed) for seed in SEEDS], root=ROOT), clean, atol=1e-6)
    with pytest.raises(UsageError, match="outside the domain"):
        copies.scores([(-1.0, 0)], root=ROOT)


class Scaled(nn.Embedding):
    """An embedding that is more than a table."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 3.0 * super().forward(input)


def test_models_that_break_what_folding_rests_on_are_refused() -> None:
    tokens = torch.randint(7, (9, 5), generator=torch.Generator().manual_seed(0))
    """The first centers its rows on their mean; the second adds places first, where its batch is the second axis."""

    def centring() -> nn.Module:
        parts = {"enter": nn.Linear(6, 9), "out": nn.Linear(9, 4)}
        return Wired(lambda net, x: net.out(((hidden := net.enter(x)) - hidden.mean(0)).relu()), **parts)

    for model, task in (
        (centring, flat(numbers(9, 6), batch=9)),
        (
            lambda: Wired(lambda net, x: net.out(net.enter(x).mean(1)), enter=Scaled(7, 9), out=nn.Linear(9, 4)),
            flat(tokens),
        ),
    ):
        subject = Subject(seeded(model))
        before = weights_digest(subject.model)
        with pytest.raises(ModelError, match="does not give this model's scores"):
            LowRankCopies(subject, task, LowRankNoise()).scores(COPIES, root=ROOT)
        assert weights_digest(subject.model) == before


def test_rows_that_are_several_for_each_example_are_folded_too() -> None:
    parts = (nn.Unflatten(1, (2, 3)), nn.Flatten(0, 1), nn.Linear(3, 4), nn.Unflatten(0, (-1, 2)), nn.Flatten())
    subject, task = Subject(nn.Sequential(*parts).eval()), flat(numbers(9, 6))
    found = LowRankCopies(subject, task, LowRankNoise()).scores(COPIES, root=ROOT)
    assert are_written(found, subject, task, LowRankNoise())


def test_layers_that_cannot_be_folded_and_weights_of_16_bits_are_refused() -> None:
    grouped = nn.Sequential(nn.Conv1d(6, 6, 1, groups=2), nn.Flatten())
    halved = seeded(lambda: mlp((6, 12, 4))).bfloat16()
    for model, because in (
        (grouped, "Conv1d"),
        (nn.MultiheadAttention(6, 2), "MultiheadAttention"),
        (halved, "bfloat16"),
    ):
        inputs = numbers(9, 6).to(next(model.parameters()).dtype)
        with pytest.raises(ModelError, match=because):
            LowRankCopies(Subject(model.eval()), flat(inputs), LowRankNoise())


# ---- what the engine makes of it -------------------------------------------------------------------------------


class Wide(nn.Module):
    """Large enough for shortcuts; where it mixes, each batch is centred, so that rows see each other."""

    def __init__(self, *, mixing: bool = False, growth: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.enter, self.inner, self.out = nn.Linear(6, 1500), nn.Linear(1500, 1400), nn.Linear(1400, 4)
        self.mixing, self.growth = mixing, growth

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.enter(inputs)
        hidden = hidden - hidden.mean(0) if self.mixing else hidden
        return self.out(self.growth(self.inner(hidden.relu())))


class Faint(Wide):
    """A layer's weight is used a second time, outside the layer, to little effect."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.inner(self.enter(inputs).relu())
        return self.out((hidden + 0.02 * nn.functional.linear(inputs, self.enter.weight)[:, :1400]).relu())


class Failing(Wide):
    def forward(self, inputs: Tensor) -> Tensor:
        if self._forward_hooks:
            raise OSError("no place left to record anything")
        return super().forward(inputs)


def _asked(
    subject: Subject, task: BaseTask, *, doses: tuple[float, ...] = (0.1, 0.4), site: Site = WHOLE
) -> list[Trial]:
    return [
        trial(subject, task, "low-rank", dose, site, settings={"rank": 2}, seed=seed)
        for seed in range(3)
        for dose in doses
    ]


def require_path(subject: Subject, task: BaseTask, path: str, *, compared: int = 6, **asked: Any) -> None:
    """The trials are done, by this path, and the first of them give what the slow engine gives."""
    trials = _asked(subject, task, **asked)
    found = run(subject, task, trials)
    assert {(outcome.status, outcome.path) for outcome in found} == {("done", path)}
    require_slow(trials[:compared], found[:compared], subject.model, task, tolerance=2e-5)


@pytest.mark.parametrize(
    ("batch", "path"), [(4, "low-rank folded, rank 2"), (300, "low-rank beside the weights, rank 2")]
)
def test_a_large_model_takes_it_beside_its_weights_and_says_so(batch: int, path: str) -> None:
    subject, task = Subject(seeded(Wide)), flat(numbers(300, 6), batch=batch)
    before, runner, trials = weights_digest(subject.model), TrialRunner([subject], (), task), _asked(subject, task)
    found = run(subject, task, trials, runner=runner)
    assert weights_digest(subject.model) == before
    assert {(outcome.path, outcome.forwards) for outcome in found} == {(path, 1.0)}
    require_slow(trials, found, subject.model, task, tolerance=2e-5)
    spent = runner.forwards
    more = run(subject, task, _asked(subject, task, doses=(0.2,)), runner=runner)
    assert {outcome.path for outcome in more} == {path}
    assert runner.forwards == spent + 3, "recorded and proven once"


def test_what_cannot_share_a_pass_takes_the_plain_path() -> None:
    task = flat(numbers(12, 6), batch=6)
    require_path(Subject(seeded(lambda: Wide(mixing=True))), task, "")
    halved = flat(numbers(12, 6).bfloat16(), batch=6)
    require_path(Subject(seeded(Wide).bfloat16()), halved, "", compared=0)
    require_path(Subject(seeded(Failing)), task, "", compared=0)
    require_path(Subject(seeded(Wide)), task, "", compared=0, site=Site("layer", "inner"))
    require_path(CASES["mlp"]()[0], task, "", compared=0)


def test_layers_may_be_called_by_name() -> None:
    tokens = torch.randint(7, (12, 5), generator=torch.Generator().manual_seed(0))

    def by_name() -> nn.Module:
        parts = {"enter": nn.Embedding(7, 1500), "inner": nn.Linear(1500, 1400), "out": nn.Linear(1400, 4)}
        return Wired(lambda net, x: net.out(input=net.inner(input=net.enter(input=x).mean(1)).relu()), **parts)

    require_path(Subject(seeded(by_name)), flat(tokens), "low-rank folded, rank 2")


@pytest.mark.release
@pytest.mark.parametrize("batch", [4, 600])
def test_a_faint_second_use_of_a_weight_does_not_hide_behind_a_small_dose(batch: int) -> None:
    subject, task = Subject(seeded(Faint)), flat(numbers(600, 6), batch=batch)
    require_path(subject, task, "", compared=3, doses=(1e-4, 0.1, 0.2))


def test_noise_without_bound_diverges_beside_the_weights_too() -> None:
    subject, task = Subject(seeded(lambda: Wide(growth=torch.exp))), flat(numbers(12, 6))
    trials = _asked(subject, task, doses=(0.1, 4096.0))
    found = [outcome for one, outcome in zip(trials, run(subject, task, trials), strict=True) if one.dose > 1]
    assert {(one.status, one.path) for one in found} == {("diverged", "low-rank folded, rank 2")}


VOCABULARY, WIDTH, BLOCKS = 13, 384, 4


class Deep(nn.Module):
    """Large enough for the cache; a ``skip`` adds the first output again at the end, after so many rounds."""

    def __init__(self, *, skip: bool = False, times: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(BLOCKS))
        self.out = nn.Linear(WIDTH, VOCABULARY)
        self.skip, self.times = skip, times

    def forward(self, ids: Tensor) -> Tensor:
        hidden = early = embedded = self.embed(ids)
        for at, block in enumerate([*self.blocks] * self.times):
            hidden = block(hidden)
            early = hidden if at == 0 else early
        return self.out(hidden + embedded + early if self.skip else hidden)


def deep(**how: int) -> Subject:
    subject = Subject(seeded(lambda: Deep(**how), scale=1.0), name="deep")
    assert subject.record.parameters >= SMALL
    return subject


def trials_on(subject: Subject, task: BaseTask, blocks: tuple[str, ...]) -> list[Trial]:
    return [
        trial(subject, task, "relative", dose, Site("block", block), seed=seed)
        for block in blocks
        for seed in (0, 1)
        for dose in (0.05, 0.5)
    ]


@pytest.mark.parametrize("skip", [False, True])
def test_block_trials_of_a_large_model_equal_the_slow_engine(skip: bool) -> None:
    subject, task = deep(skip=skip), choices(12)
    before, runner = weights_digest(subject.model), TrialRunner([subject], (), task)
    trials = trials_on(subject, task, ("blocks.0", "blocks.2", "blocks.3", "out"))
    found = run(subject, task, trials, runner=runner)
    assert weights_digest(subject.model) == before
    assert all("forward" not in vars(module) for module in subject.model.modules())
    require_slow(trials, found, subject.model, task, tolerance=2e-5)
    shares = {one.site.name: outcome.forwards for one, outcome in zip(trials, found, strict=True)}
    # Without the cache every trial is a whole pass; with it one that starts at its block.
    assert shares["blocks.0"] == shares["out"] == 1.0
    assert runner.prefix(subject).exact != skip
    assert (shares["blocks.2"], shares["blocks.3"]) == ((1.0, 1.0) if skip else (0.5, 0.25))


def test_a_cached_pass_gives_the_clean_scores_to_the_bit_and_skips_what_it_says() -> None:
    subject, task = deep(), choices(12)
    clean = task.scores(subject.model)
    cache = PrefixCache(subject, task.scores)
    assert cache.exact and cache.spent == 1.25
    for block in cache.stack:
        with cache.starting_at(block):
            assert torch.equal(task.scores(subject.model), clean)
            assert torch.equal(task.scores(subject.model), clean), "pass after pass"
    assert torch.equal(task.scores(subject.model), clean)
    assert not PrefixCache(subject, task.scores, limit=100).exact, "a cache that may hold nothing is not used"


def test_a_model_whose_blocks_run_twice_is_still_right() -> None:
    """A recorded output stands for only one of the two."""
    subject, task = deep(times=2), choices(8)
    trials = trials_on(subject, task, ("blocks.1", "blocks.2"))
    require_slow(trials, run(subject, task, trials), subject.model, task, tolerance=1e-3)
