"""``python -m benchmarks.relearning [options]``: the study ``relearning``, with the options of ``wheeltap study``.

Other step sizes: ``--set lr=3e-4``; other ways of unlearning: ``--set how=harsher``; transformers: ``--set world=rules``.
"""

import sys

from benchmarks.studies import relearning
from wheeltap import cli

relearning.registered()  # also in processes that a run starts, which import this too

if __name__ == "__main__":
    sys.exit(cli.main(["study", "relearning", *sys.argv[1:]]))
