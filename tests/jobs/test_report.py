"""The report as a job: a page, a line that says where, and a row of `runs`."""

from pathlib import Path

import pytest

from jobs.report import check, run
from segpipe.cli import Context
from segpipe.errors import NotFound
from segpipe.settings import ReportSettings
from segpipe.warehouse.store import Store
from tests.report.small_warehouse import COHORT, generate, write_results


def test_report_writes_the_page_and_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = write_results(tmp_path, [generate(7, 10, (10, 24, 20))])
    output = tmp_path / "pages" / "r.html"
    settings = ReportSettings(str(made.warehouse), COHORT, str(made.model), str(output), "Generated.", surfaces=1)
    assert run(settings, Context("report")) == 0
    page = output.read_text("utf-8")
    assert "Generated." in page
    assert 'class="solid"' in page
    assert f"report: {output}" in capsys.readouterr().out
    runs = Store(str(made.warehouse)).table("runs").to_table(["job", "outcome"]).to_pylist()
    assert {"job": "report", "outcome": "done"} in runs


def test_missing_warehouse_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        check(ReportSettings(str(tmp_path / "none"), "c", "m"))
