"""A network of others from its file to tables, report, NIfTI masks and DICOM SEG, by the jobs that serve our own."""

from __future__ import annotations

import copy
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pyspark.sql import SparkSession

import jobs.adopt
import jobs.evaluate
import jobs.ingest
import jobs.report
import jobs.segment
from segpipe.cli import Context, execute
from segpipe.models.bundle import Bundle
from segpipe.models.card import to_toml
from segpipe.readers.generate import write_brats
from segpipe.readers.naming import KEY_VARIABLE
from segpipe.settings import AdoptSettings, EvaluateSettings, IngestSettings, ReportSettings, SegmentSettings
from segpipe.warehouse.store import Store
from tests.models.test_cards import DATASET, INFERENCE, MONAI, PLANS, written
from tests.pipelines.test_masks import write_dicom
from tests.runtimes.onnx_networks import network
from tests.runtimes.test_adopt import SIGMOID, SOFT, card


def adopt(folder: Path, *flags: str, card: str = "n.toml") -> int:
    named = {"--network": folder / "n.onnx", "--card": folder / card, "--model": folder / "m"}
    given = [str(part) for pair in named.items() for part in pair] + list(flags)
    return execute("adopt", AdoptSettings, jobs.adopt.run, given, Context("adopt"), jobs.adopt.check)


@pytest.fixture
def model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bundle:
    network(tmp_path / "n.onnx", SOFT)
    (tmp_path / "n.toml").write_text(to_toml(card()))
    assert adopt(tmp_path) == 0
    told = capsys.readouterr().out
    assert "small, licence Apache-2.0; cite: nobody 2020" in told
    assert "wants T1ce, T1, T2, FLAIR; gives whole_tumour, tumour_core, enhancing_tumour" in told
    return Bundle.load(str(tmp_path / "m"))


def test_a_plan_of_nnunet_tells_what_it_takes_for_granted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network(tmp_path / "n.onnx", SOFT)
    url = written(tmp_path, plans=PLANS, dataset=DATASET | {"name": "clears\x1b[2J", "reference": "two\nlines"})
    assert adopt(tmp_path, card=Path(url).name) == 0
    told = capsys.readouterr().out
    assert "clears [2J (3d_fullres), licence CC-BY-SA 4.0; cite: two lines; Isensee" in told
    for said in (
        "keeps the files' own axes",
        "looks at mirror images as well, and here none are",
        "input.space = brain",
    ):
        assert [line for line in told.splitlines() if said in line and line.endswith(": CHECK")]
    bundle = Bundle.load(str(tmp_path / "m"))
    assert (bundle.modalities, bundle.label_convention) == (("FLAIR", "T1", "T1ce", "T2"), "decathlon")


def test_what_a_bundle_leaves_open_is_decided_in_its_draft(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network(tmp_path / "n.onnx", SIGMOID)
    inference = copy.deepcopy(INFERENCE)
    inference["before"]["transforms"].append({"_target_": "scripts.Mine"})
    url, draft = written(tmp_path, metadata=MONAI, inference=inference), tmp_path / "draft.toml"
    assert adopt(tmp_path, "--draft", str(draft), card=Path(url).name) == 1
    told = capsys.readouterr().err
    assert "says what its card cannot: preprocessing holds Mine, which segpipe does not know: complete" in told
    assert not (tmp_path / "m").exists()
    assert adopt(tmp_path, card=draft.name) == 0
    assert Bundle.load(str(tmp_path / "m")).modalities == ("T1ce", "T1", "T2", "FLAIR")


def test_ingest_segment_evaluate_report(model: Bundle, spark: SparkSession, tmp_path: Path) -> None:
    context, warehouse = Context("adopt", spark), str(tmp_path / "w")
    write_brats(tmp_path / "archive", subjects=2, seed=0, shape=(8, 32, 32))
    jobs.ingest.run(IngestSettings(str(tmp_path / "archive"), warehouse, "c"), context)
    settings = SegmentSettings(warehouse, "c", model.url, nifti=str(tmp_path / "nifti"))
    assert jobs.segment.run(settings, context) == 0
    jobs.evaluate.run(EvaluateSettings(warehouse, "c", model.url, split="all"), context)
    page = tmp_path / "r.html"
    jobs.report.run(ReportSettings(warehouse, "c", model.url, str(page), surfaces=0), context)
    assert "Network: small, trained elsewhere; licence: Apache-2.0; cite: nobody 2020." in page.read_text("utf-8")
    rows = Store(warehouse).table("segmentations").to_table().to_pylist()
    assert {row["model_id"] for row in rows} == {model.model_id}
    assert all(row["dice"] is not None for row in rows)
    files = sorted((tmp_path / "nifti").rglob("*.nii.gz"))
    assert len(files) == 2
    for file in files:
        subject = file.parents[1].name
        flair, t1, t1ce, t2 = (
            nib.load(tmp_path / "archive" / subject / f"{subject}_{name}.nii.gz").get_fdata()
            for name in ("flair", "t1", "t1ce", "t2")
        )
        seen = np.stack([one - one[one != 0].mean() for one in (t1ce, t1, t2, flair)])
        seen = [
            np.where(one != 0, z / one[one != 0].std(), 0) for one, z in zip((t1ce, t1, t2, flair), seen, strict=True)
        ]
        wanted = np.array([0, 1, 2, 4])[np.einsum("kc,cxyz->kxyz", SOFT, np.stack(seen)).argmax(0)]
        brain = np.flatnonzero((flair != 0).any(axis=(0, 1)))
        slices = slice(brain[0], brain[-1] + 1)
        assert (np.asarray(nib.load(file).dataobj)[:, :, slices] == wanted[:, :, slices]).mean() > 0.999


def test_masks_as_dicom_seg(
    model: Bundle, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a secret of more than sixteen bytes")
    write_dicom(tmp_path / "archive", seed=4, tilt=0.0)
    source, seg = str(tmp_path / "archive"), str(tmp_path / "seg")
    settings = SegmentSettings(str(tmp_path / "w"), "c", model.url, source=source, dicom_seg=seg)
    assert jobs.segment.run(settings, Context("segment", spark)) == 0
    (path,) = Path(seg).rglob("*.dcm")
    written = pydicom.dcmread(path)
    assert written.Modality == "SEG"
    assert [one.SegmentLabel for one in written.SegmentSequence] == list(model.labels.values())
    assert written.pixel_array.any()


def test_what_is_wrong_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adopt(tmp_path) == 1
    assert "n.onnx does not exist" in capsys.readouterr().err
    (tmp_path / "n.onnx").mkdir()
    assert adopt(tmp_path) == 1
    assert "n.onnx is a folder: give the path of the file in it" in capsys.readouterr().err
    (tmp_path / "n.onnx").rmdir()
    network(tmp_path / "n.onnx", SOFT)
    (tmp_path / "n.toml").write_text(to_toml(card(input__modalities=["T1"])))
    assert adopt(tmp_path) == 1
    told = capsys.readouterr().err
    assert told.startswith("segpipe adopt: Network ")
    assert "the card names 1 (T1)" in told
    assert told.count("\n") == 1
