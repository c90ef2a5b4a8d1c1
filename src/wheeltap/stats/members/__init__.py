"""Statistics over members: nets are the sample, each is one number, and every interval has the true number of them.

A net trained from five seeds is five observations, whatever the number of weights that were swept in each. Each
function here makes a ``MemberTest``: the ``Estimate``, and p-values for any margin on either side, which come from the
distribution of the statistic and not from a fixed interval. Few members do not show that one seed in ten fails:
p-values and power allow for it, intervals are of members such as were made (``unseen``). So a rule is settled like
this::

    test = members.difference(with_sam, without, scale=Scale("share"))       # or paired, auc ...
    test.estimate                                # Estimate: value, low, high, n = true number of members, method, p
    test.above(0.02, "less")                     # p of "the effect is within the margin": found where it is small
    test.below(0.02, "less")                     # p of "the effect is beyond the margin": excluded where it is small
    effect = msgspec.structs.replace(test.estimate, p=test.above(0.02, "less"))
    Hypothesis(finding, test=effect, margin=0.02, evidence=Members(test, "less"))    # Holm corrects both sides
    test.toward("less", margin=0.02)             # the effect less the null value, positive where the rule is right
    test.power(0.02, "less", alpha=alpha)        # Power(found, excluded)
    test.needed(0.02, "less", alpha=alpha)       # members for .8 of both
    test.smallest_detectable(0.02, "less", alpha=alpha)
    dead_because(PlannedTest(statistic="auc", counts=(3, 3), margin=0.1), alpha=0.01)    # why it can never be found

Where nothing can be tested (one member, or numbers that are all the same), there is no interval and every p-value is
``None``; ``method`` says why. Numbers that cannot be used (not finite, not paired, not positive in a ratio) are errors.
"""

from wheeltap.stats.members.adding import added
from wheeltap.stats.members.base import Law, MemberTest
from wheeltap.stats.members.counts import exact
from wheeltap.stats.members.means import mean
from wheeltap.stats.members.over import NumberScale, Single, next_net, over_nets
from wheeltap.stats.members.planning import PlannedTest, dead_because
from wheeltap.stats.members.ranks import association, auc
from wheeltap.stats.members.student import difference, logarithms, one_of, paired, seen_alone

__all__ = [
    "Law",
    "MemberTest",
    "NumberScale",
    "PlannedTest",
    "Single",
    "added",
    "association",
    "auc",
    "dead_because",
    "difference",
    "exact",
    "logarithms",
    "mean",
    "next_net",
    "one_of",
    "over_nets",
    "paired",
    "seen_alone",
]
