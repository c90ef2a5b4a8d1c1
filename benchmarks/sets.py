"""How often one of several test sets has a false verdict, and whether a set that a scheme ruins is named.

``python -m benchmarks.sets``: nets that lose just the margin on every set at 2 bits, where ``costs`` and ``safe`` are both
false; and nets that lose three margins on one set and nothing on the others. Examples are drawn anew for each report.
"""

import argparse
from collections.abc import Sequence

import msgspec
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.report.report import Report

CLASSES, MARGIN = 5, 0.05


def net() -> nn.Module:
    """Reads one input a class; of the last one also an input with a weight that 2 bits round to 0, and one not at all."""
    model = nn.Sequential(nn.Linear(CLASSES + 2, CLASSES, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(CLASSES, CLASSES + 2))  # type: ignore[index]
        model[0].weight[-1, CLASSES] = 0.4  # type: ignore[index]
    return model


def drawn(generator: torch.Generator, *, lost: float, count: int) -> tuple[Tensor, Tensor]:
    """Examples of which the net loses that share at 2 bits; a tenth of its answers is wrong.

    Of those whose answer becomes class 0 nine in ten were right, and one in ten is right then.
    """
    targets = torch.randint(CLASSES, (count,), generator=generator)
    rare = torch.rand(count, generator=generator) < lost / 0.8
    targets[rare] = CLASSES - 1
    inputs = torch.eye(CLASSES + 2)[torch.where(rare, CLASSES, targets)]
    inputs[:, -1] = torch.rand(count, generator=generator)  # or they would be taken for repeats
    wrong = torch.rand(count, generator=generator) < 0.1
    return inputs, torch.where(wrong, (targets + 1) % CLASSES, targets)


def audited(seed: int, lost: Sequence[float], *, count: int) -> Report:
    """One report on sets with these losses."""
    generator = torch.Generator().manual_seed(seed)
    sets = {f"set {at}": drawn(generator, lost=one, count=count) for at, one in enumerate(lost)}
    subject = wt.Subject(net(), name="net")
    plan = wt.plan(subject, sets, audits=["score"], schemes="int2", margin=MARGIN, seed=seed)
    plan = msgspec.structs.replace(plan, twin=None, planted=None, stronger=(), graded=())
    return wt.run(plan, subject, sets)


def main() -> None:
    """Counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sets", description=__doc__)
    parser.add_argument("--reports", type=int, default=400, help="of each kind [400]")
    parser.add_argument("--sets", type=int, default=5, help="test sets of a report [5]")
    parser.add_argument("--each", type=int, default=400, help="examples of a set [400]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    costs = safe = named = others = 0
    for seed in range(given.reports):
        verdicts = {one.verdict for one in audited(seed, [MARGIN] * given.sets, count=given.each)["WT113"]}
        costs, safe = costs + ("costs" in verdicts), safe + ("safe" in verdicts)
        ruined = audited(seed, [0.0] * (given.sets - 1) + [3 * MARGIN], count=given.each)
        found = {one.scheme for one in ruined["WT113"] if one.verdict == "costs"}
        named += f"int2 on set {given.sets - 1}" in found
        others += len(found) > (f"int2 on set {given.sets - 1}" in found)
    print(f"Loss just the margin on {given.sets} sets: a false costs in {costs}, a false safe in {safe} reports.")
    print(f"Three margins on one set: named in {named} reports, another one called costs in {others}.")


if __name__ == "__main__":
    main()
