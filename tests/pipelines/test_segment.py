"""A model over a cohort: what ends up in the tables, once, whatever happens on the way."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from pyspark.sql import SparkSession

from segpipe.core import metrics
from segpipe.core.prediction import Predictor, PredictorFactory, ScanInput, Segmented, SliceBatch
from segpipe.core.regions import CONVENTIONS, to_regions
from segpipe.models.bundle import Bundle
from segpipe.pipelines.attempts import DEADLY
from segpipe.pipelines.progress import Bar
from segpipe.readers.generate import write_brats
from segpipe.readers.naming import KEY_VARIABLE
from segpipe.runtimes.contract import PredictorSpec
from segpipe.runtimes.export import export
from segpipe.warehouse.slices import stream
from tests.pipelines.cohorts import COHORT, Cohort
from tests.readers.hospital import studies, write
from tests.runtimes.models import scan_input, tiny_bundle
from tests.warehouse.earlier import unsealed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(tiny_bundle(str(tmp_path_factory.mktemp("model") / "m")).url)


@pytest.fixture(scope="module")
def ingested(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    write_brats(folder / "archive", subjects=4, seed=0, shape=(8, 32, 32))
    cohort = Cohort(spark, folder / "archive", str(folder / "warehouse"))
    cohort.ingest()
    return cohort


@pytest.fixture(scope="module")
def segmented(ingested: Cohort, model: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The uninterrupted run that others are compared with."""
    cohort = ingested.copy(tmp_path_factory.mktemp("segmented"))
    outcome, _ = cohort.segment(model.url)
    assert len(outcome.segmented) == 4
    return cohort


