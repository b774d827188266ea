"""Writes docs/reference from what the code declares: `make reference`. A test compares the pages with the code.

Tables come from their schemas, jobs from their settings. What is said of environment variables stands here; the test
asks for each variable that the code reads.
"""

import inspect
import re
import sys
import typing
from dataclasses import Field, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402

import segpipe.settings  # noqa: E402
from segpipe.analysis import Scan, TableView, Warehouse  # noqa: E402
from segpipe.launch.project import job_names  # noqa: E402
from segpipe.settings import bounds_of, default_of, flag_of, plain_type  # noqa: E402
from segpipe.warehouse.tables import TABLES  # noqa: E402

FOLDER = ROOT / "docs" / "reference"
_MADE = "<!-- Made by `make reference` from the code: change it there. -->"

ENVIRONMENT = {
    "HADOOP_CONF_DIR": "folder of a cluster's core-site.xml, hdfs-site.xml and yarn-site.xml, and of hive-site.xml",
    "JAVA_HOME": "Java 8, 11 or 17 to run Spark with; otherwise the one on the path, then the embedded one",
    "XDG_CACHE_HOME": "where the zip of segpipe's code is kept that travels to a cluster; ~/.cache when not set",
    "SEGPIPE_CONF": "file with the site's defaults, instead of conf/segpipe.toml",
    "SEGPIPE_PYTHON": "Python to use instead of .venv, with segpipe's packages",
    "SEGPIPE_PROFILE": "name of the conf file that a session in plain Python starts from: local, standalone or yarn",
    "SEGPIPE_SUBJECT_KEY": "secret of at least 16 bytes to hash names of patients with; keep it, another is refused",
    "SEGPIPE_SUBJECT_KEY_FILE": "file or URL that holds that secret; goes before SEGPIPE_SUBJECT_KEY",
    "SEGPIPE_SPARK_SECRET_FILE": "file with the secret of a standalone cluster, see docs/security.md",
    "SPARK_LOCAL_IP": "where Spark's web page listens, if there is one; loopback on local masters when not set",
    "SEGPIPE_UMASK": "umask of what jobs write, in octal: 027 for owner and group; that of the shell when not set",
    "SEGPIPE_STAGING": "folder on HDFS for what travels to the nodes once; .segpipe in the user's home when not set",
    "SEGPIPE_REAL_DATA": "folder of real scans for the tests that read them",
    "SEGPIPE_WAREHOUSE": "warehouse that the notebooks look at; demo/tables when not set",
    "SEGPIPE_COHORT": "cohort that the notebooks look at; the first when not set",
    "SEGPIPE_MODEL": "model directory that notebook 02 looks at; demo/model when not set",
    "SEGPIPE_SCAN": "scan that notebook 04 shows; the worst of the test split when not set",
}
# Told from one process of segpipe to the next; nobody sets these by hand.
INTERNAL = {
    "SEGPIPE_CHECK_ONLY",
    "SEGPIPE_COMMAND",
    "SEGPIPE_MASTER",
    "SEGPIPE_OUTCOME",
    "SEGPIPE_PID_FILE",
    "SEGPIPE_STREAMS",
    "SEGPIPE_SUBMIT_OPTIONS",
}


def tables_page() -> str:
    """Every table and column, the fields of nested columns included."""
    parts = [
        "# Tables",
        _MADE,
        "A table is a folder of Parquet files below the warehouse. All arrays of a scan have the index order (slice,"
        " row, column); `affine` maps such an index to RAS+ millimetres. In Python:"
        " `segpipe.open_warehouse(path).scans`, and so on.",
        "Tables that are written together have files of one name: `slices` and `scans`, `predictions` and"
        " `segmentations`. A row counts once its file is in the second of them, and no longer once a file is"
        " there that `_merges` names in its place: segpipe's readers see to that, and [what others"
        " see](../decisions/0003-commit-protocol.md) is a file or two more for a moment. Folders whose names"
        " begin with `_` are no tables: `_staging` holds what is being written, `_replaced` what was replaced"
        " within the last day, `_locks`, `_keys` and `_merges` a few small files.",
    ]
    for table in TABLES.values():
        parts += [
            f"## {table.name}",
            f"A row stands for {table.row}.",
            _table(("column", "type", "null", "meaning"), _rows(table.schema)),
        ]
    return "\n\n".join(parts) + "\n"


def _rows(schema: pa.Schema) -> list[tuple[str, ...]]:
    rows = []
    for field in schema:
        rows.append((f"`{field.name}`", _type(field.type), "yes" if field.nullable else "", _doc(field)))
        for inner in _members(field.type):
            rows.append((f"`{field.name}[].{inner.name}`", _type(inner.type), "", _doc(inner)))
    return rows


def _members(kind: pa.DataType) -> list[pa.Field]:
    if not (pa.types.is_list(kind) and pa.types.is_struct(kind.value_type)):
        return []
    return [kind.value_type.field(place) for place in range(kind.value_type.num_fields)]


