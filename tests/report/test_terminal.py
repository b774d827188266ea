"""What a terminal shows of results."""

import io
import webbrowser
from pathlib import Path

import pytest

from segpipe.report.terminal import open_report


class Terminal(io.StringIO):
    """Where a person sits."""

    def isatty(self) -> bool:
        return True


def test_the_report_is_shown_where_it_stands_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_report(str(tmp_path / "report.html"))
    assert not open_report("hdfs://cluster/demo/report.html")
    assert opened == [(tmp_path / "report.html").as_uri()]
