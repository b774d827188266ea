"""How this project starts a Python: one that never looks for code in the current folder, which may be anybody's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from segpipe.launch.project import ROOT


def command(*arguments: str) -> list[str]:
    """The command line of this Python with `arguments`: `-c code`, or `-m module`, and what these are given."""
    return [sys.executable, *(["-P", *arguments] if sys.version_info >= (3, 11) else without_option(*arguments))]


def without_option(kind: str, target: str, *words: str) -> list[str]:
    """What `-P` does, for Python 3.10, which does not know it: the current folder stands first, and is taken away."""
    run = {"-c": f"exec({target!r})", "-m": f"import runpy; runpy.run_module({target!r}, None, '__main__', True)"}
    return ["-c", f"import sys; del sys.path[0]; {run[kind]}", *words]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for `command`: this project is found, the current folder is not, by no child either."""
    path = os.pathsep.join(filter(None, (str(ROOT), absolute_only(os.environ.get("PYTHONPATH", "")))))
    return {**os.environ, **(more or {}), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def absolute_only(search_path: str) -> str:
    """A search path without empty and relative entries, which mean the current folder.

    >>> absolute_only(":/opt/site:.:lib")
    '/opt/site'
    """
    return os.pathsep.join(entry for entry in search_path.split(os.pathsep) if os.path.isabs(entry))
