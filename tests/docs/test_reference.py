"""docs/reference says what the code declares, no less and no more."""

import importlib.util
import re
from pathlib import Path

import pytest

from segpipe.errors import Reason
from segpipe.launch.project import job_names
from segpipe.settings import flag_of
from segpipe.warehouse.tables import TABLES

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
assert _spec is not None
assert _spec.loader is not None
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.name)
def test_page_is_what_the_code_declares(path: Path) -> None:
    assert path.read_text("utf-8") == reference.pages()[path], "run `make reference`"


def test_every_column_of_every_table_is_described() -> None:
    page = reference.tables_page()
    for table in TABLES.values():
        section = page.split(f"## {table.name}\n")[1].split("\n## ")[0]
        lines = [line for line in section.splitlines() if line.startswith("| `")]
        described = {line.split("`")[1]: line.split(" | ")[-1].removesuffix(" |") for line in lines}
        assert set(table.schema.names) <= set(described)
        assert all(described.values()), table.name


def test_every_job_and_option_is_described() -> None:
    page = reference.jobs_page()
    for job in job_names():
        section = page.split(f"## {job}\n")[1].split("\n## ")[0]
        for setting in reference.fields(reference.settings_of(job)):
            assert f"| `{flag_of(setting)}`" in section
            assert setting.metadata["help"]


def test_every_reason_of_the_quarantine_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "archives.md").read_text("utf-8")
    section = page.split("## What is rejected, and why")[1]
    assert {str(reason) for reason in Reason} <= set(re.findall(r"`(\w+)`", section))


def test_every_variable_that_the_code_reads_is_described() -> None:
    assert reference.variables_in_code() <= set(reference.ENVIRONMENT) | reference.INTERNAL
