"""Readings of ambiguous sentences: known divergences, both ways of going on, parts that make up the whole."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_llama
from torch import nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.suites.lens.annotations import Ambiguity, AmbiguousSentence
from wheeltap.suites.lens.readings.ambiguity import Continuations, Continuer, LabelSets, Statements, nucleus
from wheeltap.suites.lens.specs import DISTRACTOR, FALSE, NONE, NOT_ASKED, READING, TRUE, ContinuationSettings
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract

TOKENS = 6


class Pairs(nn.Module):
    """What comes next depends on the last token alone, by a table."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, TOKENS)
        with torch.no_grad():
            self.table.weight.copy_(torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(seed)))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)

    def chances(self) -> np.ndarray:
        """``[last, next]``."""
        return self.table.weight.detach().double().softmax(-1).numpy()


class Plain(nn.Module):
    """A model that keeps nothing of what it read."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids).logits


def task(*sentences: tuple[AmbiguousSentence, ...], ends: frozenset[int] = frozenset(), options: int = 5) -> ChoiceTask:
    """Of items with these sentences, and a statement for each of two readings and templates of one token each."""
    count = len(sentences)
    statements = tuple(
        tuple(tuple((at, reading, template) for template in range(4)) for reading in range(2)) if several else ()
        for at, several in enumerate(sentences)
    )
    known = Ambiguity(
        sentences=sentences, statements=statements, options=((options,), (options - 1,)), ends=ends,
        labels=((True, True, False),) * count,
    )  # fmt: skip
    made = ChoiceTask([[1, 2]] * count, [[[1], [2], [3]]] * count, [0] * count, name="items")
    return made.with_annotation(known)


def sentence(*last: int, side: int = 0) -> AmbiguousSentence:
    """An ambiguous sentence, its readings and a distractor, by their last tokens; they are not equally long."""
    first, *readings, other = last
    starts = tuple((1, *(2,) * at, token) for at, token in enumerate(readings))
    return AmbiguousSentence(side=side, sentence=(3, first), readings=starts, distractor=(1, 3, 2, other))


def read(model: nn.Module, items: ChoiceTask, **settings: Any) -> dict[str, np.ndarray]:
    """The divergences."""
    return dict(Continuations(settings).read(Subject(model.eval()), items, root=3, seed=0).values)


def test_divergences_of_a_known_model() -> None:
    """Two sentences differ in the token after them alone, so that the divergence is that of two rows of the table."""
    model = Pairs()
    p = model.chances()
    made = read(model, task((sentence(0, 0, 4, 2),)), continuations=4000, longest=3, top_p=1.0)
    expected = [float((p[at] * np.log(p[at] / p[0])).sum()) for at in (0, 4, 2)]
    np.testing.assert_allclose(made["divergence"][0, 0], expected, atol=0.06)
    assert made["divergence"][0, 0, 0] == pytest.approx(0.0, abs=1e-5)
    assert made["kind"].tolist() == [[[READING, READING, DISTRACTOR], [NONE] * 3]]
    assert made["continuations"].tolist() == [[4000, 0]]


def test_a_continuation_ends_with_its_sentence() -> None:
    go_on = Continuer(Pairs(), ContinuationSettings(continuations=200, longest=8), frozenset({5}))
    [drawn] = go_on.drawn([(1, 2)], [np.random.default_rng(0).random((8, 200))])
    lengths = {len(one) for one in drawn.tokens}
    assert len(lengths) > 3 and max(lengths) == 8
    assert all(5 not in one[:-1] and (one[-1] == 5 or len(one) == 8) for one in drawn.tokens)
    np.testing.assert_allclose(go_on.scored((1, 2), drawn.tokens), drawn.logprob, atol=1e-4)


def test_tokens_are_drawn_from_the_most_likely_ones() -> None:
    p = torch.tensor([0.5, 0.1, 0.25, 0.15], dtype=torch.float64)
    uniform = torch.arange(10_000, dtype=torch.float64) / 10_000
    drawn = nucleus(p.log().expand(10_000, 4), 0.7, uniform)
    shares = np.bincount(drawn.numpy(), minlength=4) / 10_000
    np.testing.assert_allclose(shares, [2 / 3, 0.0, 1 / 3, 0.0], atol=1e-3)
    assert nucleus(p.log()[None], 1.0, torch.tensor([1.0])).item() == 1
    wide = torch.full((1, 5000), 1 / 5000).log()  # more tokens than are sorted at first
    assert len({int(nucleus(wide, 0.9, torch.tensor([one]))) for one in np.arange(0, 1, 0.01)}) == 100


@pytest.fixture(scope="module")
def llama() -> Any:
    """A random one."""
    return tiny_llama()


MANY = ((sentence(0, 4, 5, 2), sentence(1, 3, 4, 6, 7, side=1)), (), (sentence(2, 4, 9, 3),), (sentence(8, 1, 2, 2),))


def test_a_model_that_keeps_what_it_read_gives_the_same(llama: Any) -> None:
    items = task(*MANY, ends=frozenset({9}))
    kept, plain = (read(model, items, continuations=5, longest=6) for model in (llama, Plain(llama)))
    np.testing.assert_allclose(kept["divergence"], plain["divergence"], atol=2e-4)
    assert (kept["kind"] == plain["kind"]).all() and np.abs(kept["divergence"]).max() > 0.01
    counted = [
        Continuer(one, ContinuationSettings(continuations=4, longest=6), frozenset()) for one in (llama, Plain(llama))
    ]
    for one in counted:
        one.drawn([(1, 2, 3, 4)], [np.random.default_rng(0).random((6, 4))])
    assert (
        counted[0].read == 4 + 4 * 5 < counted[1].read
    )  # each token once: the start, and what was drawn before the last


def test_continuations_are_scored_as_one_by_one(llama: Any) -> None:
    """The slow way: each sequence by itself, each token after all before it."""
    several, start = [(4, 5, 6), (7,), (2, 2, 9, 1)], (1, 8, 3)
    found = Continuer(llama, ContinuationSettings(), frozenset()).scored(start, several)
    for one, score in zip(several, found, strict=True):
        logs = [
            float(llama(torch.tensor([[*start, *one[:at]]])).logits[0, -1].detach().log_softmax(-1)[token])
            for at, token in enumerate(one)
        ]
        assert score == pytest.approx(sum(logs), abs=1e-4)


def test_parts_make_up_the_whole(llama: Any) -> None:
    items, subject = task(*MANY), Subject(llama)
    how = {"continuations": 4, "longest": 5}
    whole = read(llama, items, **how)
    parts = [read(llama, items, part=at, size=3, **how) for at in range(2)]
    np.testing.assert_allclose(sum(part["divergence"] for part in parts), whole["divergence"], atol=1e-4)
    assert (sum(part["kind"] for part in parts) == whole["kind"]).all()
    assert not parts[0]["kind"][3].any() and not parts[1]["kind"][:3].any()
    asked = [Statements({"part": at, "size": 3}).read(subject, items, root=0, seed=0).values for at in range(2)]
    every = Statements().read(subject, items, root=0, seed=0).values
    assert (np.minimum(*(one["answer"] for one in asked)) == every["answer"]).all()
    assert (every["answer"][1] == NOT_ASKED).all() and set(every["answer"][0].flat) <= {TRUE, FALSE}


def test_statements_are_true_where_that_is_likelier() -> None:
    model = Pairs()
    p, items = model.chances(), task((sentence(0, 4, 5, 2),))
    found = Statements().read(Subject(model.eval()), items, root=0, seed=0).values
    # The last token of a statement is its template; the options are 5 (false) and 4 (true).
    assert found["answer"][0, 0].tolist() == [TRUE if p[at, 4] > p[at, 5] else FALSE for at in range(4)]
    np.testing.assert_allclose(found["mass"][0, 1], p[:4, 4] + p[:4, 5], atol=1e-5)


def test_what_cannot_be_read(llama: Any) -> None:
    plain = Task(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]))
    for reading in (LabelSets(), Statements(), Continuations()):
        with pytest.raises(DataError, match="no readings"):
            reading.read(Subject(nn.Linear(3, 3).eval()), plain, root=0, seed=0)
    long = AmbiguousSentence(side=0, sentence=(1,) * 60, readings=((1, 2),), distractor=(1, 3))
    with pytest.raises(DataError, match="longer than the model can read"):
        read(llama, task((long,)))
    with pytest.raises(DataError, match="other examples"):
        task((), ()).with_annotation(Ambiguity((), (), ((1,), (2,)), frozenset(), ()))


class TestStatements(ReadingContract):
    """Of a model that depends on the last token."""

    reading = Statements

    def case(self) -> PlantedCase:
        """See ``ReadingContract.case``."""
        return PlantedCase(Subject(Pairs().eval()), task((sentence(0, 4, 5, 2),), ()))


class TestContinuations(TestStatements):
    """Of the same model."""

    reading = Continuations
    settings = {"continuations": 3, "longest": 2}  # noqa: RUF012 - as the contract declares it


class TestLabelSets(TestStatements):
    """Of the same task."""

    reading = LabelSets
