"""The prefix cache: skipping blocks that did not change gives the very scores of the plain path."""

import numpy as np
import pytest
import torch
from engine_nets import CALLS, TOKENS, Block, choices
from oracle import measured_slowly
from torch import Tensor, nn

from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import Outcome, Trial
from wheeltap.core.settings import SMALL
from wheeltap.core.site import Site
from wheeltap.core.subject import Subject
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.trial_runner import TrialRunner, run_trials

VOCABULARY, WIDTH, BLOCKS = 13, 384, 4


class Deep(nn.Module):
    """A language-like model large enough for the cache; ``skip`` makes its end read more than the last block.

    Args:
        skip: Whether the first block's output is added again at the end.
    """

    def __init__(self, *, skip: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(BLOCKS))
        self.out = nn.Linear(WIDTH, VOCABULARY)
        self.skip = skip
        self._token = next(TOKENS)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        early = torch.zeros(())
        for at, block in enumerate(self.blocks):
            hidden = block(hidden)
            CALLS[self._token] += 1
            early = hidden if at == 0 else early
        if self.skip:
            # What a recorded output cannot stand for: the size of the stream at the start.
            hidden = hidden + self.embed(ids) + early
        return self.out(hidden)


def deep(*, skip: bool = False) -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Deep(skip=skip).eval()
    subject = Subject(model, name="deep")
    assert subject.record.parameters >= SMALL
    return subject


def trials_on(subject: Subject, blocks: tuple[str, ...]) -> list[Trial]:
    names = ("accuracy", "nll", "agreement")
    return [
        Trial(
            subject=subject.record.fingerprint, task="p", measures=names, perturbation="relative", version=1,
            dose=dose, seed=seed, site=Site("block", block),
        )
        for block in blocks
        for seed in (0, 1)
        for dose in (0.05, 0.5)
    ]  # fmt: skip


@pytest.mark.parametrize("skip", [False, True])
def test_block_trials_of_a_large_model_equal_the_slow_engine(skip: bool) -> None:
    subject, task = deep(skip=skip), choices(12)
    before = weights_digest(subject.model)
    trials, found = trials_on(subject, ("blocks.0", "blocks.2", "blocks.3", "out")), dict[str, Outcome]()
    runner = TrialRunner([subject], (), task)
    run_trials(trials, runner, lambda outcome: found.update({outcome.key: outcome}))
    assert weights_digest(subject.model) == before
    assert all("forward" not in vars(module) for module in subject.model.modules())
    for trial in trials:
        outcome, slow = found[trial.key], measured_slowly(trial, subject.model, task)
        assert outcome.status == "done"
        for measure, values in slow.items():
            scale = max(1.0, float(np.abs(values).max()))
            assert float(np.abs(values - outcome.values[measure]).max()) <= 2e-5 * scale, f"{trial.site} {measure}"
    shares = {trial.site.name: found[trial.key].forwards for trial in trials}
    # Without the cache every trial is a whole pass; with it one that starts at its block.
    assert shares["blocks.0"] == shares["out"] == 1.0
    assert (shares["blocks.2"], shares["blocks.3"]) == ((0.5, 0.25) if runner.prefix(subject).exact else (1.0, 1.0))


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


class Twice(nn.Module):
    """Runs its blocks twice over: a recorded output stands for only one of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH) for _ in range(BLOCKS))
        self.out = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.embed(ids)
        for block in (*self.blocks, *self.blocks):
            hidden = block(hidden)
        return self.out(hidden)


def test_a_model_whose_blocks_run_twice_is_still_right() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = Subject(Twice().eval(), name="twice")
    task, found = choices(8), dict[str, Outcome]()
    trials = trials_on(subject, ("blocks.1", "blocks.2"))
    run_trials(trials, TrialRunner([subject], (), task), lambda outcome: found.update({outcome.key: outcome}))
    for trial in trials:
        slow = measured_slowly(trial, subject.model, task)
        gap = np.abs(slow["nll"] - found[trial.key].values["nll"]).max()
        assert gap <= 1e-3 * max(1.0, float(np.abs(slow["nll"]).max())), trial.site