def _type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_type(kind.key_type)} to {_type(kind.item_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _doc(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"doc", b"").decode())


def jobs_page() -> str:
    """Every job with its options."""
    parts = [
        "# Jobs",
        _MADE,
        "`./spark-submit.sh [options of spark-submit] JOB [options]`. Every option is also a key of the job's section"
        " in `conf/segpipe.toml`, with underscores (`--part-mb` is `part_mb`); flags win over that file. All jobs take"
        " `--verbose` (the stack trace of an error) and `--help`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done"
        " but inputs were quarantined under `--strict`, 130 interrupted, 143 terminated, 137 killed.",
    ]
    for job in job_names():
        settings = settings_of(job)
        parts += [f"## {job}", (settings.__doc__ or "").strip()]
        rows = [_option(one, typing.get_type_hints(settings)[one.name]) for one in fields(settings)]
        if rows:
            parts.append(_table(("option", "value", "default", "meaning"), rows))
    return "\n\n".join(parts) + "\n"


def settings_of(job: str) -> type[Any]:
    """The settings dataclass of a job: in segpipe.settings, or in the job itself."""
    name = f"{job.capitalize()}Settings"
    found: Any = getattr(segpipe.settings, name, None) or getattr(__import__(f"jobs.{job}", fromlist=[name]), name)
    assert is_dataclass(found)
    return typing.cast(type[Any], found)


def _option(setting: "Field[Any]", kind: Any) -> tuple[str, ...]:
    rules = setting.metadata
    kind = plain_type(kind)
    value = {bool: "switch", int: "whole number", float: "number", str: "text"}[kind]
    if rules["choices"]:
        value = ", ".join(f"`{choice}`" for choice in rules["choices"])
    elif kind is not bool and (bounds := bounds_of(setting)):
        value += f", {bounds}"
    default = f"`{default_of(setting)}`" if default_of(setting) else ""
    if rules["required"]:
        default = f"required, not with `--{rules['unless']}`" if rules["unless"] else "required"
    flag = f"`{flag_of(setting)}`"
    if kind is bool and setting.default is not False:
        flag += f", `--no-{flag_of(setting)[2:]}`"
    return flag, value, default, rules["help"]


def environment_page() -> str:
    """Every environment variable that is meant to be set."""
    rows = [(f"`{name}`", meaning) for name, meaning in ENVIRONMENT.items()]
    return "\n\n".join(["# Environment", _MADE, _table(("variable", "meaning"), rows)]) + "\n"


def python_page() -> str:
    """What a notebook or script calls, from its docstrings."""
    parts = [
        "# Python",
        _MADE,
        "`pip install segpipe` is enough for all of this but pictures, NIfTI images and Spark, whose packages come with"
        " the extras `notebook`, `ingest` and `spark`. What is missing is named with its extra. On a scan, a property"
        " tells what its row holds; a method reads, or draws.",
        "## segpipe",
        *_described("open_warehouse", segpipe.open_warehouse, "###"),
    ]
    for kind in (Warehouse, TableView, Scan):
        parts += [f"## {kind.__name__}", _text(kind)]
        for name, member in vars(kind).items():
            if not name.startswith("_") and (callable(member) or isinstance(member, property | cached_property)):
                parts += _described(name, member, "###")
    parts += ["## Errors", "All stand in `segpipe` and are `SegpipeError`s; each has a `problem` and a `remedy`."]
    errors = [getattr(segpipe, name) for name in sorted(segpipe.__all__) if name != "open_warehouse"]
    parts.append(_table(("error", "raised for"), [(f"`{kind.__name__}`", _first_line(kind)) for kind in errors]))
    return "\n\n".join(parts) + "\n"


def _described(name: str, member: Any, level: str) -> list[str]:
    """Heading and docstring of a function, method or property."""
    if isinstance(member, property | cached_property):
        function = member.fget if isinstance(member, property) else member.func
        return [f"{level} {name}", f"Property: `{_returned(function)}`", _text(member)]
    parameters = [one for one in inspect.signature(member).parameters.values() if one.name != "self"]
    shown = str(inspect.Signature(parameters)).replace("'", "")
    return [f"{level} {name}", f"`{name}{shown} -> {_returned(member)}`", _text(member)]


def _returned(function: Any) -> str:
    return str(function.__annotations__.get("return", "Any")).replace("'", "")


def _text(member: Any) -> str:
    """The docstring as Markdown: examples as code."""
    blocks = inspect.cleandoc(member.__doc__ or "").replace("  # doctest: +SKIP", "").split("\n\n")
    return "\n\n".join(_block(block) for block in blocks)


def _block(text: str) -> str:
    if not text.startswith(">>>"):
        return text
    lines = [line.removeprefix(">>> ") for line in text.splitlines() if not line.startswith("... # doctest")]
    return "\n".join(f"    {line}" for line in lines)


def _first_line(kind: Any) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]


def variables_in_code() -> set[str]:
    """The variables of segpipe's own that the code reads."""
    sources = [
        *ROOT.glob("segpipe/**/*.py"),
        *ROOT.glob("jobs/*.py"),
        *ROOT.glob("notebooks/*.py"),
        ROOT / "spark-submit.sh",
    ]
    return {name for path in sources for name in re.findall(r"\bSEGPIPE_[A-Z_]+\b", path.read_text("utf-8"))}


def pages() -> dict[Path, str]:
    """The pages and what should be in them."""
    made = {"python": python_page, "tables": tables_page, "jobs": jobs_page, "environment": environment_page}
    return {FOLDER / f"{name}.md": page() for name, page in made.items()}


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
