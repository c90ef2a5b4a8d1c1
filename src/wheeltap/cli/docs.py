"""``wheeltap docs``."""

from typing import Annotated

from cyclopts import Parameter


def docs(
    *, build: Annotated[bool, Parameter(negative="", help="Build the manual first, with the extra docs.")] = False
) -> int:
    """Opens the manual in a browser, from this machine: no network is used.

    A published wheel has it built. What was installed from a checkout has its text, and --build makes the pages of it.

    Try it:

      wheeltap docs
      pip install "wheeltap[docs]" && wheeltap docs --build
    """
    import subprocess
    import sys
    import webbrowser
    from pathlib import Path

    import platformdirs

    import wheeltap
    from wheeltap.core.errors import UsageError

    package = Path(wheeltap.__file__).parent
    places = (package / "manual/docs", package.parents[1] / "docs")
    text = next((one for one in places if (one / "conf.py").is_file()), None)
    page = package / "manual/README.html"
    if text is not None and not page.is_file():
        page = Path(platformdirs.user_cache_dir("wheeltap")) / f"manual-{wheeltap.__version__}" / "README.html"
    if build and text is not None:
        command = [sys.executable, "-m", "sphinx", "-q", str(text), str(page.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        if done.returncode:
            raise UsageError(
                "The manual cannot be built.", where=str(text), expected="sphinx, myst-parser and furo",
                got=done.stderr.strip()[-300:], do='pip install "wheeltap[docs]"',
            )  # fmt: skip
        page.touch()  # sphinx writes only what has changed
    newest = 0.0 if text is None else max(one.stat().st_mtime for one in text.iterdir())
    if not page.is_file() or page.stat().st_mtime < newest:
        raise UsageError(
            "The manual is not built, or its pages are older than its text.", where=str(page),
            expected="pages of the text as it is", got=f"the text alone: {text}",
            do='pip install "wheeltap[docs]" && wheeltap docs --build',
        )  # fmt: skip
    print(f"The manual: {page}")
    webbrowser.open(page.as_uri())
    return 0
