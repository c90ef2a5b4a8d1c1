"""Training with sparse weights against a slow loop; what is counted after every step; models of others."""

from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.task import BaseTask, Task
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.fit import Fit
from wheeltap.recipes.make import weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer
from wheeltap.suites.circuits.recipes.sparse import (
    Sparse,
    SparsifiedModel,
    SparsitySettings,
    cuts_of,
    next_token_loss,
    sparse_fit,
    sparsified,
)
from wheeltap.testing.recipe_contract import RecipeContract

TINY: dict[str, Any] = {"steps": 4, "batch": 4}
OTHER: dict[str, Any] = {
    "share": 0.3, "embedding_share": 0.5, "alive": 3, "until": 0.25, "steps": 5, "batch": 5, "rate": 1e-2,
    "warm_up": 0.5, "decay": 0.0, "softness": 1e-3,
}  # fmt: skip
HOW = SparsitySettings(share=0.1, embedding_share=0.4, alive=2, steps=30, batch=8, rate=0.05, decay=0.5, warm_up=0.1)
TOKENS = torch.randint(0, 9, (40, 8), generator=torch.Generator().manual_seed(2))


def net() -> SparseTransformer:
    with reproducible(4):
        return SparseTransformer(Shape(9, places=8, layers=1, width=12, head=4))


class TestSparse(RecipeContract):
    recipe = Sparse
    settings: ClassVar[dict[str, Any]] = {**TINY, "layers": 1, "width": 16, "head": 8}
    other: ClassVar[dict[str, Any]] = {
        **OTHER, "layers": 2, "width": 24, "head": 4, "sink": False, "bigram": False, "active": 0.5,
    }  # fmt: skip


