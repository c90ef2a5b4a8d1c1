"""How often a sound net has a false ``costs`` in a slice, and whether a class that is ruined is named.

``python -m benchmarks.slices --nets 40``: digits, ten classes. Sound: 8 bits, which change next to no answer. Ruined: the
net as it is shipped answers another class on a share of one class's examples.
"""

import argparse
import copy

import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.report.report import Report
from wheeltap.sources import digits


class Ruined(nn.Module):
    """A net that does not know one class on some of its examples."""

    def __init__(self, model: nn.Module, at: int, share: float) -> None:
        super().__init__()
        self.model, self.at, self.share = copy.deepcopy(model), at, share

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.model(inputs)
        some = (1000.0 * inputs.sum(1)).round().long() * 7919 % 1000 < 1000 * self.share
        return torch.where(some[:, None] & (torch.arange(10) == self.at), scores - 100.0, scores)


def audited(seed: int, *, at: int, share: float) -> Report:
    """One net under 8 bits, and as it is shipped where a share is ruined."""
    subject, schemes = digits.subject(seed=seed), list[object](["int8"])
    if share:
        schemes.append(lambda: Ruined(subject.model, at, share).eval())
    return wt.audit(subject, digits.task(), audits=["score"], schemes=schemes, slices="class", seed=seed)  # type: ignore


def main() -> None:
    """Counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slices", description=__doc__)
    parser.add_argument("--nets", type=int, default=40, help="sound nets [40]")
    parser.add_argument("--share", type=float, default=0.0, help="of one class's examples that are ruined [none]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    false = named = missed = 0
    for seed in range(given.nets):
        at, report = seed % 10, audited(seed, at=seed % 10, share=given.share)
        costs = [one for one in report["WT113"] if one.verdict == "costs"]
        wrong = [one.scheme for one in costs if not (given.share and one.scheme.endswith(f"on class {at}"))]
        false += bool(wrong)
        named += f"class {at}" in report.headline
        missed += bool(given.share) and len(costs) == len(wrong)
        print(f"net {seed}: {', '.join(one.scheme for one in costs) or 'no slice costs'}", flush=True)
    print(f"A false costs in a slice: {false} of {given.nets} reports.")
    if given.share:
        print(f"The ruined class in the headline: {named} of {given.nets}; not found: {missed}.")


if __name__ == "__main__":
    main()
