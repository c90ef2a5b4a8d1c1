"""The manual for a browser: ``pip install ".[docs]"``, then ``sphinx-build -W docs manual``; it starts at README."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sphinx.application import Sphinx

import wheeltap

DOCS: Final = Path(__file__).parent
SOURCE: Final = Path(wheeltap.__file__).parent

project, author, release = "wheeltap", "the wheeltap authors", wheeltap.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_copy_source = False
root_doc, html_theme, html_title = "README", "furo", f"wheeltap {release}"
myst_heading_anchors, myst_enable_extensions = 4, ["attrs_inline"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
suppress_warnings = ["config.cache"]
autodoc_typehints, autodoc_member_order = "none", "bysource"
napoleon_use_ivar = True


def contents(text: str) -> Iterator[str]:
    """The pages that a page of links names under each heading, as hidden tables of contents."""
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        caption, names = part.splitlines()[0], dict.fromkeys(re.findall(r"\]\(([\w/-]+\.(?:md|ipynb))\)", part))
        if names:
            yield "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *names, "```"])


def notebook(text: str) -> Iterator[str]:
    """The cells of a notebook and what they gave when it was written, as Markdown: nothing is executed."""
    for cell in json.loads(text)["cells"]:
        said = "".join(cell["source"])
        yield said if cell["cell_type"] == "markdown" else f"~~~~python\n{said}\n~~~~"
        texts = [part for one in cell.get("outputs", ()) for part in one.get("text", ()) if "\r" not in part]
        if "".join(texts).strip():
            yield f"~~~~text\n{''.join(texts)}\n~~~~"
        pages = ("".join(one.get("data", {}).get("text/html", ())) for one in cell.get("outputs", ()))
        yield from (f"~~~~{{raw}} html\n{page}\n~~~~" for page in pages if page)


def literal(node: ast.expr | None) -> str:
    """Text of an error message in the source; values known only at run time are shown as an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return ""


def messages() -> Iterator[str]:
    """Every error message that says what to do, by the part of wheeltap that raises it, as Markdown."""
    parts: dict[str, dict[str, str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        part = path.relative_to(SOURCE).as_posix().removeprefix("suites/").split("/")[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args:
                problem = literal(node.args[0])
                fix = next((literal(keyword.value) for keyword in node.keywords if keyword.arg == "do"), "")
                if problem and fix:
                    parts.setdefault(part, {})[problem] = fix
    for part, fixes in sorted(parts.items()):
        yield f"\n### {part}\n"
        yield from (f"- **{_escaped(problem)}** {_escaped(fix)}" for problem, fix in sorted(fixes.items()))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|$])", r"\\\1", " ".join(text.split()))


def _complete(app: Sphinx, name: str, source: list[str]) -> None:
    if app.env.doc2path(name).suffix == ".ipynb":
        source[0] = "\n\n".join(notebook(source[0]))
    source[0] = re.sub(r'<a id="([\w-]+)"></a>', r"[]{#\1}", source[0]).replace(
        "](../CONTRIBUTING.md)", "](contributing.md)"
    )
    if name == root_doc:
        source[0] += "\n".join(contents(source[0]))
    if name == "troubleshooting":
        source[0] += "\n".join(messages()) + "\n"


def _examples(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Indented lines of a docstring are code, as they are meant in Google's style."""
    for at in reversed(range(1, len(lines))):
        if lines[at].startswith("    ") and not lines[at - 1] and not lines[at].startswith(("    :", "    *", "    -")):
            before = next((one for one in reversed(lines[:at]) if one), "")
            if not before.startswith((" ", ":", ".. ")):
                lines.insert(at, "")
                lines.insert(at, "::")


def setup(app: Sphinx) -> None:
    """Puts in what is not written by hand."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _examples)
