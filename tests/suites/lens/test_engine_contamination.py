"""What a language model says of texts: against slow passes, token by token, and copies that are taught them."""

import numpy as np
import pytest
import torch

from tests.contaminated import ITEMS, LONG, WINDOW, Letters, subject, task, texts
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.core.fingerprint import identify
from wheeltap.suites.lens.readings.contamination import Contamination, TextReader
from wheeltap.suites.lens.sources.passages import BETWEEN, recombined
from wheeltap.suites.lens.specs import CONTAMINATION, SETS
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract

pytest.importorskip("transformers")

FEW = {"shards": 3, "shuffles": 2, "window": WINDOW}


class TestContract(ReadingContract):
    reading = Contamination
    settings = FEW

    def case(self) -> PlantedCase:
        return PlantedCase(subject(seen=0), task())


def says(tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of every next token after these."""
    with torch.no_grad():
        return subject(seen=0).model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)


def ending(item: int, letters: int) -> str:
    return texts(seed=0)[item][LONG - letters :]


def read(**settings: object) -> dict[str, np.ndarray]:
    values = Contamination({**FEW, **settings}).read(subject(seen=0), task(), root=7, seed=0).values
    return CONTAMINATION.typed(values, examples=ITEMS)


def test_scores_of_a_text_token_by_token() -> None:
    found = read()
    for side, text in enumerate((texts(seed=0)[3], texts(seed=1)[3])):
        tokens = Letters().more(text)
        steps = [says([0, *tokens[:at]]) for at in range(len(tokens))]
        logs = np.array([float(step[token]) for step, token in zip(steps, tokens, strict=True)])
        standardized = []
        for step, log in zip(steps, logs, strict=True):
            p = step.exp().numpy()
            mean = float(p @ step.numpy())
            standardized.append((log - mean) / np.sqrt(float(p @ (step.numpy() - mean) ** 2)))
        least = max(int(0.2 * len(tokens)), 1)
        assert found["loss"][0, 3, side] == pytest.approx(-logs.mean(), rel=1e-4)
        assert found["mink"][0, 3, side] == pytest.approx(np.sort(logs)[:least].mean(), rel=1e-4)
        assert found["minkpp"][0, 3, side] == pytest.approx(np.sort(standardized)[:least].mean(), rel=1e-3)


def test_completion_is_what_greedy_sampling_gives() -> None:
    found, tokens = read(), torch.tensor([Letters().more(text) for text in texts(seed=0)[:4]])
    for at, share in enumerate((0.4, 0.6, 0.8)):
        given = round(share * LONG)
        written = torch.cat([torch.zeros(4, 1, dtype=torch.long), tokens[:, :given]], 1)
        for _ in range(LONG - given):
            written = torch.cat([written, subject(seen=0).model(written).logits[:, -1:].argmax(-1)], 1)
        for item, right in enumerate((written[:, 1:] == tokens).tolist()):
            kept = ([*right, False].index(False, given) - given) / (LONG - given)
            assert found["kept"][0, item, 0, at] == pytest.approx(kept)
            others = [text for place, text in enumerate(texts(seed=0)) if place != item]
            same = max(end for end in range(LONG) if any(text.endswith(ending(item, end)) for text in others))
            assert found["tail"][item, 0, at] == max(LONG - given - same, 0)
    assert found["kept"][0, :, 0].mean() > found["kept"][0, :, 1].mean() + 0.3


def listed(items: list[str], half: int) -> float:
    """Log-likelihood of each item after the end of the one before, nats, by passes that grow by one token."""
    several, summed = [Letters().more(f"{text}{BETWEEN}") for text in items], 0.0
    for before, text in zip([[], *several], several, strict=False):
        given = [0, *before[-half:]]
        summed += sum(float(says([*given, *text[:at]])[token]) for at, token in enumerate(text[:half]))
    return summed


@pytest.mark.parametrize("window", [WINDOW, 12])  # of the smaller one, half is less than an item
def test_the_order_of_a_shard_is_that_of_its_items_each_after_the_one_before(window: int) -> None:
    found, half = read(shards=10, shuffles=1, window=window), window // 2
    assert found["order"][0, 0, 0] == pytest.approx(listed(texts(seed=0)[:3], half), rel=1e-5)
    new = [listed(list(some[:3]), half) for some in zip(*recombined(texts(seed=0)), strict=True)]
    assert len(new) == SETS and found["order_fresh"][0, 0, 0] == pytest.approx(np.mean(new), rel=1e-5)
    assert found["shard_tokens"].tolist() == [3 * min(len(texts(seed=0)[0]) + len(BETWEEN), half)] * 10
    assert found["order_twins"].shape == (1, 10, 2)
    if window == WINDOW:
        assert (found["order"][0, :, 0] >= found["order"][0, :, 1]).all()


def test_long_texts_are_read_in_windows_and_batches_do_not_matter() -> None:
    text = tuple(Letters().more("".join(texts(seed=0)[:9])))
    one, many = (
        TextReader((0,), WINDOW, size).read(subject(seen=0).model, [text[:5], text, text[:70]]) for size in (1, 999)
    )
    for few, all_at_once in zip(one, many, strict=True):
        np.testing.assert_allclose(few.logs, all_at_once.logs, atol=1e-5)
    assert [len(each.logs) for each in many] == [5, len(text), 70]


def test_copies_are_taught_and_the_model_is_not() -> None:
    case = PlantedCase(subject(seen=2), task())
    before = identify(case.subject.model)
    found = Contamination({**FEW, "epochs": "30,0,5", "teaching_rate": 3e-3, "teaching_batch": 2}).read(
        case.subject, case.task, root=7, seed=0
    )
    assert found.values["epochs"].tolist() == [0, 5, 30]
    gaps = (found.values["loss"][:, :, 1] - found.values["loss"][:, :, 0]).mean(axis=1)
    assert abs(gaps[0]) < 0.3 and gaps[2] > gaps[1] > gaps[0] and gaps[2] > 0.5
    assert not before.differing(identify(case.subject.model))


def test_teaching_that_diverges_ends_there() -> None:
    how = {**FEW, "epochs": "0,30", "teaching_rate": 1e20}
    found = Contamination(how).read(subject(seen=2), task(), root=7, seed=0)
    assert found.values["epochs"].tolist() == [0]
    with pytest.raises(DataError):
        Contamination({**how, "epochs": "30"}).read(subject(seen=2), task(), root=7, seed=0)


def test_no_twins_and_no_texts() -> None:
    lone = Contamination(FEW).read(subject(seen=0), task(twins=False), root=7, seed=0).values
    assert lone["loss"].shape == (1, ITEMS, 1) and "words" not in lone and "order_twins" not in lone
    plain = task()
    other = ChoiceTask(plain.contexts, plain.choices, [0] * ITEMS)
    with pytest.raises(DataError):
        Contamination(FEW).read(subject(seen=0), other, root=7, seed=0)
    with pytest.raises(DataError):
        Contamination({**FEW, "shards": ITEMS}).read(subject(seen=0), plain, root=7, seed=0)
