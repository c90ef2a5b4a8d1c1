"""The benchmark lens: what a score leaves out, from recorded answers and without a model. ``wt.lens.read``.

    report = wt.lens.read("base.jsonl", "rl.jsonl")
    report = wt.lens.read("answers.jsonl", votes="votes.jsonl")

In reading order: ``recorded`` (the shapes of files) and ``runs`` (files as a plan and outcomes), ``audits`` (WT501 to
WT504) with ``stats`` (pass@k, disagreement, exchangeable orders), ``audits.sections`` (what is shown);
for models at hand ``annotations`` and ``sources`` (items), ``specs`` and ``readings`` (sampled answers, votes, order of
items); ``recipes``, ``nets`` and ``studies`` (nets that are rewarded), ``cli``.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.lens.runs import read

__all__ = ["read"]

__getattr__ = lazy(__name__, {"read": "runs"})
