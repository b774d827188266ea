"""Every package that segpipe imports is one that pip brings, or is named with the extra that brings it."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from segpipe.extras import _BEYOND_PIP, EXTRA_OF, missing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OURS = {"segpipe", "jobs"}


def imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


@cache
def brought_by(requirement: str) -> frozenset[str]:
    """The distributions that come with one, itself included, as they are installed here."""
    wanted, found = [requirement], set[str]()
    while wanted:
        one = Requirement(wanted.pop())
        name = canonicalize_name(one.name)
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            wanted += metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
    return frozenset(found)


def distributions(requirements: list[str]) -> set[str]:
    return {name for requirement in requirements for name in brought_by(requirement)}


@pytest.fixture(scope="module")
def shipped_by() -> dict[str, set[str]]:
    """The distributions of each module that can be imported here."""
    return {name: set(map(canonicalize_name, found)) for name, found in metadata.packages_distributions().items()}


def test_what_is_imported_comes_with_the_wheel_or_has_its_extra(shipped_by: dict[str, set[str]]) -> None:
    paths = [path for room in sorted(OURS) for path in (ROOT / room).rglob("*.py")]
    names = {name for path in paths for name in imported(path.read_text("utf-8"))}
    foreign = names - OURS - set(sys.stdlib_module_names)
    base = distributions(PROJECT["dependencies"]) | {"tomli"}
    unnamed = {name for name in foreign if not shipped_by.get(name, {name}) & base}
    assert {"nibabel", "onnx", "tensorflow"} <= unnamed
    assert unnamed <= set(EXTRA_OF) | set(_BEYOND_PIP)


@pytest.mark.parametrize("module", EXTRA_OF)
def test_an_extra_brings_what_it_is_named_for(module: str, shipped_by: dict[str, set[str]]) -> None:
    assert shipped_by[module] & distributions(PROJECT["optional-dependencies"][EXTRA_OF[module]])


def test_a_package_of_the_lock_alone_is_named_with_set_up() -> None:
    said = str(missing(ModuleNotFoundError("No module named 'bigdl'", name="bigdl.orca")))
    assert re.search(r"bigdl is not installed: .*`make setup`", said)
