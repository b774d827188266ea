"""The page tells what the tables hold, and needs nothing but itself."""

import base64
import io
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segpipe.core.regions import to_regions
from segpipe.errors import ModelError, NotFound, SegpipeError
from segpipe.report import build
from segpipe.report.overlays import grey
from segpipe.storage.filesystem import filesystem
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import CHANGES, RUNS
from tests.report.conftest import NOTE
from tests.report.small_warehouse import BRATS, COHORT, MODEL_ID, RULE, Case, Results, generate, write_results
from tests.report.test_overlays import filled


class Tree(HTMLParser):
    """Checks that tags nest, and keeps every tag with its attributes and every piece of text."""

    VOID = frozenset({"meta", "input", "img", "br", "link"})

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.tags if name in (attrs.get("class") or "").split()]


def read(output: str) -> str:
    return Path(output).read_text("utf-8")


@pytest.fixture(scope="session")
def text(page: Path) -> str:
    return page.read_text("utf-8")


def test_page_is_well_formed_and_small(page: Path, text: str) -> None:
    Tree(text)
    assert page.stat().st_size < 1_000_000


def test_page_asks_no_network(text: str) -> None:
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    sources = [value for _, attrs in Tree(text).tags for name, value in attrs.items() if name in ("src", "href")]
    assert sources
    assert all(source is not None and source.startswith("data:image/png;base64,") for source in sources)


def test_page_says_what_it_is(text: str) -> None:
    assert NOTE in text
    assert text.count("Not a medical device.") == 2
    assert MODEL_ID in text
    assert COHORT in text


def test_page_without_note_has_no_banner(results: Results, tmp_path: Path) -> None:
    built = read(build(str(results.warehouse), COHORT, str(results.model), tmp_path / "report.html"))
    assert 'role="note"' not in built


def test_table_has_every_patient_and_region(results: Results, text: str) -> None:
    columns = [re.findall(rf'data-column="{name}">(.*?)</t', text) for name in ("patient", "split", "region")]
    rows = list(zip(*columns, strict=True))
    regions = [region.replace("_", " ") for region in BRATS.regions]
    expected = {(case.subject, case.split, region) for case in results.cases for region in regions}
    assert len(rows) == len(expected)
    assert set(rows) == expected


def test_strips_are_of_test_patients_worst_first(text: str) -> None:
    names = re.findall(r"<h3>(.*?)</h3>", text)
    assert names[0] == "Synthetic_07_013"
    assert set(names) == {"Synthetic_07_000", "Synthetic_07_013", "Synthetic_07_010"}
    dices = [float(value) for value in re.findall(r"whole tumour: Dice <b>([\d.]+)</b>", text)]
    assert len(dices) == 3
    assert dices == sorted(dices)


def test_strip_shows_the_slice_and_the_outlines_of_truth_and_prediction(results: Results, text: str) -> None:
    article = text.split("<h3>Synthetic_07_010</h3>")[1].split("</article>")[0]
    case = next(case for case in results.cases if case.subject == "Synthetic_07_010")
    low, high = contrast_window(case)
    panels = re.findall(r'slice (\d+)">(.*?)</svg>', article, re.DOTALL)
    assert len(panels) >= 3
    for index, panel in ((int(index), panel) for index, panel in panels):
        picture = decoded(panel)
        part = place_of(picture, grey(case.images[0][index], low, high))
        for region in range(3):
            for kind, labels in (("truth", case.truth), ("predicted", case.predicted)):
                paths = re.findall(rf'<path class="{kind} r{region}[^"]*" d="([^"]*)"', panel)
                drawn = filled("".join(paths), picture.shape)
                expected = to_regions(labels[index], BRATS)[..., region].astype(bool)
                np.testing.assert_array_equal(drawn, expected[part])
                assert drawn.sum() == expected.sum()


def contrast_window(case: Case) -> tuple[float, float]:
    """Black and white of the first modality, computed from the voxels themselves."""
    brain = case.images[0][case.images[0] != 0]
    p01, median, p99 = np.percentile(brain, (1, 50, 99))
    return p01, min(brain.max(), p99 + 0.3 * (p99 - median))


def decoded(panel: str) -> np.ndarray:
    """The picture in a panel, (H, W) uint8."""
    data = re.search(r'href="data:image/png;base64,([^"]*)"', panel)
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def place_of(part: np.ndarray, whole: np.ndarray) -> tuple[slice, slice]:
    """The only place where `part` stands in `whole`."""
    same = (np.lib.stride_tricks.sliding_window_view(whole, part.shape) == part).all(axis=(2, 3))
    assert same.sum() == 1
    row, column = np.argwhere(same)[0]
    return slice(row, row + part.shape[0]), slice(column, column + part.shape[1])


