"""Claims: sentences of the literature with graded sources and a verdict, tested again by studies. ``wt.claims``.

    ledger = wt.claims.read()                      # ours; or a file or folder of your own
    wt.claims.faults(ledger)                       # what is wrong with it
    record = wt.claims.retested(ledger, ["C1"])    # runs the studies that re-test it

In reading order: ``ledger`` (what a claim is, and its files), ``ledger/`` (the nine claims), ``lint`` (what can be
wrong with one), ``studies`` and ``nets`` (retests that no other suite has), ``retest`` and ``record`` (running
them), ``sections`` (the page), ``cli``.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.claims.ledger import Claim, Ledger, read
    from wheeltap.suites.claims.lint import faults
    from wheeltap.suites.claims.retest import RetestRun, retested

__all__ = ["Claim", "Ledger", "RetestRun", "faults", "read", "retested"]

__getattr__ = lazy(
    __name__,
    {
        "Claim": "ledger",
        "Ledger": "ledger",
        "RetestRun": "retest",
        "faults": "lint",
        "read": "ledger",
        "retested": "retest",
    },
)
