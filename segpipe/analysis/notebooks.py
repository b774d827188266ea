"""Runs notebooks that are stored as text: `python -m segpipe.analysis.notebooks notebooks/*.py`.

A notebook is a Python file in the percent format (`# %%` starts a cell, `# %% [markdown]` one of text), which VS Code,
Spyder and PyCharm open as it is and Jupyter opens with jupytext. Running one gives an .ipynb with all outputs.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_CELL = re.compile(r"(?m)^# %%(.*)\n")
_SECONDS_PER_CELL = 600


def cells(text: str) -> Iterator[tuple[str, str]]:
    """The cells of a percent file: `code` or `markdown`, and the source without the comment signs of text.

    >>> list(cells("# ---\\n# %% [markdown]\\n# # Title\\n#\\n# Text\\n\\n# %%\\n1 + 1\\n"))
    [('markdown', '# Title\\n\\nText'), ('code', '1 + 1')]
    """
    parts = _CELL.split(text)[1:]
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in mark:
            yield "markdown", re.sub(r"(?m)^# ?", "", source).strip()
        else:
            yield "code", source.strip()


def notebook_of(text: str) -> Any:
    """The nbformat notebook of a percent file, without outputs."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    kinds = {"code": new_code_cell, "markdown": new_markdown_cell}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=[kinds[kind](source) for kind, source in cells(text)], metadata=kernel)


def run(source: Path, output: Path, folder: Path | None = None) -> Any:
    """Run a percent file from top to bottom in a fresh kernel of this Python and write `output`, an .ipynb; gives it.

    The kernel works in `folder`, that of the file when None. Raises nbclient's CellExecutionError where a cell fails;
    what came before it is written.
    """
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    notebook = notebook_of(source.read_text("utf-8"))
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable  # whatever kernel of that name is installed elsewhere
    where = {"metadata": {"path": str(folder or source.parent)}}
    client = NotebookClient(notebook, km=manager, timeout=_SECONDS_PER_CELL, resources=where)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        client.execute()
    finally:
        nbformat.write(notebook, output)
    return notebook


def main(argv: Sequence[str] | None = None) -> int:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m segpipe.analysis.notebooks", description="Run notebooks and keep their outputs as .ipynb."
    )
    parser.add_argument("notebooks", nargs="+", type=Path, help="percent files, such as notebooks/01_cohort.py")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("build/notebooks"),
        help="folder for the .ipynb files (default: %(default)s)",
    )
    options = parser.parse_args(argv)
    for source in options.notebooks:
        target = options.output / f"{source.stem}.ipynb"
        run(source, target)
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