def test_pictures_have_the_true_proportions(results: Results, text: str) -> None:
    row_mm, column_mm = results.cases[0].spacing_mm[1:]
    boxes = re.findall(
        r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" role="img".*?<image [^>]* width="(\d+)" height="(\d+)"', text, re.DOTALL
    )
    assert boxes
    for width_mm, height_mm, width, height in boxes:
        assert float(width_mm) / int(width) == pytest.approx(column_mm, abs=1e-2)
        assert float(height_mm) / int(height) == pytest.approx(row_mm, abs=1e-2)


def test_learning_curve_has_loss_and_dice_per_region(text: str) -> None:
    titles = "Loss|Validation Dice while training"
    figures = re.findall(rf"<figcaption>({titles})</figcaption>(.*?)</figure>", text, re.DOTALL)
    lines = {title: re.findall(r'<polyline [^>]*points="([^"]*)"', figure) for title, figure in figures}
    assert {title: [len(line.split()) for line in found] for title, found in lines.items()} == {
        "Loss": [12],
        "Validation Dice while training": [6, 6, 6],
    }


def test_model_id_stands_for_a_model_whose_directory_is_elsewhere(results: Results, tmp_path: Path) -> None:
    built = read(build(str(results.warehouse), COHORT, MODEL_ID, tmp_path / "report.html"))
    assert "<polyline" not in built
    assert "Synthetic_07_010" in built


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    case = replace(generate(7, 10, (14, 40, 36)), subject=name, split=RULE.of(name))
    hostile = write_results(tmp_path, [case])
    built = read(build(str(hostile.warehouse), COHORT, str(hostile.model), tmp_path / "report.html"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in built
    assert built.count("<script>") == 1


@pytest.mark.parametrize("convention", [None, "binary"])
def test_scan_without_comparable_truth_has_predicted_outlines_only(tmp_path: Path, convention: str | None) -> None:
    case = replace(generate(7, 10, (14, 40, 36)), label_convention=convention)
    other = write_results(tmp_path, [case])
    built = read(build(str(other.warehouse), COHORT, str(other.model), tmp_path / "report.html"))
    assert '<path class="predicted' in built
    assert '<path class="truth' not in built


def test_sessions_are_told_apart(tmp_path: Path) -> None:
    cases = [generate(7, 10, (14, 40, 36), session) for session in ("2019", "2020")]
    both = write_results(tmp_path, cases)
    built = read(build(str(both.warehouse), COHORT, str(both.model), tmp_path / "report.html"))
    assert {"Synthetic_07_010 · 2019", "Synthetic_07_010 · 2020"} <= set(re.findall(r"<h3>(.*?)</h3>", built))
    assert "Change between visits" not in built


def test_change_between_visits_is_told_in_numbers(tmp_path: Path) -> None:
    both = write_results(tmp_path, [generate(7, 10, (14, 40, 36), session) for session in ("2019", "2020")])
    numbers = {"volume_ml": 12.5, "previous_volume_ml": 20.0, "baseline_volume_ml": 20.0, "days_since_previous": 91.2}
    numbers |= {"days_since_baseline": 91.2, "product_mm2": 300.0, "baseline_product_mm2": 480.0}
    numbers |= {
        "nadir_product_mm2": 0.0,
        "change_from_baseline": -0.375,
        "change_from_nadir": None,
        "brains_dice": 0.98,
    }
    numbers |= {"decrease_threshold": -0.5, "increase_threshold": 0.25}
    case = both.cases[1]
    row = {"scan_id": case.scan_id, "cohort": COHORT, "subject": case.subject, "session": "2020", "split": case.split}
    row |= {"model_id": MODEL_ID, "region": "tumour_core", "run_id": "r", "fingerprint": "f", "lesions": []}
    row |= {name: "2019" for name in ("previous_session", "baseline_session", "nadir_session")} | numbers
    row |= {"flags": ["metric:T2"], "new_lesions": 1, "gone_lesions": 0, "grown_lesions": 2, "shrunk_lesions": 0}
    table = pa.Table.from_pylist([row], CHANGES.schema)
    pq.write_table(table, both.warehouse / "changes" / "part-1.parquet")
    built = read(build(str(both.warehouse), COHORT, str(both.model), tmp_path / "report.html"))
    (found,) = re.findall(r"<tr><th scope=\"row\">Synthetic_07_010 · 2020</th><td>2019, 91 days</td>(.*?)</tr>", built)
    cells = re.sub(r"<span class=.none.*?</span>", "–", found)
    assert re.findall(r">([^<>]+)</td>", cells) == [
        *("tumour core", "12.50", "20.00", "300", "-38", "–", "1, 0, 2, 0", "metric:T2")
    ]
    assert "threshold -50" in built
    assert "threshold +25" in built


def test_number_of_strips_is_bounded_and_said(results: Results, tmp_path: Path) -> None:
    built = read(build(str(results.warehouse), COHORT, str(results.model), tmp_path / "report.html", strips=1))
    assert re.findall(r"<h3>(.*?)</h3>", built) == ["Synthetic_07_013"]
    assert "2 more scans are in the table only" in built


def test_nightly_runs_of_a_year_do_not_fill_the_page(tmp_path: Path) -> None:
    results = write_results(tmp_path, [generate(0, 0, (8, 24, 20))])
    warehouse = Store(str(results.warehouse))
    runs = warehouse.table("runs").to_table()
    warehouse.append(RUNS, pa.concat_tables([runs.filter(pc.equal(runs["job"], "ingest"))] * 40), "nights")
    built = read(build(str(results.warehouse), COHORT, MODEL_ID, tmp_path / "report.html"))
    assert "The last 30 runs; the table <code>runs</code> holds 13 more." in built
    made = built.partition("How it was made")[2]
    assert made.count("<tr><th") == 1 + 30


@pytest.mark.parametrize("ingested", [0, 1], ids=["none ingested", "one ingested"])
def test_scans_that_only_an_archive_held_are_told_without_pictures(tmp_path: Path, ingested: int) -> None:
    cases = [generate(7, number, (14, 40, 36)) for number in (0, 10)]
    both = write_results(tmp_path, cases)
    whole = read(build(str(both.warehouse), COHORT, str(both.model), tmp_path / "report.html"))
    left = [case.scan_id for case in cases[:ingested]]
    for table in ("scans", "slices"):
        path = both.warehouse / table / "part-0.parquet"
        rows = pq.read_table(path)
        path.unlink()
        if left:
            pq.write_table(rows.filter(pc.is_in(rows["scan_id"], pa.array(left))), path)
    built = read(build(str(both.warehouse), COHORT, str(both.model), tmp_path / "report.html"))
    Tree(built)
    told = "2 scans were segmented" if not left else "1 scan was segmented"
    assert f"{told} straight from the archive: the slices are not in the tables" in built
    assert re.findall(r"<h3>(.*?)</h3>", built) == [case.subject for case in cases[:ingested]]
    assert re.findall(r'data-column="patient">.*?</tr>', built) == re.findall(r'data-column="patient">.*?</tr>', whole)


def test_model_that_segmented_nothing_is_refused_with_those_that_did(results: Results, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=f"and no model directory has this name: name one that has: {MODEL_ID}"):
        build(str(results.warehouse), COHORT, "another", tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_folder_that_is_no_model_is_refused(results: Results, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match=r"bundle\.json"):
        build(str(results.warehouse), COHORT, str(tmp_path / "model"), tmp_path / "report.html")


def test_report_can_be_written_to_a_url(results: Results) -> None:
    url = build(str(results.warehouse), COHORT, str(results.model), "memory://new/report.html")
    fs, path = filesystem(url)
    assert fs.cat_file(path).decode("utf-8").startswith("<!DOCTYPE html>")
    assert [name.rpartition("/")[2] for name in fs.ls("/new", detail=False)] == ["report.html"]


def test_unwritable_output_leaves_nothing_behind(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SegpipeError, match="cannot be written"):
        build(str(results.warehouse), COHORT, str(results.model), tmp_path / "file" / "report.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SegpipeError, match="cannot be written"):
        build(str(results.warehouse), COHORT, str(results.model), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_script_runs_in_a_browser(browser: list[str], page: Path) -> None:
    done = subprocess.run([*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "18 of 18 rows" in done.stdout
    assert "<button>Dice</button>" in done.stdout


def test_outlines_are_seen_in_a_browser(browser: list[str], page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "seen.png"
    command = [*browser, f"--screenshot={picture}", "--window-size=1280,3600", page.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    seen = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    for name, colour in (("truth", (0x5E, 0xC4, 0xFF)), ("prediction", (0xFF, 0xA6, 0x00))):
        near = np.abs(seen - colour).max(axis=2) < 24
        assert near.sum() > 300, name


def test_page_tells_what_became_of_dicom_series(text: str) -> None:
    rows = re.findall(r'<th scope="row">([^<]+)</th><td class="remarks">([^<]*)</td><td class="number">(\d+)<', text)
    assert rows == [
        ("selected", "T1", "2"),
        ("conflict", "words say T2, times say T1", "1"),
        ("excluded", "diffusion", "1"),
    ]
