"""What is known of single raters: how each differs from the others, and how well each follows them."""

from typing import Final

import msgspec
import numpy as np

from wheeltap.audits.claims import Tested
from wheeltap.audits.disagreement_panel import Believed, Panel
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.disagreement import top
from wheeltap.stats.raters import FEWEST, Ballots, Offset, mean_over, offsets

RATERS: Final = "Raters"
LEFT_OUT: Final = "One person left out"
_SHOWN: Final = 5


def raters(panel: Panel) -> list[Tested]:
    """How every rater differs from the others on the same items; nothing where raters are not known."""
    known = panel.ballots
    if known is None:
        return []
    if known.raters < FEWEST:
        why = "One person gave all the votes, so nothing is known of other people."
        return [Tested(test=None, status="not_applicable", title=RATERS, found=why)]
    found = offsets(known, ordinal=panel.ordinal)
    odd = sorted((one for one in found if one.sure), key=lambda one: -one.size)
    few, more = sum(one.gap is None for one in found), len(odd) - _SHOWN
    beside = tuple(_named(one, panel) for one in odd[:_SHOWN])
    listed = "; ".join(f"{one.name.partition(':')[0]} {one}" for one in beside)
    said = (
        f"{known.raters} people gave {len(known.item):,} votes; intervals are over people and items. "
        f"{len(odd)} of them differ{'s' if len(odd) == 1 else ''} from the others on the same items (95 %, all of them "
        "at once)"
        f"{': ' if odd else ''}{listed}{f'; and {more} more' if more > 0 else ''}."
    )
    if few:
        said += f" Of {few} with fewer than {FEWEST} votes nothing is said."
    return [Tested(test=None, status="measured", title=RATERS, found=said, brief=said, beside=beside), _ceiling(known)]


def _ceiling(known: Ballots) -> Tested:
    """How often one person chooses as another one does, who is left out of the count."""
    own = [known.agreed[known.rater == one].mean() for one in np.unique(known.rater)]
    whole = _over(known, known.agreed, 2.0 * known.agreed, "agreement with a person left out")
    said = (
        f"A person left out chooses as the others on the same item do with probability {whole}; of single people it is "
        f"{min(own):.3f} to {max(own):.3f}. No model can be expected to follow people better than the best of them."
    )
    return Tested(test=None, status="measured", title=LEFT_OUT, found=said, brief=said, beside=(whole,))


def by_choice(read: Believed) -> list[Tested]:
    """How well a model's label follows people, beside each person who is left out; nothing where they are unknown."""
    known = read.panel.ballots
    if known is None or known.raters < FEWEST:
        return []
    chosen = top(read.p)
    more = known.followed(chosen) - known.agreed
    better = [float(more[known.rater == one].mean()) > 0.0 for one in np.unique(known.rater)]
    # As one of the others a rater counts for the model as well, and twice for how people agree.
    gap = _over(
        known, more, chosen[known.item, known.label] - 2.0 * known.agreed, "follows people more than one of them"
    )
    said = (
        f"{read.name} follows the others more than the person left out does by {gap}; it does so against "
        f"{sum(better)} of {known.raters} people."
    )
    return [Tested(test=None, status="measured", title=LEFT_OUT, found=said, brief=said, beside=(gap,))]


def _over(known: Ballots, given: FloatArray, moved: FloatArray, name: str) -> Estimate:
    """Of a mean over ballots within items, and then over items."""
    people = known.votes.sum(1)
    values = np.bincount(known.item, weights=given, minlength=len(people)) / people
    return mean_over(known.crossed(values, moved), name=name, unit="share of people")


def _named(one: Offset, panel: Panel) -> Estimate:
    assert one.gap is not None, "a rater who differs has votes"
    who = panel.raters[one.rater] if one.rater < len(panel.raters) else f"rater {one.rater + 1}"
    what = "" if one.label is None else f" chooses {panel.labels[one.label] if panel.labels else one.label}"
    return msgspec.structs.replace(one.gap, name=f"{who}{what}: {one.gap.name}")
