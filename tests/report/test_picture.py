"""The README's picture: of generated scans only, small, with both outlines in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.errors import TableError
from segpipe.report.picture import PREDICTED, TRUTH, draw, main, rgb
from tests.report.small_warehouse import COHORT, RULE, Results, generate, write_results


def test_picture_is_small_and_holds_both_outlines(results: Results, tmp_path: Path) -> None:
    picture = draw(str(results.warehouse), COHORT, str(results.model), tmp_path / "new" / "result.png")
    assert picture.stat().st_size < 300_000
    seen = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    for colour in (TRUTH, PREDICTED):
        assert (np.abs(seen - rgb(colour)).max(axis=2) < 24).sum() > 200


def test_real_scans_are_refused(tmp_path: Path) -> None:
    case = replace(generate(7, 10, (14, 40, 36)), subject="BraTS2021_00001", split=RULE.of("BraTS2021_00001"))
    real = write_results(tmp_path, [case])
    with pytest.raises(TableError, match="did not generate"):
        draw(str(real.warehouse), COHORT, str(real.model), tmp_path / "result.png")
    assert not (tmp_path / "result.png").exists()


def test_missing_warehouse_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing")
    assert main(["--warehouse", missing, "--model", "m", str(tmp_path / "result.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
