"""What is known of single raters: how each differs from the others, and how well each follows them."""

from typing import Final

import msgspec
import numpy as np

from wheeltap.audits.claims import Tested
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray
from wheeltap.suites.lens.audits.disagreement_panel import Believed, Panel, in_words
from wheeltap.suites.lens.stats.disagreement import top
from wheeltap.suites.lens.stats.raters import FEWEST, Ballots, Offset, offsets

RATERS: Final = "Raters"
LEFT_OUT: Final = "One person left out"
_SHOWN: Final = 5

_EQUAL: Final = 0.8
"""Share of the people that those of unequal numbers of votes must count as, for nothing to be said of it."""

_ENOUGH: Final = 5.0
"""People below which they are said to be few."""

_WIDE: Final = " They are few, so that intervals are wide, and may be wider than 95 % need."


def raters(panel: Panel) -> list[Tested]:
    """How every rater differs from the others on the same items; nothing where raters are not known."""
    known = panel.ballots
    if known is None:
        return []
    if known.raters < FEWEST:
        why = "One person gave all the votes, so nothing is known of other people."
        return [Tested(test=None, status="not_applicable", title=RATERS, found=why)]
    if panel.groups is not None:
        said = (
            f"{known.raters} people gave {len(known.item):,} votes; intervals are over people and groups of "
            f"items.{_few(known)} How single people differ is not said of items in groups."
        )
        return [Tested(test=None, status="measured", title=RATERS, found=said, brief=said), left_out(panel, known)]
    found = offsets(known, ordinal=panel.ordinal)
    odd = sorted((one for one in found if one.sure), key=lambda one: -one.size)
    few, more = sum(one.gap is None for one in found), len(odd) - _SHOWN
    beside = tuple(_named(one, panel) for one in odd[:_SHOWN])
    listed = "; ".join(f"{one.name.partition(':')[0]} {one}" for one in beside)
    said = (
        f"{known.raters} people gave {len(known.item):,} votes; intervals are over people and items.{_few(known)} "
        f"{len(odd)} of them differ{'s' if len(odd) == 1 else ''} from the others on the same items (95 %, all of them "
        "at once)"
        f"{': ' if odd else ''}{listed}{f'; and {more} more' if more > 0 else ''}."
    )
    if few:
        said += f" Of {few} with fewer than {FEWEST} votes nothing is said."
    return [
        Tested(test=None, status="measured", title=RATERS, found=said, brief=said, beside=beside),
        left_out(panel, known),
    ]


def _few(known: Ballots) -> str:
    """What few people, or people who vote on very different numbers of items, mean for intervals; empty of many."""
    alike = known.count_as
    unequal = f" They vote so unequally that they count as about {alike:.1f}." if alike < _EQUAL * known.raters else ""
    two = " Two people do not say how often others would agree." if known.raters == FEWEST else ""
    return f"{unequal}{_WIDE if alike < _ENOUGH else ''}{two}"


def left_out(panel: Panel, known: Ballots) -> Tested:
    """How often one person chooses as another one does, who is left out of the count."""
    own = [known.agreed[known.rater == one].mean() for one in np.unique(known.rater)]
    whole = _over(panel, known, known.agreed, known.alike, ("agreement with a person left out", "share of people"))
    said = (
        f"A person left out chooses as the others on the same item do with probability {in_words(whole)}; of single "
        f"people it is {min(own):.3f} to {max(own):.3f}. "
        "No model can be expected to follow people better than the best of them."
    )
    return Tested(test=None, status="measured", title=LEFT_OUT, found=said, brief=said, beside=(whole,))


def by_choice(read: Believed) -> list[Tested]:
    """How well a model's label follows people, beside each person who is left out; nothing where they are unknown."""
    known = read.panel.ballots
    if known is None or known.raters < FEWEST:
        return []
    chosen = top(read.p)
    followed = known.followed(chosen)
    more = followed - known.agreed
    better = [float(more[known.rater == one].mean()) > 0.0 for one in np.unique(known.rater)]
    gap = _over(
        read.panel,
        known,
        more,
        followed - known.alike,
        ("follows people more than one of them", "difference of shares"),
    )
    said = (
        f"{read.name} follows the others more than the person left out does by {in_words(gap)}; it does so against "
        f"{sum(better)} of {known.raters} people."
    )
    return [Tested(test=None, status="measured", title=LEFT_OUT, found=said, brief=said, beside=(gap,))]


def _over(panel: Panel, known: Ballots, given: FloatArray, without: FloatArray, name: tuple[str, str]) -> Estimate:
    """Of a mean over ballots within items, and then over items, by its name and unit."""
    people = panel.votes.sum(1)
    values = np.bincount(known.item, weights=given, minlength=len(people)) / people
    return panel.mean(values, *name, table=lambda _: known.crossed(values, without))


def _named(one: Offset, panel: Panel) -> Estimate:
    assert one.gap is not None, "a rater who differs has votes"
    who = panel.raters[one.rater] if one.rater < len(panel.raters) else f"rater {one.rater + 1}"
    what = "" if one.label is None else f" chooses {panel.labels[one.label] if panel.labels else one.label}"
    return msgspec.structs.replace(one.gap, name=f"{who}{what}: {one.gap.name}")
