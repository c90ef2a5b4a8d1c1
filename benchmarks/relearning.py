"""``python -m benchmarks.relearning [plan] [options]``: the study ``relearning``, with the options of ``wheeltap study``.

Other step sizes: ``--lr 3e-4``; other ways of unlearning: ``--how harsher``; transformers: ``--world rules``.
"""

import sys

from benchmarks.studies import relearning
from wheeltap import cli

relearning.registered()  # also in processes that a run starts, which import this too

if __name__ == "__main__":
    words = sys.argv[1:]
    planned = words[:1] == ["plan"]
    sys.exit(cli.main([*words[:planned], "study", "relearning", *words[planned:]]))
