"""The notebooks run from top to bottom in a kernel, and show what they promise.

Their warehouse holds generated scans and, where there are any, two real ones: four kernels for both.
"""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from segpipe.analysis.notebooks import cells, run
from tests.report.small_warehouse import COHORT, Results, generate, write_results
from tests.report.test_solids import real_case

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").iterdir())
REAL = Path(os.environ.get("SEGPIPE_REAL_DATA", ROOT / ".." / "shared" / "data")) / "brats2021"
WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Four subjects, one of them scanned twice, real ones, and a second model with half of each Dice."""
    cases = [generate(7, number, (10, 24, 20)) for number in (0, 10, 13)]
    cases += [generate(7, 1, (10, 24, 20), session) for session in ("2019", "2020")]
    cases += [real_case(folder) for folder in (sorted(REAL.iterdir())[:2] if REAL.is_dir() else ())]
    made = write_results(tmp_path_factory.mktemp("notebooks"), cases)
    for name in ("segmentations", "predictions"):
        rows = pq.read_table(made.warehouse / name / "part-0.parquet")
        model_id = pa.array(["m-second"] * len(rows))
        other = rows.set_column(rows.schema.get_field_index("model_id"), rows.schema.field("model_id"), model_id)
        if name == "segmentations":
            worse = pc.multiply(other["dice"], 0.5)
            other = other.set_column(other.schema.get_field_index("dice"), other.schema.field("dice"), worse)
        pq.write_table(other, made.warehouse / name / "part-1.parquet")
    return made


@pytest.fixture(scope="module")
def outputs(results: Results, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each notebook shows on the small warehouse, run by a kernel."""
    folder = tmp_path_factory.mktemp("outputs")
    return {path.stem: shown(run_on(results, path, folder)) for path in NOTEBOOKS}


def run_on(results: Results, path: Path, folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPIPE_WAREHOUSE", str(results.warehouse))
        patch.setenv("SEGPIPE_MODEL", str(results.model))
        patch.setenv("HOME", str(folder))
        for name in ("SEGPIPE_COHORT", "SEGPIPE_SCAN", "HADOOP_CONF_DIR"):
            patch.delenv(name, raising=False)
        if path.stem == "04_viewer":
            patch.setenv("SEGPIPE_SCAN", results.cases[-1].scan_id)
        run(path, folder / f"{path.stem}.ipynb")
    return folder / f"{path.stem}.ipynb"


def shown(notebook: Path) -> list[dict[str, Any]]:
    """All outputs of a stored notebook, by MIME type; printed text as text/plain."""
    content = json.loads(notebook.read_text("utf-8"))
    every = [output for cell in content["cells"] for output in cell.get("outputs", [])]
    return [output.get("data") or {"text/plain": output.get("text", "")} for output in every]


def text(outputs: list[dict[str, Any]]) -> str:
    return "\n".join("".join(part) for output in outputs for mime, part in output.items() if mime.startswith("text/"))


def pictures(outputs: list[dict[str, Any]]) -> int:
    return sum("image/png" in output for output in outputs)


def test_notebooks_are_text_without_outputs() -> None:
    assert [path.name for path in NOTEBOOKS] == ["01_cohort.py", "02_training.py", "03_results.py", "04_viewer.py"]
    for path in NOTEBOOKS:
        kinds = [kind for kind, _ in cells(path.read_text("utf-8"))]
        assert kinds[0] == "markdown"
        assert kinds.count("code") >= 5


@pytest.mark.long
def test_cohort_shows_splits_kinds_quarantine_and_a_scan(outputs: dict[str, list[dict[str, Any]]]) -> None:
    found = text(outputs["01_cohort"])
    for word in (
        COHORT,
        "flair, t1, t1ce, t2",
        "10 × 24 × 20",
        "SPL",
        "truncated",
        "cut short",
        "median",
        "diffusion",
        "hash of d",
    ):
        assert word in found
    assert "diffusion" in found
    assert "hash of d" in found
    assert pictures(outputs["01_cohort"]) == 2


@pytest.mark.long
def test_training_shows_curves_patients_and_worst_slices(outputs: dict[str, list[dict[str, Any]]]) -> None:
    found = text(outputs["02_training"])
    for word in ("dice_whole_tumour", "Synthetic_07_013", "missed", "invented", "empty_prediction"):
        assert word in found
    assert pictures(outputs["02_training"]) == 2


@pytest.mark.long
def test_results_show_change_flags_and_two_models_by_two_engines(outputs: dict[str, list[dict[str, Any]]]) -> None:
    found = text(outputs["03_results"])
    for word in ("change_ml", "2020", "empty_prediction", "m-second"):
        assert word in found
    compared = [table for table in map(text, ([one] for one in outputs["03_results"])) if "dice_other" in table]
    assert len(compared) == 2
    assert compared[0] == compared[1]  # DuckDB and Spark say the same


@pytest.mark.long
def test_viewer_shows_a_widget_and_a_picture(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert sum(WIDGET in output for output in outputs["04_viewer"]) == 1
    assert pictures(outputs["04_viewer"]) == 1
    assert "uint8" in text(outputs["04_viewer"])


@pytest.mark.long
@pytest.mark.real
@pytest.mark.parametrize(
    ("notebook", "said"), [("01_cohort", "155 × 240 × 240"), ("02_training", "BraTS2021"), ("04_viewer", "BraTS2021")]
)
def test_real_scans_are_among_what_is_shown(
    notebook: str, said: str, real_data: Path, outputs: dict[str, list[dict[str, Any]]]
) -> None:
    assert said in text(outputs[notebook])
