"""What a report shows of a circuit beside its findings: the graph, losses with their nulls, loss against size."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.case import Arrays
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Axis, Block, Chart, Graph, Link, Node, Section, Series, Table, View
from wheeltap.stats.effect import mean_effect
from wheeltap.suites.circuits.audits.common import NULLS, CircuitAudit, CircuitRead
from wheeltap.suites.circuits.specs import CHANCE, CIRCUIT_GRAPH, KINDS

_WORDS: Final = {
    "whole": "whole net", "empty": "every unit at its mean", "keep mean": "circuit alone, the rest at its mean",
    "keep zero": "circuit alone, the rest at zero",
    "keep patch": "circuit alone, the rest at counterfactual values",
    "keep resample": "circuit alone, the rest at values of other prompts",
    "subsets": "circuit and random subsets of the rest",
    "keep adversarial": "circuit and the worst part of the rest", "remove mean": "without the circuit: at its mean",
    "remove zero": "without the circuit: at zero", "remove patch": "without the circuit: counterfactual values",
    "remove resample": "without the circuit: values of other prompts",
}  # fmt: skip
"""Definitions as rows of a table."""

_MOST_LINES: Final = 6
_MOST_UNITS: Final = 1000
"""Units of a drawing."""

_LISTED: Final = 40
"""Numbers of units of a site that a table lists."""

_HIGHEST: Final = 1.6
"""End of the axis of losses, in losses of a guess: what is worse is not drawn."""

_RANDOM: Final = {"keep": "random", "remove": "random_removed"}
"""Arrays of random circuits of equal size, by what is ablated."""


def graphs(audit: CircuitAudit, case: Case, subject: SubjectRecord) -> list[Trial]:
    """The reading of a circuit as a graph.

    Raises:
        NoAnswer: If there is no circuit.
    """
    circuit, _ = audit.chosen(case, subject)
    given: dict[str, Scalar] = {"circuit": circuit, "parts": audit.parts, "group": audit.settings.group}
    return [case.plan.reading(subject, CIRCUIT_GRAPH.name, given)]


class DefinedLoss(NamedTuple):
    """The loss by one definition, in nats; the same of each null, where there are any, and what these are."""

    name: str
    loss: Estimate
    null: str = ""
    beside: tuple[float, ...] = ()


class Search(NamedTuple):
    """What was searched in, whether that is a null, and what was found."""

    name: str
    null: bool
    found: Arrays

    @property
    def size(self) -> int:
        """Of the smallest circuit at the target, 0 for none."""
        return int(self.found["size"])

    @property
    def lowest(self) -> str:
        """Lowest loss of any circuit tried."""
        return fixed(float(self.found["losses"].min()), 3)


@dataclass(frozen=True, kw_only=True)
class CircuitView:
    """All that is known of a circuit.

    Attributes:
        subject: Of which model.
        task: Of which task.
        target: Loss that a search had to reach, nats; ``None`` where no search was made.
        parts: What it is made of: units, or edges.
        kept: How many.
        of: Of how many.
        size: Its size in words.
        graph: The reading of it as a graph; ``None`` where it was not read.
        losses: By definition.
        tried: Loss against size.
    """

    subject: str
    task: str
    target: float | None
    parts: str
    kept: int
    of: int
    size: str
    graph: Arrays | None = None
    losses: tuple[DefinedLoss, ...] = ()
    tried: tuple[Search, ...] = ()


def views(audit: CircuitAudit, case: Case) -> Iterator[CircuitView]:
    """Of every subject with a circuit that was read."""
    for subject in case.plan.subjects:
        try:
            read = CircuitRead(case.reading(audit.effects(case, subject)))
            tried = _searched(audit, case, subject)
        except NoAnswer:
            continue
        yield CircuitView(
            subject=subject.name, task=case.plan.task.name, parts=audit.parts, tried=tuple(tried),
            target=float(tried[0].found["target"]) if tried else None,
            kept=int(read.read[audit.parts]), of=int(read.read[f"all_{audit.parts}"]), size=read.size,
            losses=tuple(_losses(read, audit.settings.ablation, grouped=case.groups is not None)),
            graph=next((answer(case, trial) for trial in graphs(audit, case, subject)), None),
        )  # fmt: skip


def section(view: CircuitView) -> Section:
    """The graph of a circuit, loss against its size beside nulls, its loss by every definition."""
    name = f"{view.subject}, {view.task}"
    target = "" if view.target is None else f"target {view.target:.3g} nats, "
    blocks: list[Block] = [] if view.graph is None else _graph(view, view.graph)
    blocks.append(_frontier(view))
    if view.tried:
        found = tuple(
            (one.name, "null" if one.null else "task", f"{one.size:,}" if one.size else "none", one.lowest)
            for one in view.tried
        )  # fmt: skip
        heads = ("In", "Kind", f"{view.parts.capitalize()} at the target", "Lowest loss")
        blocks.append(Table(title="Found by the same search", heads=heads, rows=found))
    if view.losses:
        title = (
            "Loss by every definition, with nulls: mean cross-entropy of the two answers on held-out pairs, nats, with "
            "its 95 % interval over pairs (over draws, for weights)"
        )
        rows = tuple((one.name, one.loss, _nulls(one)) for one in view.losses)
        blocks.append(Table(title=title, heads=("What is ablated", "Loss", "Null"), rows=rows))
    return Section(
        title=f"Circuit of {name}", says=f"{view.subject}: {view.size}; {target}a guess has {CHANCE:.3f}.",
        subject=view.subject, brief=f"{view.kept:,} of {view.of:,} {view.parts}", blocks=tuple(blocks),
    )  # fmt: skip


# ---- losses ---------------------------------------------------------------------------------------------------


def _losses(read: CircuitRead, by: str, *, grouped: bool) -> Iterator[DefinedLoss]:
    """One for each definition, and for each disturbance of weights; nulls beside them where they were measured.

    Which pairs are held out is not known, so that there are no intervals where they come in groups.
    """
    parts = "unit" if read.weights else "edge"
    rows: list[tuple[str, NDArray[Any], str, NDArray[Any]]] = []
    for name in filter(read.asked, _WORDS):
        what, _, how = name.partition(" ")
        random = _RANDOM[what] if how == by else ""
        words = _WORDS[name].replace("every unit", f"every {parts}")
        null = f"random circuits of as many {parts}s" if random else ""
        rows.append((words, read.loss(name), null, read.read[random] if random else np.zeros(0)))
    pairs = len(rows)
    for kind, (own, others) in zip(KINDS, read.read["disturbed"], strict=True) if read.weights else ():
        rows.append((f"whole net, {kind} of the circuit's weights", own, "as many other weights", others))
    for at, (name, losses, null, beside) in enumerate(rows):
        loss = mean_effect(np.asarray(losses, dtype=np.float64)[None, :], margin=0.0, name="loss", unit="nats")
        loss = msgspec.structs.replace(loss, low=None, high=None) if grouped and at < pairs else loss
        yield DefinedLoss(name, loss, null, tuple(float(one) for one in beside))


def _nulls(one: DefinedLoss) -> str:
    """What the loss is where nothing is known."""
    if not one.beside:
        return ""
    low, middle, high = (fixed(of(one.beside), 3) for of in (min, median, max))
    return f"{one.null}: median {middle}, {low} to {high} ({len(one.beside)} draws)"


# ---- loss against size ----------------------------------------------------------------------------------------


def _searched(audit: CircuitAudit, case: Case, subject: SubjectRecord) -> list[Search]:
    """One search for the task, and every search in a null that has run."""
    (_, penalty), plan, tries = audit.chosen(case, subject), case.plan, range(audit.settings.tries)
    # Of a circuit that is given, only searches by other seeds have run.
    own = (audit.search(plan, subject, penalty=penalty, seed=at) for at in range(audit.settings.again + 1))
    found = [Search(plan.task.name, False, read) for trial in own if (read := answer(case, trial)) is not None][:1]
    for null, words in NULLS.items():
        trials = (audit.search(plan, subject, penalty=penalty, null=null, seed=at) for at in tries)
        found += [Search(words, True, read) for trial in trials if (read := answer(case, trial)) is not None]
    return found


def answer(case: Case, trial: Trial) -> Arrays | None:
    """What was read; ``None`` where nothing was."""
    try:
        return case.reading(trial)
    except NoAnswer:
        return None


def _frontier(view: CircuitView) -> Chart:
    """Loss against size of every search, the circuit on held-out pairs, random ones of its size."""
    drawn, top = view.tried[:_MOST_LINES], _HIGHEST * CHANCE
    sizes = [size for one in drawn for size in one.found["sizes"].tolist()]
    series: list[Series] = []
    for one in drawn:
        size, loss = (one.found[key].astype(np.float64) for key in ("sizes", "losses"))
        if (known := loss <= top).any():
            x, y = tuple(size[known].tolist()), tuple(loss[known].tolist())
            series.append(Series(name=one.name, look="null" if one.null else "points", x=x, y=y))
    own = next((one for one in view.losses if one.beside), None)
    if own is not None and own.loss.value is not None and view.kept:
        # What lies outside the axis would push the whole drawing aside.
        least, place = min(own.beside), (float(view.kept),)
        if least <= top:
            most = (min(max(own.beside), top),)
            series.append(Series(name=own.null, x=place, y=(least,), low=(least,), high=most, look="range"))
        if own.loss.value <= top:
            series.append(Series(name="the circuit", x=place, y=(own.loss.value,), look="mark"))
    said: list[str] = []
    for one in drawn:
        reached = f"reaches the target with {one.size:,} {view.parts}" if one.size else "does not reach the target"
        said.append(f"{one.name}: {reached}, lowest loss {one.lowest}")
    target = "" if view.target is None else f", the target is {view.target:.3g}"
    return Chart(
        title="Loss against size", series=tuple(series),
        alt=f"Loss against {view.parts} kept; a guess has {fixed(CHANCE, 3)}{target}. {'; '.join(said)}.",
        x=Axis(title=f"{view.parts} kept", log=True, low=1.0,
               high=float(max(2, view.kept, *sizes))),
        y=Axis(title="loss (nats)", low=0.0, high=top),
        levels=((CHANCE, "a guess"), *(() if view.target is None else ((view.target, "target"),))),
        note="Lines: on pairs searched; dashed: where no circuit should be found. Diamond: the circuit on held-out "
        "pairs; gray bar: random circuits of its size. Losses far above a guess are not drawn.",
    )  # fmt: skip


# ---- graph ----------------------------------------------------------------------------------------------------


def _graph(view: CircuitView, read: Arrays) -> list[Block]:
    """The circuit as a graph, and the numbers of its units by site.

    Of a large circuit those units alone are drawn that a drawn weight leads to or from.
    """
    sites, edges = bytes(read["names"].tolist()).decode().split("\n"), view.parts == "edges"
    held = read["held"].reshape(read["gap"].size, len(read["unit"]))
    ends = {int(end) for key in ("source", "target") for end in read[key]}
    drawn = [at for at in range(len(read["unit"])) if len(read["unit"]) <= _MOST_UNITS or at in ends]
    place = {at: number for number, at in enumerate(drawn)}
    owner, unit = ([int(one) for one in read[key]] for key in ("site", "unit"))
    head = " head" if edges else ""
    nodes = tuple(
        Node(row=row, name=name if edges and not name.startswith("attention") else f"{name}{head} {unit[at]}",
             center=float(read["mean"][at]), spread=float(read["spread"][at]), values=tuple(map(float, held[:, at])))
        for at, row, name in ((at, owner[at], sites[owner[at]]) for at in drawn)
    )  # fmt: skip
    links = tuple(
        Link(source=place[int(source)], target=place[int(target)], weight=float(weight))
        for source, target, weight in zip(read["source"], read["target"], read["weight"], strict=True)
    )
    written, readers = ([at for at in drawn if sites[owner[at]].endswith(end)] for end in (".write", ".read"))
    # A channel that a sublayer writes is read by every later one.
    faint = tuple((place[one], place[two]) for one in written for two in readers
                  if unit[one] == unit[two] and owner[two] > owner[one])  # fmt: skip
    hidden = int(read["edges"]) - len(links)
    rest = (
        f" {len(links):,} {'edges' if edges else 'weights'} are drawn, {hidden:,} with smaller scores are not."
        if hidden > 0
        else ""
    )
    graph = Graph(
        title="Components and edges" if edges else "Units and weights", noun="component" if edges else "unit",
        rows=tuple(sites), nodes=nodes, links=links, faint=() if edges else faint, views=tuple(_examples(read)),
        shared=edges, says=_OF_EDGES if edges else _OF_UNITS, key=_KEY_EDGES if edges else _KEY_UNITS,
        note=f"{_NOTE_EDGES}{rest} {_NOTE_SUM}" if edges else f"{_NOTE_UNITS}{rest} {_NOTE_FAINT}",
    )  # fmt: skip
    numbers = [(name, [unit[at] for at in range(len(unit)) if owner[at] == row]) for row, name in enumerate(sites)]
    rows = tuple(
        (
            name,
            ", ".join(map(str, some[:_LISTED])) + (f" and {more:,} more" if (more := len(some) - _LISTED) > 0 else ""),
        )
        for name, some in numbers
        if some
    )
    heads = ("Row", "Heads that an edge touches") if edges else ("Site", "Units that are kept")
    return [
        graph,
        Table(title=f"{'Components' if edges else 'Units'} in numbers", heads=heads, rows=rows, place="folded"),
    ]


def _examples(read: Arrays) -> Iterator[View]:
    """Clean contexts, then corrupted ones; in words where these are known."""
    contexts = read["tokens"].reshape(-1, read["tokens"].shape[-1]).tolist()
    known = bytes(read["text"].tolist()) if "text" in read else b"[]"
    texts = msgspec.json.decode(known, type=list[tuple[str, str]]) or [("", "")] * len(contexts)
    answers, gaps, half = read["answer"].flatten().tolist(), read["gap"].flatten().tolist(), len(contexts) // 2
    for at, (tokens, answer, gap, (text, says)) in enumerate(zip(contexts, answers, gaps, texts, strict=True)):
        said = says or str(answer)
        yield View(
            name=f"{'clean' if at < half else 'corrupted'} {at % half + 1}: {said}",
            says=f"{text or ' '.join(map(str, tokens))} \u2192 {said} (score ahead by {gap:.3f})",
        )


_OF_UNITS: Final = "{value} here; mean {center}, spread {spread}."
_OF_EDGES: Final = "gives {value} of the score difference here."
_KEY_UNITS: Final = "Filled: above its mean. Hollow: below. Larger: farther from it."
_KEY_EDGES: Final = "Filled: helps the answer. Hollow: works against it. Larger: by more."
_NOTE_UNITS: Final = (
    "A row is a site, from the first that is computed (top). A line is a weight: the thicker, the more it carries (the "
    "weight by the spread of what it reads); dashed: negative."
)
_NOTE_FAINT: Final = "Faint lines: a channel of the residual stream that is written and read later. Nothing is ablated."
_NOTE_SUM: Final = "A component has the sum of the scores of its edges that leave it (logits: that arrive)."
_NOTE_EDGES: Final = (
    "A row is a layer's heads or its MLP, from the first that is computed (top). A line is an edge: the thicker, the "
    "larger its score; dashed: negative. Scores are those of EAP-IG on the held-out pairs shown: how much the "
    "difference of the two answers' scores should fall, to first order, where the edge carries what it carries on the "
    "other side of the pair."
)
