"""``python -m benchmarks.locks [plan] [options]``: the study ``locks``, with the options of ``wheeltap study``.

Every kind of net at every share of wrong answers: ``--size full``. Tiny transformers: ``--on=letters --shares .5``.
"""

import sys

from benchmarks.studies import locks
from wheeltap import cli

locks.registered()  # also in processes that a run starts, which import this too

if __name__ == "__main__":
    words = sys.argv[1:]
    planned = words[:1] == ["plan"]
    sys.exit(cli.main([*words[:planned], "study", "locks", *words[planned:]]))
