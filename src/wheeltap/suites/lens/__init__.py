"""The benchmark lens: what a score leaves out, from recorded answers and without a model. ``wt.lens.read``.

    report = wt.lens.read("base.jsonl", "rl.jsonl")
    report = wt.lens.read("answers.jsonl", votes="votes.jsonl")

In reading order: ``recorded`` (the shapes of files) and ``runs`` (files as a plan and outcomes), ``audits`` (WT501 to
WT505) with ``stats`` (pass@k, disagreement, raters, exchangeable orders), ``audits.sections`` (what is shown);
for models at hand ``annotations`` and ``sources`` (items), ``specs`` and ``readings`` (sampled answers, votes, order of
items); ``recipes``, ``nets`` and ``studies`` (nets that are rewarded), ``cli``.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.lens.inspect_rows import inspect_scorer
    from wheeltap.suites.lens.runs import read

__all__ = ["inspect_scorer", "read"]

__getattr__ = lazy(__name__, {"inspect_scorer": "inspect_rows", "read": "runs"})
