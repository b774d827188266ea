"""Modules can be imported in some order: no circle of imports runs at import. What functions import does not count."""

from __future__ import annotations

import ast
import graphlib
import itertools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATHS = [path.relative_to(ROOT) for room in ("segpipe", "jobs") for path in (ROOT / room).rglob("*.py")]
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in PATHS}


def run_at_import(statements: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a module's own level, without those for types alone."""
    for one in statements:
        if isinstance(one, ast.Import | ast.ImportFrom):
            yield one
        elif isinstance(one, ast.If) and "TYPE_CHECKING" not in ast.unparse(one.test):
            yield from run_at_import(one.body + one.orelse)
        elif isinstance(one, ast.Try | ast.With):
            yield from run_at_import(one.body)


def imported(module: str) -> set[str]:
    """The modules of ours that a module needs to be there, with the packages that hold them.

    A package that holds `module` is on its way already, so it counts only if a name of its own is taken from it.
    """
    names: set[str] = set()
    for one in run_at_import(ast.parse((ROOT / MODULES[module]).read_text("utf-8")).body):
        if isinstance(one, ast.Import):
            names.update(alias.name for alias in one.names)
        else:
            inside = [f"{one.module}.{alias.name}" for alias in one.names]
            names.update(name if name in MODULES else str(one.module) for name in inside)
    holders = {holder for name in names for holder in itertools.accumulate(name.split("."), "{}.{}".format)}
    on_their_way = {holder for holder in holders if f"{module}.".startswith(f"{holder}.")}
    return (names | holders - on_their_way) & set(MODULES) - {module}


def test_no_circle_of_imports_runs_at_import() -> None:
    graph = {module: imported(module) for module in MODULES}
    assert len(graph) > 150
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)
