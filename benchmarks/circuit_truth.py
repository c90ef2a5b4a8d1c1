"""``python -m benchmarks.circuit_truth [--seeds N] [--nets N] [--only programs|planted|trained]``.

Circuits whose truth is known. First compiled programs, plain and superposed, each with a distracting head in every
layer: how well does each method's score rank the true edges above the others (AUROC)? Then circuits planted in random
nets and in trained ones: do the audits of a circuit call the false account of a net false, and the true one true?
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

import wheeltap as wt
from benchmarks.nets.bare_transformer import BareTransformer
from benchmarks.nets.planted_circuit import SHAPE, Planted, planted_circuit
from benchmarks.nets.rasp_compile import Compiled, compiled
from benchmarks.nets.rasp_programs import PROGRAMS, pairs, program
from benchmarks.nets.rasp_superposed import superposed
from wheeltap.core.subject import Subject
from wheeltap.recipes.randomness import reproducible
from wheeltap.stats.delong1988 import auc
from wheeltap.stats.effect import share_interval
from wheeltap.suites.circuits.circuit import EdgeGraph, packed
from wheeltap.suites.circuits.engine.attribution import Method, attribute
from wheeltap.suites.circuits.engine.edges import proven
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.circuits.sources import task

PAIRS = 32
SLOW: tuple[Method, ...] = ("exact", "acdc")
"""Methods that patch one by one: asked of the first seed alone."""

STEPS = 200
"""Of the training of nets that circuits are planted in."""

ABLATIONS: tuple[Literal["patch", "zero"], ...] = ("patch", "zero")
STRICT = ("values of other prompts", "random subsets", "the worst subset found")
"""Ablations under which the planted false account is wrong."""


# ---- compiled programs -----------------------------------------------------------------------------------------

Key = tuple[str, str, str, str]
"""Kind of net, ablation, what is ranked (edges or nodes), which of these are true (all, or what varies)."""


def nets(seeds: int) -> dict[tuple[str, str, int], Compiled]:
    """Each program, plain and superposed, by kind, name and seed."""
    found: dict[tuple[str, str, int], Compiled] = {}
    for name in PROGRAMS:
        for seed in range(seeds):
            plain = compiled(program(name), seed=seed, distractors=1)
            found["plain", name, seed] = plain
            found["superposed", name, seed] = superposed(plain, seed=seed)
    return found


def aurocs(
    graph: EdgeGraph, method: Method, scores: NDArray[np.float64], net: Compiled
) -> dict[tuple[str, str], float]:
    """Of edges and of nodes (heads and MLPs), with all true edges as truth and with those whose message varies."""
    inner, found = slice(1, -1), dict[tuple[str, str], float]()
    nodes = graph.leaving(scores)
    if method == "nodes":  # each edge has the score of its source
        nodes[graph.ends[:, 0]] = scores
    for name, edges in (("all", net.edges), ("varying", net.varying)):
        true = np.isin(graph.edges, sorted(edges))
        found["edges", name] = _auc(scores, true)
        found["nodes", name] = _auc(nodes[inner], graph.touched(true)[inner])
    return found


def _auc(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    sizes = np.abs(scores)
    return auc(sizes[true], sizes[~true])


def scored(made: Mapping[tuple[str, str, int], Compiled]) -> tuple[dict[tuple[Key, Method, str], list[float]], dict[
        Method, float]]:  # fmt: skip
    """AUROCs of every method by key and program, one a seed; and the CPU-seconds that each method took."""
    found, seconds = defaultdict[tuple[Key, Method, str], list[float]](list), defaultdict[Method, float](float)
    for (kind, name, seed), net in made.items():
        batch = pairs(net.program, seed=seed, count=PAIRS)
        wired = proven(Subject(net.net, name=name), batch)
        for method in get_args(Method):
            for ablation in ABLATIONS if method not in SLOW or not seed else ():
                began = time.process_time()
                scores, _ = attribute(wired, [batch], method, ablation=ablation, seed=seed)
                seconds[method] += time.process_time() - began
                for (what, truth), value in aurocs(wired.graph, method, scores, net).items():
                    found[(kind, ablation, what, truth), method, name].append(value)
    return found, seconds


def programs(seeds: int) -> None:
    """Prints medians over programs and seeds, then the best methods by program."""
    found, seconds = scored(nets(seeds))
    shown = [(ablation, what, truth) for what in ("edges", "nodes") for ablation, truth in (
        ("patch", "varying"), ("patch", "all"), ("zero", "all"))]  # fmt: skip
    print(f"AUROC, median over {len(PROGRAMS)} programs and {seeds} seeds; kind, method: " + " | ".join(
        f"{what}, {ablation}, truth {truth}" for ablation, what, truth in shown) + " | CPU-s a net")  # fmt: skip
    for kind in ("plain", "superposed"):
        for method in get_args(Method):
            nets_of = len(found[(kind, *shown[0]), method, "reverse"]) * len(PROGRAMS)
            cells = [
                np.median([one for name in PROGRAMS for one in found[(kind, *key), method, name]]) for key in shown
            ]
            print(f"{kind}, {method}, {nets_of} nets: " + " | ".join(f"{one:.3f}" for one in cells)
                  + f" | {seconds[method] / nets_of / 4:.3f}")  # fmt: skip
    for kind in ("plain", "superposed"):
        for method in ("eap", "eap-ig", "exact"):
            for ablation, truth in (("patch", "varying"), ("zero", "all")):
                row = [
                    f"{name} {np.median(found[(kind, ablation, 'edges', truth), method, name]):.2f}"
                    for name in PROGRAMS
                ]
                print(f"{kind}, {method}, edges, {ablation}, truth {truth}: " + ", ".join(row))


# ---- planted circuits ------------------------------------------------------------------------------------------


def judged(planted: Planted, audits: Sequence[str], seed: int) -> dict[str, str]:
    """Status of every claim on a planted circuit, by title."""
    flags = np.concatenate([np.isin(np.arange(one.units), one.kept) for one in planted.units])
    specs = [wt.AuditSpec(name, {"circuit": packed(flags), "tries": 1, "steps": 60}) for name in audits]
    asked = task(Pairs.of(planted.pairs), name="planted")
    report = wt.audit(wt.Subject(planted.net, name="planted"), asked, audits=specs, seed=seed)
    return {finding.title: finding.status for finding in report.findings if finding.code.startswith("WT3")}


def trained(seed: int) -> BareTransformer:
    """A net that has learned to repeat, at the last place, the token of the first."""
    with reproducible(seed):
        net = BareTransformer(SHAPE)
        for name, weight in net.named_parameters():
            if name.endswith("weight"):
                torch.nn.init.normal_(weight, std=SHAPE.width**-0.5)
        stepper = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(STEPS):
            tokens = torch.randint(SHAPE.tokens, (64, SHAPE.places))
            stepper.zero_grad()
            torch.nn.functional.cross_entropy(net(tokens)[:, -1], tokens[:, 0]).backward()
            stepper.step()
        asked = torch.randint(SHAPE.tokens, (500, SHAPE.places))
        with torch.no_grad():
            right = (net(asked)[:, -1].argmax(1) == asked[:, 0]).double().mean()
    if not float(right) > 0.9:
        raise RuntimeError(f"net {seed} has not learned: {float(right):.2f} right")
    return net


def planted(count: int, *, bases: bool = False) -> None:
    """Prints how often each claim was found, of false accounts and of true ones, in random or in trained nets."""
    nets = [trained(seed) if bases else None for seed in range(count)]
    print(f"\nplanted in {'trained' if bases else 'random'} nets")
    for fake in (True, False):
        began, tally, flagged = time.process_time(), defaultdict[str, list[str]](list), list[bool]()
        for seed in range(count):
            audits = ("circuit-sufficient", "circuit-necessary", *(("circuit-nulls",) if seed < count // 8 else ()))
            titles = judged(planted_circuit(seed, fake=fake, base=nets[seed]), audits, seed)
            flagged.append(any(titles[f"Circuit is sufficient: {words}"] == "found" for words in STRICT))
            for title, status in titles.items():
                tally[title].append(status)
        share = share_interval(np.array(flagged, dtype=float), name="called false", unit="share")
        print(f"{'false' if fake else 'true'} accounts, {count} nets: called false by WT301 in {sum(flagged)}: {share}; "
              f"{time.process_time() - began:.0f} CPU-s")  # fmt: skip
        for title, statuses in tally.items():
            counts = {status: statuses.count(status) for status in sorted(set(statuses))}
            print(f"  {title}: {', '.join(f'{status} {many}' for status, many in counts.items())}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--nets", type=int, default=40)
    arguments.add_argument("--only", choices=("programs", "planted", "trained"))
    asked = arguments.parse_args()
    if asked.only in (None, "programs"):
        programs(asked.seeds)
    for part in ("planted", "trained"):
        if asked.only in (None, part):
            planted(asked.nets, bases=part == "trained")


if __name__ == "__main__":
    main()
