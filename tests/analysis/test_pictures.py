"""The documentation's pictures: small, and of generated scans only."""

from dataclasses import replace
from pathlib import Path

import pytest

import segpipe
from segpipe.analysis.pictures import draw, main
from segpipe.errors import TableError
from tests.report.small_warehouse import RULE, Results, generate, write_results


def test_pictures_are_made_and_small(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--warehouse", str(results.warehouse), "--model", str(results.model), str(tmp_path / "new")]) == 0
    made = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in made] == ["curves.png", "slices.png", "still.png"]
    assert all(5_000 < path.stat().st_size < 300_000 for path in made)
    assert capsys.readouterr().out.count("kB") == 3


def test_real_scans_are_refused(tmp_path: Path) -> None:
    case = replace(generate(7, 10, (10, 24, 20)), subject="BraTS2021_00001", split=RULE.of("BraTS2021_00001"))
    real = write_results(tmp_path, [case])
    with pytest.raises(TableError, match="did not generate"):
        draw(segpipe.open_warehouse(str(real.warehouse)), str(real.model), tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_missing_warehouse_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--warehouse", str(tmp_path / "none"), str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