def by_hand(cohort: Cohort, model: Bundle) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Predicted and true label maps by scan_id, from the same model run in this process."""
    predictor = PredictorSpec(model.url, precision="float32").open(1)
    found = {}
    for part in cohort.warehouse.slice_parts(COHORT):
        for scan in part.scans:
            batches = list(stream(part.path, cohort.warehouse.fs, scan.row_groups))
            channels = [np.concatenate([batch.image[c] for batch in batches]) for c in range(4)]
            order = [("FLAIR", "T1", "T1ce", "T2").index(name) for name in model.modalities]
            chosen = [channels[place] for place in order]
            described = scan_input(channels)
            described = ScanInput(
                described.shape,
                tuple(described.mean[place] for place in order),
                tuple(described.std[place] for place in order),
                (1.0,) * len(order),
                (0.0,) * len(order),
                described.brain_box,
            )
            labels = predictor.segment(described, [(range(len(channels[0])), chosen)]).labels
            found[scan.scan_id] = labels, np.concatenate([batch.mask for batch in batches])
    return found


def masks(cohort: Cohort, model: Bundle) -> dict[str, np.ndarray]:
    """Label maps by scan_id as `predictions` holds them."""
    slices: dict[str, list[np.ndarray]] = {}
    for row in cohort.rows("predictions", "scan_id", "slice_index"):
        if row["model_id"] == model.model_id:
            plane = np.frombuffer(row["mask"], np.uint8).reshape(row["height"], row["width"])
            slices.setdefault(row["scan_id"], []).append(plane)
    return {scan_id: np.stack(planes) for scan_id, planes in slices.items()}


def test_predictions_are_what_the_model_says(segmented: Cohort, model: Bundle) -> None:
    wanted, found = by_hand(segmented, model), masks(segmented, model)
    assert set(found) == set(wanted)
    for scan_id, (labels, _) in wanted.items():
        assert labels.any()
        np.testing.assert_array_equal(found[scan_id], labels)


def test_rows_of_predictions(segmented: Cohort, model: Bundle) -> None:
    rows = segmented.rows("predictions", "scan_id", "slice_index")
    assert [row["slice_index"] for row in rows] == 4 * list(range(8))
    for row in rows:
        plane = np.frombuffer(row["mask"], np.uint8)
        pixels = {one["region"]: one["pixels"] for one in row["region_pixels"]}
        assert pixels == {region: np.isin(plane, members).sum() for region, members in model.regions.items()}
        assert (row["cohort"], row["model_id"], row["label_convention"]) == (COHORT, model.model_id, "brats")


def test_measures_are_those_of_the_masks(segmented: Cohort, model: Bundle) -> None:
    scans = {row["scan_id"]: row for row in segmented.rows("scans", "scan_id")}
    wanted = by_hand(segmented, model)
    rows = segmented.rows("segmentations", "scan_id")
    assert len(rows) == 4 * 3
    for row in rows:
        place = list(model.regions).index(row["region"])
        labels, truth = (to_regions(one, CONVENTIONS["brats"])[..., place] > 0 for one in wanted[row["scan_id"]])
        scan = scans[row["scan_id"]]
        assert row["voxels"] == labels.sum()
        assert row["volume_ml"] == pytest.approx(labels.sum() * np.prod(scan["spacing_mm"]) / 1000)
        assert row["centroid_mm"] == pytest.approx(metrics.centroid_mm(labels, scan["affine"]))
        assert (row["tp"], row["fp"], row["fn"]) == metrics.counts(labels, truth)
        assert row["truth_voxels"] == truth.sum()
        if truth.any() or labels.any():
            assert row["dice"] == pytest.approx(2 * (labels & truth).sum() / (labels.sum() + truth.sum()))
        else:
            assert row["dice"] is None
        assert row["split"] == scan["split"]
        assert row["fingerprint"] == scan["fingerprint"]
        assert 0 < row["mean_probability"] <= row["max_probability"] <= 1


def test_done_work_is_not_done_again(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    before = {path: path.read_bytes() for path in Path(cohort.url).glob("[ps]*/*.parquet")}
    outcome, run = cohort.segment(model.url)
    assert (outcome.segmented, outcome.skipped, outcome.quarantined) == ((), 4, ())
    assert run.counts["slices"] == 0
    assert {path: path.read_bytes() for path in Path(cohort.url).glob("[ps]*/*.parquet")} == before


def test_new_scans_are_added(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    before = cohort.rows("segmentations", "scan_id", "region")
    write_brats(tmp_path / "more", subjects=1, seed=9, shape=(8, 32, 32))
    (added,) = (tmp_path / "more").glob("*_000")
    for file in added.iterdir():
        file.rename(file.with_name(file.name.replace(added.name, "Another_001")))
    added.rename(cohort.archive / "Another_001")
    cohort.ingest()
    outcome, _ = cohort.segment(model.url)
    assert (outcome.segmented, outcome.skipped) == ((f"{COHORT}:Another_001:1",), 4)
    after = cohort.rows("segmentations", "scan_id", "region")
    assert [row for row in after if row["subject"] != "Another_001"] == before
    assert len(after) == len(before) + 3


def test_a_changed_scan_is_segmented_again(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    before = cohort.rows("segmentations", "scan_id", "region")
    one, other = sorted(cohort.archive.iterdir())[:2]
    for modality in ("flair", "t1", "t1ce", "t2", "seg"):
        shutil.copyfile(other / f"{other.name}_{modality}.nii.gz", one / f"{one.name}_{modality}.nii.gz")
    cohort.ingest()
    outcome, _ = cohort.segment(model.url)
    assert outcome.segmented == (f"{COHORT}:{one.name}:1",)
    after = cohort.rows("segmentations", "scan_id", "region")
    assert [row for row in after if row["subject"] != one.name] == [row for row in before if row["subject"] != one.name]
    changed = [row["voxels"] for row in after if row["subject"] == one.name]
    assert changed == [row["voxels"] for row in after if row["subject"] == other.name]
    scan_id = outcome.segmented[0]
    np.testing.assert_array_equal(masks(cohort, model)[scan_id], by_hand(cohort, model)[scan_id][0])


def test_a_second_model_adds_rows(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    before = cohort.rows("predictions", "scan_id", "slice_index")
    second = export(tiny_bundle(str(tmp_path / "m2"), modalities=("T2", "FLAIR")).url)
    outcome, _ = cohort.segment(second.url)
    assert len(outcome.segmented) == 4
    rows = cohort.rows("predictions", "scan_id", "slice_index")
    assert [row for row in rows if row["model_id"] == model.model_id] == before
    found, wanted = masks(cohort, second), by_hand(cohort, second)
    for scan_id, (labels, _) in wanted.items():
        np.testing.assert_array_equal(found[scan_id], labels)


def test_overwriting_replaces_this_models_rows(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    content, names = cohort.content(), cohort.warehouse.parts("predictions")
    outcome, run = cohort.segment(model.url, overwrite=True)
    assert len(outcome.segmented) == 4
    assert cohort.content() == content
    assert len(cohort.warehouse.parts("predictions")) == len(names)
    assert not set(cohort.warehouse.files("predictions")) & set(names)
    assert {row["run_id"] for row in cohort.rows("segmentations", "scan_id")} == {run.run_id}


def test_scans_that_do_not_fit_are_quarantined_once(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    lacking = sorted(cohort.archive.iterdir())[2]
    (lacking / f"{lacking.name}_t2.nii.gz").unlink()
    shutil.rmtree(cohort.url)
    cohort.ingest()
    outcome, first = cohort.segment(model.url)
    assert "quarantine: 1 missing_modality\n" in first.summary()
    assert first.summary().count(f"{lacking.name}:1 lacks T2") == 1
    assert outcome.quarantined == (f"{COHORT}:{lacking.name}:1",)
    assert len(outcome.segmented) == 3
    (row,) = cohort.rows("quarantine", "scan_id")
    assert (row["job"], row["reason"], row["scan_id"]) == ("segment", "missing_modality", outcome.quarantined[0])
    assert "T2" in row["message"]
    again, run = cohort.segment(model.url)
    assert (again.quarantined, again.known_bad, again.skipped) == ((), 1, 3)
    assert "1 of 4 scans are not for this model" in run.summary()
    assert "known bad 1: rejected by earlier runs, and not changed since" in run.summary()
    assert f"{lacking.name}:1 lacks T2" in run.summary()
    assert outcome.rejected == again.rejected == 1
    assert cohort.rows("quarantine", "scan_id") == [row]


def test_another_orientation_does_not_fit(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    from segpipe.models.bundle import load_keras, save_bundle

    turned = save_bundle(replace(model, url=str(tmp_path / "m2"), orientation="PIL", files={}), load_keras(model))
    cohort = segmented.copy(tmp_path)
    outcome, _ = cohort.segment(export(turned.url).url)
    assert (outcome.segmented, len(outcome.quarantined)) == ((), 4)
    assert {row["reason"] for row in cohort.rows("quarantine", "scan_id")} == {"does_not_fit_model"}


def test_a_damaged_slice_stops_only_its_scan(
    ingested: Cohort, segmented: Cohort, model: Bundle, tmp_path: Path
) -> None:
    cohort = ingested.copy(tmp_path)
    part = cohort.warehouse.slice_parts(COHORT)[0]
    damaged = part.scans[0]
    table = pq.read_table(part.path)
    images = table["image"].to_pylist()
    images[table["scan_id"].to_pylist().index(damaged.scan_id) + 4] = b"\0" * 10
    place = table.schema.get_field_index("image")
    table = table.set_column(place, table.schema.field(place), [images])
    groups = pq.ParquetFile(part.path)
    sizes = [groups.metadata.row_group(number).num_rows for number in range(groups.num_row_groups)]
    with pq.ParquetWriter(part.path, unsealed(table.schema)) as writer:
        for number, size in enumerate(sizes):
            writer.write_table(table.slice(sum(sizes[:number]), size))
    outcome, _ = cohort.segment(model.url)
    assert outcome.quarantined == (damaged.scan_id,)
    assert cohort.rows("quarantine", "scan_id")[0]["reason"] == "corrupt"
    wanted = [row for row in segmented.content()["predictions"] if row["scan_id"] != damaged.scan_id]
    assert cohort.content()["predictions"] == wanted


@dataclass
class Dies:
    """A predictor whose process dies on scans of these means, `times` times in all; they leave marks in `seen`."""

    real: PredictorFactory
    seen: Path
    means: tuple[tuple[float, ...], ...]
    times: int

    def open(self, threads: int) -> Predictor:
        return _Dying(self.real.open(threads), self)


@dataclass
class _Dying:
    real: Predictor
    how: Dies

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        deaths = len(list(self.how.seen.iterdir()))
        if scan.mean in self.how.means and deaths < self.how.times:
            (self.how.seen / str(deaths)).touch()
            os._exit(9)
        return self.real.segment(scan, batches)


def mean_of(cohort: Cohort, number: int, model: Bundle) -> tuple[str, tuple[float, ...]]:
    row = cohort.rows("scans", "scan_id")[number]
    by_name = {one["modality"]: one["mean"] for one in row["intensity"]}
    return row["scan_id"], tuple(by_name[name] for name in model.modalities)


def test_a_worker_that_dies_is_replaced(ingested: Cohort, segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = ingested.copy(tmp_path)
    (tmp_path / "seen").mkdir()
    packed = PredictorSpec(model.url, precision="float32").pack()
    means = tuple(mean_of(cohort, number, model)[1] for number in (1, 3))
    outcome, _ = cohort.segment(model.url, predictor=Dies(packed, tmp_path / "seen", means, times=1))
    assert len(list((tmp_path / "seen").iterdir())) == 1
    assert (len(outcome.segmented), outcome.quarantined) == (4, ())
    assert cohort.content() == segmented.content()
    assert not list(Path(cohort.url, "_staging").iterdir())


def test_a_scan_that_kills_workers_is_quarantined(
    ingested: Cohort, segmented: Cohort, model: Bundle, tmp_path: Path
) -> None:
    cohort = ingested.copy(tmp_path)
    (tmp_path / "seen").mkdir()
    packed = PredictorSpec(model.url, precision="float32").pack()
    deadly, mean = mean_of(cohort, 2, model)
    outcome, _ = cohort.segment(model.url, predictor=Dies(packed, tmp_path / "seen", (mean,), times=DEADLY))
    assert outcome.quarantined == (deadly,)
    (row,) = cohort.rows("quarantine", "scan_id")
    assert (row["scan_id"], row["reason"]) == (deadly, "crashed")
    wanted = [row for row in segmented.content()["segmentations"] if row["scan_id"] != deadly]
    assert cohort.content()["segmentations"] == wanted
    again, _ = cohort.segment(model.url)
    assert (again.segmented, again.skipped) == ((deadly,), 3)
    assert cohort.content() == segmented.content()


def test_a_scan_that_breaks_the_network_stops_no_other(ingested: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = ingested.copy(tmp_path)
    bad, mean = mean_of(cohort, 0, model)
    packed = PredictorSpec(model.url, precision="float32").pack()
    outcome, _ = cohort.segment(model.url, predictor=Refuses(packed, mean))
    assert (outcome.quarantined, len(outcome.segmented)) == ((bad,), 3)
    assert "ArithmeticError: not this one" in cohort.rows("quarantine", "scan_id")[0]["message"]


def test_progress_tells_of_scans_and_quarantine(ingested: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = ingested.copy(tmp_path)
    _, mean = mean_of(cohort, 0, model)
    packed = PredictorSpec(model.url, precision="float32").pack()
    bars: list[Bar] = []

    @contextmanager
    def shown(total: int, label: str) -> Iterator[Bar]:
        bars.append(Bar(total, label))
        yield bars[-1]

    cohort.segment(model.url, predictor=Refuses(packed, mean), progress=shown)
    (bar,) = bars
    assert (bar.label, bar.done, bar.total) == ("segment", 4, 4)
    assert re.fullmatch(r"[\d.e+]+ scans/s, 1 quarantined", bar.note)


@dataclass
class Refuses:
    """A predictor that raises on one scan."""

    real: PredictorFactory
    mean: tuple[float, ...]

    def open(self, threads: int) -> Predictor:
        self.predictor = self.real.open(threads)
        return self

    def segment(self, scan: ScanInput, batches: Iterable[SliceBatch]) -> Segmented:
        if scan.mean == self.mean:
            raise ArithmeticError("not this one")
        return self.predictor.segment(scan, batches)


def from_archive(cohort: Cohort, folder: Path) -> Cohort:
    """A cohort whose tables are empty."""
    return Cohort(cohort.spark, cohort.archive, str(folder / "w"))


def test_straight_from_an_archive(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = from_archive(segmented, tmp_path)
    outcome, run = cohort.segment(model.url, source=str(cohort.archive))
    assert len(outcome.segmented) == 4
    assert run.counts["slices"] == 4 * 8
    assert cohort.content() == segmented.content()
    assert not cohort.warehouse.parts("slices")
    assert not cohort.warehouse.parts("scans")
    again, _ = cohort.segment(model.url, source=str(cohort.archive))
    assert (again.segmented, again.skipped) == ((), 4)


def test_tables_and_archive_know_of_each_other(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = segmented.copy(tmp_path)
    before = cohort.content()
    outcome, _ = cohort.segment(model.url, source=str(segmented.archive))
    assert (outcome.segmented, outcome.skipped) == ((), 4)
    outcome, _ = cohort.segment(model.url, source=str(segmented.archive), overwrite=True)
    assert len(outcome.segmented) == 4
    assert cohort.content() == before


def test_bad_scans_of_an_archive_are_quarantined_once(segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    cohort = from_archive(segmented.copy(tmp_path), tmp_path)
    lacking, broken, more = sorted(cohort.archive.iterdir())[:3]
    (more / f"{more.name}_adc.nii.gz").write_bytes(b"")
    (lacking / f"{lacking.name}_t2.nii.gz").unlink()
    (broken / f"{broken.name}_t1.nii.gz").write_bytes(b"no image")
    alone = cohort.archive / "Alone_001"
    alone.mkdir()
    shutil.copyfile(broken / f"{broken.name}_seg.nii.gz", alone / "Alone_001_seg.nii.gz")
    outcome, _ = cohort.segment(model.url, source=str(cohort.archive))
    assert (len(outcome.segmented), len(outcome.quarantined)) == (2, 3)
    rows = cohort.rows("quarantine", "reason")
    assert [row["reason"] for row in rows] == ["empty_file", "missing_modality", "missing_modality", "not_an_image"]
    assert (rows[0]["scan_id"], [Path(path).name for path in rows[0]["paths"]]) == (None, [f"{more.name}_adc.nii.gz"])
    assert [row["scan_id"] for row in rows[1::2]] in (
        [f"{COHORT}:{lacking.name}:1", f"{COHORT}:{broken.name}:1"],
        [None, f"{COHORT}:{broken.name}:1"],
    )
    again, _ = cohort.segment(model.url, source=str(cohort.archive))
    assert (again.quarantined, again.known_bad, again.skipped) == ((), 3, 2)
    assert cohort.rows("quarantine", "reason") == rows


def test_the_next_series_of_an_archive_takes_the_place_of_a_damaged_one(
    spark: SparkSession, model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    study = studies()[0].only("t1 ax", "t2 ax", "t2 cor", "flair", "t1ce ax")
    write(tmp_path / "archive", study)
    axial = [place for place in sorted((tmp_path / "archive").iterdir()) if describes(place, "t2_tse_tra_512")]
    axial[2].write_bytes(axial[2].read_bytes()[:-9])
    cohort = Cohort(spark, tmp_path / "archive", str(tmp_path / "w"))
    how = {"source": str(cohort.archive), "layout": "dicom", "resample_to": "FLAIR"}
    outcome, _ = cohort.segment(model.url, **how)
    assert (outcome.segmented, len(outcome.quarantined)) == ((), 1)
    told = sorted((row["reason"], len(row["paths"])) for row in cohort.rows("quarantine"))
    assert told == [("truncated", 5), ("truncated", 20)]  # the series, and its scan
    outcome, _ = cohort.segment(model.url, **how)
    assert (len(outcome.segmented), outcome.quarantined) == (1, ())
    outcome, _ = cohort.segment(model.url, **how)
    assert (outcome.segmented, outcome.skipped) == ((), 1)


def describes(path: Path, text: str) -> bool:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SeriesDescription) == text


def test_the_model_travels_with_the_job(ingested: Cohort, segmented: Cohort, model: Bundle, tmp_path: Path) -> None:
    """Workers find no model directory, as on a cluster whose driver has it on its own disk."""
    from segpipe.pipelines.segment import segment
    from segpipe.settings import SegmentSettings
    from segpipe.warehouse.runs import record_run

    cohort = ingested.copy(tmp_path)
    shutil.copytree(model.url, tmp_path / "m")
    packed = PredictorSpec(str(tmp_path / "m"), precision="float32").pack()
    shutil.rmtree(tmp_path / "m")
    settings = SegmentSettings(warehouse=cohort.url, cohort=COHORT, model=str(tmp_path / "m"))
    with record_run(cohort.warehouse, "segment", settings) as run:
        segment(cohort.spark, settings, packed, packed.bundle, run)
    assert cohort.content() == segmented.content()
    assert cohort.rows("runs", "started")[-1]["model_id"] == model.model_id
