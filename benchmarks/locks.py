"""``python -m benchmarks.locks [options]``: the study ``locks``, with the options of ``wheeltap study``.

Every kind of net at every share of wrong answers: ``--size full``. Tiny transformers: ``--set on=letters --set shares=.5``.
"""

import sys

from benchmarks.studies import locks
from wheeltap import cli

locks.registered()  # also in processes that a run starts, which import this too

if __name__ == "__main__":
    sys.exit(cli.main(["study", "locks", *sys.argv[1:]]))