class TestSparsified(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of the one above
    recipe = SparsifiedModel
    settings: ClassVar[dict[str, Any]] = TINY
    other: ClassVar[dict[str, Any]] = {**OTHER, "held": 0.3}

    def task(self) -> BaseTask:
        return Task(TOKENS[:, :-1], TOKENS[:, -1])

    def of(self) -> tuple[nn.Module, ...]:
        return (net().eval(),)


# ---- the mathematics -----------------------------------------------------------------------------------------------


def begun(how: SparsitySettings = HOW) -> Fit:
    return sparse_fit(net(), TOKENS, how, held=TOKENS[:5], seed=1)


def left(matrix: Tensor, share: float, *, alive: int = 0, columns: bool = False) -> Tensor:
    """The matrix with its largest weights alone, by sorting; first the largest of each neuron."""
    rows, (count, many) = matrix.tolist(), matrix.shape
    places = sorted(((row, column) for row in range(count) for column in range(many)),
                    key=lambda at: -abs(rows[at[0]][at[1]]))  # fmt: skip
    neuron = [at[1] if columns else at[0] for at in places]
    safe = [at for rank, at in enumerate(places) if neuron[:rank].count(neuron[rank]) < alive]
    keep = max(round(share * len(places)), len(safe))
    stay = {*safe, *[at for at in places if at not in safe][: keep - len(safe)]}
    return torch.tensor([[rows[row][column] if (row, column) in stay else 0.0 for column in range(many)]
                         for row in range(count)])  # fmt: skip


def slow(model: SparseTransformer, how: SparsitySettings, steps: int) -> SparseTransformer:
    order = torch.Generator().manual_seed(1)
    batches = [rows for _ in range(how.steps) for rows in torch.randperm(40, generator=order).split(how.batch)]
    moments = {name: [torch.zeros_like(one), torch.zeros_like(one)] for name, one in model.named_parameters()}
    for step in range(steps):
        shares = [1 - (1 - share) * min(step / (0.5 * how.steps), 1) for share in (how.share, how.embedding_share)]
        rate = how.rate * min((step + 1) / (how.warm_up * how.steps), 1) * (1 - step / how.steps)
        rate *= (how.share / shares[0]) ** 0.5
        slopes = torch.autograd.grad(next_token_loss(model, TOKENS[batches[step]]), list(model.parameters()))
        size = (sum((slope**2).sum() for slope in slopes) / sum(slope.numel() for slope in slopes)) ** 0.5
        now = step + 1
        for (name, parameter), slope in zip(model.named_parameters(), slopes, strict=True):
            unit, (first, second) = slope / (size + 1e-5), moments[name]
            first.mul_(0.9).add_(0.1 * unit)
            second.mul_(0.95).add_(0.05 * unit**2)
            weight = parameter.detach().clone()
            matrix = parameter.ndim == 2 and "bigram" not in name
            weight *= 1 - rate * how.decay if matrix else 1
            weight -= rate * first / (1 - 0.9**now) / ((second / (1 - 0.95**now)) ** 0.5 + 0.1)
            if matrix:
                embedding = "blocks" not in name
                share = 1 - (1 - (how.embedding_share if embedding else how.share)) * min(now / (0.5 * how.steps), 1)
                columns = "output" in name or "fall" in name
                weight = left(weight, share, alive=0 if embedding else how.alive, columns=columns)
            parameter.data.copy_(weight)
    return model


def test_it_is_the_slow_loop() -> None:
    """Before, while and after the share falls."""
    for steps in (1, 9, 18):
        wanted, fit = slow(net(), HOW, steps), begun()
        fit.advance(steps)
        for (name, one), two in zip(wanted.named_parameters(), fit.model.parameters(), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
            assert not torch.equal(one, dict(net().named_parameters())[name])


@pytest.mark.parametrize("alive", [0, 3])
def test_counts_are_exact_after_every_step_and_weights_come_back(alive: int) -> None:
    how = SparsitySettings(share=0.1, embedding_share=0.4, alive=alive, steps=24, batch=8, rate=0.2)
    fit = begun(how)
    named, zero = dict(fit.model.named_parameters()), list[Tensor]()
    for step in range(1, 25):
        fit.advance(step)
        done = min(step / 12, 1.0)
        for name, matrix in named.items():
            if matrix.ndim < 2 or "bigram" in name:
                assert bool((matrix != 0).all()), name
                continue
            inner = "blocks" in name
            share = 1 - (1 - (0.1 if inner else 0.4)) * done
            columns = "output" in name or "fall" in name
            least = alive * matrix.shape[int(columns)] if inner else 0
            assert int(torch.count_nonzero(matrix)) == max(round(share * matrix.numel()), least), (name, step)
            if inner:
                assert int(torch.count_nonzero(matrix, 0 if columns else 1).min()) >= alive
        zero.append(named["blocks.0.mlp.rise.weight"] == 0)
    assert any(bool((before & ~after).any()) for before, after in pairwise(zero))
    report = fit.report()
    inner = [matrix for name, matrix in named.items() if "blocks" in name and matrix.ndim == 2]
    assert report["nonzero"].tolist() == [sum(int(torch.count_nonzero(matrix)) for matrix in inner)]
    with torch.no_grad():
        assert report["validation"].tolist() == pytest.approx([float(next_token_loss(fit.model, TOKENS[:5]))], rel=1e-5)


def test_a_dense_twin_starts_alike_and_keeps_every_weight() -> None:
    nets: list[nn.Module] = []
    for share in (0.1, 1.0):
        settings = {"layers": 1, "width": 16, "steps": 3, "batch": 4, "share": share, "until": 0.0}
        nets.append(Sparse(settings).blank(Given(specified(Sparse, settings, seed=8))))
        fit = Sparse(settings).start(Given(specified(Sparse, settings, seed=8)))
        fit.advance(3)
        matrix = dict(fit.model.named_parameters())["blocks.0.mlp.rise.weight"]
        assert int(torch.count_nonzero(matrix)) == round(share * 1024)
    assert digest(weights(nets[0])) == digest(weights(nets[1]))


# ---- models of others ----------------------------------------------------------------------------------------------


class Own(nn.Module):
    """A language model as somebody may write one: its scores depend on the last two tokens."""

    def __init__(self, ahead: int = 0) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(9, 6), nn.Linear(12, 24), nn.Linear(24, 9)
        self.drop, self.ahead = nn.Dropout(0.1), ahead

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        held = self.table(tokens)
        pair = torch.cat([held, held.roll(-1 if self.ahead else 1, 1)], 2)
        pair[:, 0 if not self.ahead else -1, 6:] = 0.0
        return {"logits": self.head(self.drop(self.mix(pair).relu()))}


def own(ahead: int = 0) -> Own:
    with reproducible(6):
        return Own(ahead).eval()


def rule(sequences: int = 60) -> Tensor:
    """Sequences in which each token is the sum of the two before it, modulo 9."""
    rows = torch.randint(0, 9, (sequences, 10), generator=torch.Generator().manual_seed(5))
    for place in range(2, 10):
        rows[:, place] = (rows[:, place - 1] + rows[:, place - 2]) % 9
    return rows


def test_a_model_of_ones_own_is_made_sparse_and_left_as_it_was() -> None:
    model = own()
    before = digest(weights(model))
    made = wt.circuits.sparsify(model, rule(), share=0.5, steps=150, rate=0.05, seed=3)
    assert digest(weights(model)) == before and not made.training
    count = {name: int(torch.count_nonzero(one)) for name, one in made.named_parameters()}
    assert count == {
        "table.weight": round(54 * 0.5**0.5), "mix.weight": 144, "mix.bias": 24, "head.weight": round(216 * 0.5**0.5),
        "head.bias": 9,
    }  # fmt: skip
    losses = [next_token_loss(one, rule(20)).item() for one in (model, made)]
    assert losses[1] < losses[0] - 0.3


class Stop(Exception):
    """What a user's interrupt raises."""


def test_broken_off_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def run(folder: Path | None, watch: Any = None) -> Any:
        return sparsified(own(), rule(), {"steps": 40, "share": 0.3}, seed=1, folder=folder, watch=watch)

    def stop(taken: int, steps: int) -> None:
        if taken >= 5:
            raise Stop

    wanted = run(None)
    with pytest.raises(Stop):
        run(tmp_path, stop)
    resumed = run(tmp_path)
    assert 0 < resumed.steps < 40 and (resumed.digest, resumed.status) == (wanted.digest, "done")
    assert all(np.array_equal(array, resumed.report[name]) for name, array in wanted.report.items())
    assert run(tmp_path).steps == 0
    assert sparsified(own(), rule(59), {"steps": 40, "share": 0.3}, seed=1, folder=tmp_path).steps == 40


def test_one_row_of_tokens_is_cut_into_sequences() -> None:
    row, how = rule().flatten(), {"steps": 3, "share": 0.5}
    cut = wt.circuits.sparsify(own(), [*row.tolist(), 1, 2], steps=3, share=0.5, places=10)
    whole = sparsified(own(), rule(), {**how, "embedding_share": 0.5**0.5})
    assert digest(weights(cut)) == whole.digest


def test_gpt2_of_transformers_is_cut_by_neuron() -> None:
    """Its matrices are stored the other way around, and it embeds tokens by the matrix that scores them."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=9, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    with reproducible(2):
        model = transformers.GPT2LMHeadModel(config).eval()
    cuts = cuts_of(model, SparsitySettings(alive=1), vocabulary=9)
    found = {name: cuts[one].neurons for name, one in model.named_parameters() if one in cuts and "h.0" in name}
    assert found == {
        "transformer.h.0.attn.c_attn.weight": 1, "transformer.h.0.attn.c_proj.weight": 0,
        "transformer.h.0.mlp.c_fc.weight": 1, "transformer.h.0.mlp.c_proj.weight": 0,
    }  # fmt: skip
    made = wt.circuits.sparsify(model, rule(), share=0.25, steps=3, rate=1e-3)
    assert int(torch.count_nonzero(made.transformer.h[0].mlp.c_fc.weight)) == 64
    assert int(torch.count_nonzero(made.lm_head.weight)) == 36 and made.lm_head.weight is made.transformer.wte.weight


@pytest.mark.parametrize(
    ("data", "said"),
    [(torch.zeros(4, 1).long(), "no sequences of tokens"), (torch.rand(4, 5), "no sequences of tokens"),
     ([1, 2, 3], "no sequences of tokens"), (torch.full((3, 4), 9), "does not know"), ([["a"]], "not numbers")],
)  # fmt: skip
def test_data_that_cannot_be_learned_is_refused(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wt.circuits.sparsify(own(), data, steps=3)


def test_models_that_are_no_language_models_are_refused() -> None:
    with pytest.raises(ModelError, match="still to come"):
        wt.circuits.sparsify(own(ahead=1), rule(), steps=3)
    with pytest.raises(ModelError, match="does not score the next token"):
        wt.circuits.sparsify(nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(36, 9)), rule(), steps=3)
    broken = own()
    broken.head.weight.data.mul_(1e38)
    with pytest.raises(ModelError, match="could not be trained"):
        wt.circuits.sparsify(broken, rule(), steps=3)
