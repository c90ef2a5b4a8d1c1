"""What is told of a copy: it is disturbed where its base is, and that is counted alike."""

import pytest
import torch
from tiny_transformers import TOKENS, causal

from wheeltap import gauge
from wheeltap.core.site import WHOLE, Site
from wheeltap.core.subject import Subject, derived_record
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create


@pytest.mark.parametrize("site", [WHOLE, Site.without(["model.embed_tokens"])])
def test_a_head_that_a_gauge_untied_counts_as_little_as_it_is_disturbed(site: Site) -> None:
    subject = Subject(causal("Llama", tie_word_embeddings=True), name="tied")
    assert subject.record.ends == ("model.embed_tokens",)
    family = gauge.find(subject.model)
    made = gauge.describe(family, "rotate", seed=0)
    copied = subject.derived(gauge.twin(subject.model, made), derived_record(subject.record, made, role="twin"))
    assert copied.record.ends == subject.record.ends
    shares: list[float | None] = []
    for one in (subject, copied):
        with Disturbance(one, create("relative"), site) as disturbance, torch.no_grad():
            before = one.model(TOKENS).logits
            disturbance.apply(0.1, root=0, seed=0)
            assert not torch.equal(one.model(TOKENS).logits, before)
        shares.append(disturbance.coverage)
    assert shares[0] is not None and 0.9 < shares[0] < 1.0
    assert shares[0] == shares[1]


def test_a_part_of_a_model_has_no_coverage() -> None:
    subject = Subject(causal("GPT2"))
    with Disturbance(subject, create("relative"), Site("block", subject.record.blocks[-1])) as disturbance:
        disturbance.apply(0.1, root=0, seed=0)
        assert disturbance.coverage is None
