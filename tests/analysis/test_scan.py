"""A scan gives back what went in, in its own place."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.compute as pc
import pytest
from matplotlib.figure import Figure

import segpipe
from segpipe.analysis import Warehouse, plots, training
from segpipe.analysis.plots import picture_of
from segpipe.analysis.viewer import niivue, view, widget_can_run
from segpipe.core.regions import CONVENTIONS
from segpipe.errors import NotFound, TableError, UsageError
from segpipe.settings import IngestSettings
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import PREDICTIONS
from tests.analysis.test_view import text_of
from tests.report.small_warehouse import MODEL_ID, Results


def test_arrays_are_those_of_the_scan(results: Results, opened: Warehouse) -> None:
    case = next(case for case in results.cases if case.subject == "Synthetic_07_010")
    scan = opened.scan(case.scan_id)
    assert scan.shape == case.truth.shape
    assert scan.modalities == tuple(case.modalities)
    np.testing.assert_array_equal(scan.images(), np.stack(case.images, axis=-1).astype(np.float32))
    np.testing.assert_array_equal(scan.image("FLAIR"), scan.image("flair"))
    np.testing.assert_array_equal(scan.mask(), case.truth)
    np.testing.assert_array_equal(scan.prediction(), case.predicted)
    np.testing.assert_array_equal(scan.prediction(MODEL_ID), case.predicted)
    assert scan.prediction_convention() is CONVENTIONS["brats"]
    assert scan.models() == [MODEL_ID]
    assert list(scan.results()["region"]) == ["whole_tumour", "tumour_core", "enhancing_tumour"]


def test_nifti_places_voxels_where_the_arrays_have_them(opened: Warehouse) -> None:
    scan = opened.scan("Synthetic_07_010")
    for what in ("T1", "mask", "prediction"):
        image = scan.nifti(what)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        array = {"T1": scan.image, "mask": lambda _: scan.mask(), "prediction": lambda _: scan.prediction()}[what](what)
        here = np.argwhere(array > 0)[7]
        x, y, z = (scan.affine @ (*here, 1))[:3]
        there = np.linalg.inv(image.affine) @ (x, y, z, 1)
        assert image.dataobj[tuple(there[:3].round().astype(int))] == array[tuple(here)]
        np.testing.assert_allclose(there[:3], there[:3].round(), atol=1e-6)


def test_a_subject_names_its_only_scan_and_several_are_told(opened: Warehouse) -> None:
    assert opened.scan("Synthetic_07_013").scan_id == "generated:Synthetic_07_013:1"
    with pytest.raises(UsageError, match=r"2 scans: take one of generated:Synthetic_07_001:2019, .*:2020"):
        opened.scan("Synthetic_07_001")
    assert opened.scan("generated:Synthetic_07_001:2019").row["session"] == "2019"
    with pytest.raises(NotFound, match="take one of `scans`"):
        opened.scan("nobody")


def test_what_a_scan_lacks_is_told_with_what_it_has(opened: Warehouse) -> None:
    scan = opened.scan("Synthetic_07_010")
    with pytest.raises(NotFound, match="no modality PD: take one of"):
        scan.image("PD")
    with pytest.raises(NotFound, match=f"take one of {MODEL_ID}"):
        scan.prediction("another")


def test_ingested_files_come_back_as_nifti(glioma_archive: Path, tmp_path: Path, spark: object) -> None:
    from segpipe.pipelines.ingest import ingest
    from segpipe.pipelines.progress import watch

    settings = IngestSettings(source=str(glioma_archive), warehouse=str(tmp_path / "w"), cohort="c")
    with record_run(Store(settings.warehouse), "ingest", settings) as record:
        ingest(spark, settings, record, lambda *args: watch(spark, *args))  # type: ignore[arg-type]
    scan = segpipe.open_warehouse(settings.warehouse).scan("Synthetic_00_002")
    for role, what in (("t1ce", "T1ce"), ("seg", "mask")):
        source = nib.load(glioma_archive / f"Synthetic_00_002/Synthetic_00_002_{role}.nii.gz")
        image = scan.nifti(what)
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(source.dataobj))
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)
    with pytest.raises(NotFound, match="No model has segmented"):
        scan.prediction()


def test_reprs(opened: Warehouse) -> None:
    scan = opened.scan("Synthetic_07_013")
    assert repr(scan) == "<scan generated:Synthetic_07_013:1: flair, t1, t1ce, t2, 10 x 24 x 20, test>"
    page = text_of(scan._repr_html_())
    assert "10 × 24 × 20" in page
    assert ".results()" in page


@pytest.mark.parametrize("subject", ["Synthetic_07_010", "Synthetic_07_013"], ids=["predicted", "empty"])
def test_pictures_show_truth_and_prediction(subject: str, opened: Warehouse) -> None:
    scan = opened.scan(subject)
    assert not widget_can_run()
    for figure in (scan.plot(slices=3), view(scan)):
        assert isinstance(figure, Figure)
        figure.canvas.draw()
        seen = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]
        blue, orange = (near(seen, colour) for colour in (plots.TRUTH, plots.PREDICTED))
        assert blue > 20
        assert (orange > 20) == (subject == "Synthetic_07_010")


def near(pixels: np.ndarray, colour: str) -> int:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=2) < 60).sum())


def test_widget_holds_image_truth_and_prediction(opened: Warehouse) -> None:
    scan = opened.scan("Synthetic_07_010")
    volumes = {volume.name: volume for volume in niivue(scan).volumes}
    assert list(volumes) == ["flair.nii.gz", "truth.nii.gz", "prediction.nii.gz"]
    image = nib.Nifti1Image.from_bytes(__import__("gzip").decompress(volumes["truth.nii.gz"].data))
    assert int(np.asarray(image.dataobj).sum()) == int((scan.mask() != 0).sum())


def test_a_head_that_is_not_stripped_has_no_surface(opened: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = opened.scan("Synthetic_07_010")
    stripped = picture_of(scan)
    assert niivue(scan).opts.multiplanar_show_render.name == "ALWAYS"
    head = np.random.default_rng(0).normal(100, 5, scan.shape)  # air is noise, as it is before anybody strips a head
    monkeypatch.setattr(type(scan), "image", lambda self, name: head)
    raw = picture_of(scan)
    assert len(stripped.axes[3].collections) == len(raw.axes[3].collections) + 1
    assert "not stripped" in raw.get_suptitle()
    assert "not stripped" not in stripped.get_suptitle()
    assert niivue(scan).opts.multiplanar_show_render.name == "NEVER"


def test_history_has_a_row_per_epoch(results: Results) -> None:
    history = training.history_of(str(results.model))
    assert len(history) == 12
    assert training.model_id_of(str(results.model)) == MODEL_ID
    assert history["dice_whole_tumour"].notna().sum() == 6
    assert len(plots.curves(history).axes) == 2
    with pytest.raises(NotFound, match="history"):
        training.history_of(str(results.warehouse))


def test_a_prediction_that_lacks_a_slice_is_refused(results: Results, tmp_path: Path) -> None:
    shutil.copytree(results.warehouse, tmp_path / "w")
    store = Store(str(tmp_path / "w"))
    rows = store.table("predictions").to_table()
    shutil.rmtree(tmp_path / "w" / "predictions")
    (part,) = store.parts("segmentations")  # whose name makes that of predictions count
    store.append(PREDICTIONS, rows.filter(pc.field("slice_index") != 3), part)
    scan = segpipe.open_warehouse(store.url).scan("Synthetic_07_013")
    with pytest.raises(TableError, match="has 9 slices, 9 of them distinct, instead of 10"):
        scan.prediction()
