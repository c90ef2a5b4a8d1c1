"""Answers of a model to a task of lm-eval, written as lm-eval logs them, with columns of ours beside its own."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import nn

from wheeltap.sources.lm_eval import opened
from wheeltap.sources.lm_eval_asked import asked_for
from wheeltap.sources.lm_eval_graded import answered
from wheeltap.sources.lm_eval_harness import Harness, library, quiet
from wheeltap.sources.text import Tokenizer

COLUMN: Final = "wheeltap"
"""Where our columns are in a row: ``{NAME: number}``."""


def rows(
    data: Path, model: nn.Module, tokenizer: Tokenizer | None, columns: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Lines of ``samples_TASK.jsonl``: one for each document under each filter.

    Args:
        data: The task, ``lm_eval:NAME``.
        model: Undisturbed.
        tokenizer: Whose tokens it reads.
        columns: ``{NAME: [document]}``: what else is known of each document.

    Raises:
        WheeltapError: See ``lm_eval.opened``.
    """
    harness, answering, _ = opened(asked_for(data), model, tokenizer)
    several = list(harness.rows)
    with quiet():
        harness.answer(several, answered(harness, answering, model, several), harness.filters)
        for name in (harness.filter, *(other for other in harness.filters if other != harness.filter)):
            for row in several:
                own = {key: values[row] for key, values in columns.items()}
                yield _line(harness, row, name, own)


def _line(harness: Harness, row: int, name: str, own: Mapping[str, float]) -> str:
    """One row, as lm-eval writes it.

    Source: lm_eval 0.4.13, ``evaluator.py`` (evaluate) and ``loggers/evaluation_tracker.py`` (save_results_samples).
    """
    utils = library("lm_eval.utils")
    task, doc, requests = harness.task, harness.documents[row], harness.requests[row]
    metrics: dict[str, Any] = harness.results(row, name)
    target, known = task.doc_to_target(doc), utils.handle_non_serializable
    hashed = json.dumps(requests[0].doc, indent=2, default=known, ensure_ascii=False)
    arguments = {f"gen_args_{i}": {f"arg_{j}": one for j, one in enumerate(request.args)}
                 for i, request in enumerate(requests)}  # fmt: skip
    line = {
        "doc_id": requests[0].doc_id, "doc": doc, "target": str(target), "arguments": arguments,
        "resps": utils.sanitize_list([request.resps for request in requests]),
        "filtered_resps": utils.sanitize_list([request.filtered_resps[name] for request in requests]),
        "filter": name, "metrics": list(metrics), "doc_hash": utils.hash_string(hashed),
        "prompt_hash": utils.hash_string(requests[0].arguments[0]), "target_hash": utils.hash_string(str(target)),
        **metrics, COLUMN: dict(own),
    }  # fmt: skip
    return json.dumps(line, default=known, ensure_ascii=False)
