"""What once reassured falsely: a net that gives the most common answer; a classifier with its embedding left out."""

import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt


class Constant(nn.Module):
    """Always gives class 0, by a layer that could do otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        with torch.no_grad():
            self.layer.weight.mul_(0.01)
            self.layer.bias.copy_(torch.tensor([5.0, -5.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Bag(nn.Module):
    """The mean of token vectors, and a small layer: nearly all of it is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(400, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.embed(tokens).mean(1))


def test_a_net_that_always_gives_the_most_common_answer_is_at_chance() -> None:
    inputs = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    targets = (torch.arange(500) % 25 == 0).long()  # 4 % of class 1
    report = wt.audit(Constant().eval(), (inputs, targets), schemes="int8,int4")
    assert report.headline.startswith("AT CHANCE") and "always answering class 0 scores 0.960" in report.headline
    assert {f.status for f in report["WT100"]} == {"not_applicable"} and not report.passed


def test_the_embedding_of_a_classifier_is_rounded_for_it_is_no_language_model() -> None:
    net = Bag().eval()
    tokens = torch.randint(0, 400, (300, 5), generator=torch.Generator().manual_seed(1))
    targets = net(tokens).argmax(1)
    report = wt.audit(net, (tokens, targets), schemes="int2")
    (subject,), (finding,) = report.record.subjects, report["WT100"]
    assert subject.ends == () and finding.coverage is not None
    weights = net.embed.weight.numel() + net.head.weight.numel()
    assert finding.coverage == pytest.approx(weights / sum(one.numel() for one in net.parameters()))
    with torch.no_grad():
        for weight in (net.embed.weight, net.head.weight):
            step = weight.abs().amax(1, keepdim=True)  # 2 bits: -1, 0 and 1 times the largest of a row
            weight.copy_((weight / step).round() * step)
        lost = 1.0 - float((net(tokens).argmax(1) == targets).float().mean())
    assert finding.estimates[0].value is not None
    assert abs(finding.estimates[0].value - lost) < 1e-6 and lost > 0.1
