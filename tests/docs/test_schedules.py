"""The schedules on the page for hospitals parse, and what they start exists with these options."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from pathlib import Path

import segpipe.settings
from segpipe.cli.options import parse
from tests.docs.test_docs import job_and_options

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "hospital.md").read_text("utf-8")
_FIELD = r"(?:\*|[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)(?:/[0-9]+)?"


def check_command(command: str) -> str:
    """Parse a command line of segpipe as its job does; gives the job."""
    words = shlex.split(command)
    assert words[0] == "./spark-submit.sh"
    job, options = job_and_options(words[1:])
    parse(job, getattr(segpipe.settings, f"{job.capitalize()}Settings"), options)
    return job


def test_the_line_of_cron() -> None:
    (line,) = [line.strip() for line in PAGE.splitlines() if re.match(r"    [0-9*]\S* \S+ ", line)]
    assert re.match(rf"(?:{_FIELD} ){{5}}", line)
    assert check_command(line[line.index("./spark-submit.sh") :]) == "ingest"


def test_the_dag_of_airflow() -> None:
    start = PAGE.index("    from datetime import")
    code = textwrap.dedent(PAGE[start : PAGE.index("## Back into the PACS")])
    tree = ast.parse(code)
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names[node.targets[0].id] = node.value.value  # type: ignore[attr-defined]
    commands = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "BashOperator":
            given = {one.arg: one.value for one in node.keywords}
            command = eval(compile(ast.Expression(given["bash_command"]), "dag", "eval"), dict(names))
            commands[given["task_id"].value] = command  # type: ignore[attr-defined]
    assert {name: check_command(command) for name, command in commands.items()} == {
        "ingest": "ingest",
        "segment": "segment",
    }
    (schedule,) = re.findall(r'schedule="([^"]+)"', code)
    assert re.fullmatch(rf"{_FIELD}(?: {_FIELD}){{4}}", schedule)
