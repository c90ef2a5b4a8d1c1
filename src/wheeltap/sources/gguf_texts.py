"""How texts of a GGUF model are cut before tokens are merged: as llama.cpp cuts them, by ``tokenizer.ggml.pre``.

Transformers knows some of these names and cuts all others as GPT-2's, which gives other tokens.

Source: llama.cpp, ``llm_tokenizer_bpe`` in ``src/llama-vocab.cpp``.
"""

from pathlib import Path
from typing import Any, Final

from wheeltap.core.choices import Tokenizer
from wheeltap.core.errors import FileFormatError
from wheeltap.sources import hf
from wheeltap.sources.hf import HfTokenizer, NoTokenizer

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_ENDINGS: Final = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2: Final = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}"
_LLAMA3: Final = rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}"
_BLOOM: Final = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HAN: Final = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

_CASED: Final = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Letters that have a case, as DeepSeek lists them."""

_ALIKE: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"): (r"\p{N}", _GPT2),
    ("default",): (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ("chatglm-bpe", "glm4", "glm5"): (_LLAMA3,),
    ("stablelm2", "hunyuan", "solar-open", "grok-2"): (_QWEN2,),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    ("bloom", "poro-chat", "gpt3-finnish"): (_BLOOM,),
    ("viking",): (_BLOOM, r"\p{N}"),
    ("deepseek-llm",): (
        "[\r\n]", rf"\s?[{_CASED}]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$",
        _HAN, r"\p{N}+",
    ),
    ("deepseek-coder",): ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, r"\p{N}"),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): (
        r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}  # fmt: skip
"""Expressions by which texts are cut, one after another, into what they match and what lies between."""

_CUTS: Final = {name: cuts for names, cuts in _ALIKE.items() for name in names}

_AS_GPT2: Final = (
    "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0", "mellum",
    "modern-bert", "roberta-bpe", "jina-v1-en", "jina-v2-code", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
)  # fmt: skip


def as_llama_cpp(tokenizer: Any, pre: str, path: Path) -> Tokenizer:
    """The tokenizer that transformers made of a GGUF file of the kind gpt2, which cuts texts as llama.cpp does.

    Args:
        tokenizer: Of transformers; it is changed.
        pre: ``tokenizer.ggml.pre`` of the file.
        path: The file.
    """
    library = hf.library("tokenizers", needed_for=str(path))
    steps, backend = library.pre_tokenizers, tokenizer.backend_tokenizer
    if pre in _CUTS:
        cuts = [steps.Split(library.Regex(one), behavior="isolated") for one in _CUTS[pre]]
        backend.pre_tokenizer = steps.Sequence([*cuts, steps.ByteLevel(add_prefix_space=False, use_regex=False)])
    elif pre not in _AS_GPT2 and isinstance(backend.pre_tokenizer, steps.ByteLevel):
        error = FileFormatError(
            "How this GGUF file cuts texts into tokens is not known.", where=str(path),
            expected=f"tokenizer.ggml.pre of {', '.join((*_CUTS, *_AS_GPT2))}, or one that transformers knows",
            got=pre[:80], do="Give the folder that it was made from (hf:DIR), or write the data as token ids.",
        )  # fmt: skip
        return NoTokenizer(error)
    return HfTokenizer(tokenizer)
