"""The files of tests that a change can reach: `python tools/affected.py [COMMIT]` prints them, one a line, for pytest.

A change is what differs from COMMIT (default: the newest commit of origin/main, or else HEAD), new files included.
A test is reached if its file, a module that it imports, or one that these import has changed. A changed conftest.py
reaches its folder, and a file that is no module (a template, a conf file, spark-submit.sh) the tests that name it.
Tests of Hadoop are left to `make test`, unless their own files changed. So are slow tests of files that are reached
from afar alone: a last line `--slow-only-in=…` names the files that are near. Near is a file of tests that changed,
that imports what changed itself, or that is of the same room: tests/readers of segpipe/readers.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOTS = ("segpipe", "jobs", "benchmarks", "tools", "tests")


def main(argv: list[str]) -> int:
    """Print the files, or nothing where no test is reached."""
    changed = changes(argv[0] if argv else base())
    graph = {path: imports(path) for path in modules()}
    if found := sorted(reached(changed, graph)):
        print("\n".join(found), f"--slow-only-in={','.join(near(found, changed, graph))}", sep="\n")
    return 0


def base() -> str:
    """The commit to compare with when none is given."""
    found = _git("rev-parse", "--verify", "--quiet", "origin/main", check=False)
    return found[0] if found else "HEAD"


def changes(commit: str) -> set[str]:
    """Paths, relative to the project, of what differs from a commit or is not tracked yet."""
    return {*_git("diff", "--name-only", commit), *_git("ls-files", "--others", "--exclude-standard")}


def modules() -> list[str]:
    """Paths of all Python files of the project."""
    return [path for path in _git("ls-files", "--cached", "--others", "--exclude-standard", "*.py") if _is_ours(path)]


def imports(path: str) -> set[str]:
    """Paths of the project's files that a Python file imports, inside functions as well.

    `segpipe/__init__.py` counts as a file without imports, because it imports others only when it is asked for a name.
    """
    if path == "segpipe/__init__.py":
        return set()
    try:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
    except (FileNotFoundError, SyntaxError):
        return set()
    return {file for name in _imported(tree) for file in _files(name)}


def reached(changed: set[str], graph: dict[str, set[str]]) -> set[str]:
    """The files of tests from which a changed file is reached in `graph` (file -> files that it imports)."""
    users: dict[str, set[str]] = {}
    for path, found in graph.items():
        for one in found:
            users.setdefault(one, set()).add(path)
    dirty = {path for path in changed if path in graph} | set(_naming(changed - graph.keys(), graph))
    new = set(dirty)
    while new:
        new = {user for path in new for user in users.get(path, ())} - dirty
        dirty |= new
    folders = {str(Path(path).parent) for path in dirty if path.endswith("conftest.py") and path in changed}
    tests = {path for path in graph if Path(path).name.startswith("test_")}
    found = tests & dirty | {path for path in tests if any(path.startswith(f"{folder}/") for folder in folders)}
    return {path for path in found if path in changed or not path.startswith("tests/hadoop/")}


def near(tests: Iterable[str], changed: set[str], graph: dict[str, set[str]]) -> list[str]:
    """Those of the reached files of tests in which slow tests run as well."""
    rooms = {Path(path).parts[1] for path in changed if path.startswith("segpipe/")}
    return [path for path in tests if path in changed or graph[path] & changed or Path(path).parts[1] in rooms]


def _naming(others: Iterable[str], graph: dict[str, set[str]]) -> Iterator[str]:
    """The files that name a changed file which is no module."""
    names = {Path(path).name for path in others if not path.endswith((".md", ".lock"))}
    for path in graph:
        text = (ROOT / path).read_text("utf-8") if names and (ROOT / path).is_file() else ""
        if any(name in text for name in names):
            yield path


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[str]:
    """The file of a module, and the `__init__.py` of the packages that it is in."""
    parts = name.split(".")
    if parts[0] not in ROOTS:
        return
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        yield from (file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file())


def _is_ours(path: str) -> bool:
    return path.split("/")[0] in ROOTS


def _git(*words: str, check: bool = True) -> list[str]:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=check)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
