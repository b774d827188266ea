"""The part of the report that lets a person check preparations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from segpipe.core.intensity import statistics
from segpipe.errors import NotFound
from segpipe.report import build_preparations
from segpipe.report.preparations import badness, edge_path, unlike_cohort, worst_first
from segpipe.warehouse import slices
from segpipe.warehouse.parts import PartWriter
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS, SLICES
from tests.warehouse.examples import scan_row

SHAPE = (24, 60, 50)


def check(name: str, value: float, doubt: float, failure: float | None, role: str | None = None) -> dict[str, Any]:
    verdict = "doubtful" if failure is not None and (value - doubt) * (failure - doubt) > 0 else "good"
    return {"name": name, "role": role, "value": value, "doubt": doubt, "failure": failure, "verdict": verdict}


def preparation(*checks: dict[str, Any], how: str = "prepared") -> dict[str, Any]:
    transforms = [
        {"role": role, "matrix": np.eye(4).ravel().tolist(), "itk": "", "metric": None, "moved_mm": moved}
        for role, moved in (("T1", 0.0), ("FLAIR", 3.25))
    ]
    return {"how": how, "reference": "T1", "transforms": transforms, "checks": list(checks), "versions": []}


def write(warehouse: Store, subject: str, found: dict[str, Any] | None, **changes: Any) -> None:
    places = np.indices(SHAPE) - np.array(SHAPE)[:, None, None, None] / 2
    radius = np.sqrt(np.square(places / [[[[10]]], [[[26]]], [[[21]]]]).sum(axis=0))
    brain = radius < 1
    channels = [np.where(radius < 0.4, 30, 90) * brain, np.where(radius < 0.4, 200, 60) * brain]
    images = [image.astype(np.float32) for image in channels]
    affine = np.diag([1.0, -2.0, 3.0, 1.0]).ravel().tolist()
    files = [
        {name: None for name in SCANS.schema.field("files").type.value_type.names}
        | {"role": role, "slope": 1.0, "inter": 0.0, "shape": [320, 256, 25], "affine": affine, "orientation": "RPS"}
        for role in ("T1", "FLAIR")
    ]
    row = scan_row(subject, "c", shape=list(SHAPE), modalities=["T1", "FLAIR"], files=files, preparation=found)
    row |= {"space": "brain-1mm", "label_convention": None, "flags": ["masks_agree:FLAIR"] if subject == "bad" else []}
    row |= changes
    row["intensity"] = [
        {"modality": role, **vars(statistics(image[brain]))}
        for role, image in zip(("T1", "FLAIR"), images, strict=True)
    ]
    with PartWriter(warehouse, (SLICES, SCANS), subject, "r1") as part:
        for batch in slices.row_groups(row, images, None, brain, group_bytes=1 << 20):
            part.write("slices", batch)
        part.write("scans", pa.Table.from_pylist([row], SCANS.schema))


def test_the_worst_check_comes_first(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path / "w"))
    follows = {"session": "before", "fingerprint": "of that visit"}
    write(warehouse, "good", preparation(check("metric", -0.5, -0.33, -0.2, "FLAIR")), follows=follows)
    write(
        warehouse, "bad", preparation(check("masks_agree", 0.9, 0.94, 0.85, "FLAIR"), check("main_part", 1, 0.9, 0.7))
    )
    write(warehouse, "alone", preparation(how="recognised"))
    page = Path(build_preparations(warehouse.url, "c", tmp_path / "page.html")).read_text("utf-8")
    assert re.findall(r"<h3>(\w+)", page) == ["bad", "good"]
    assert "1 scan was prepared before and left alone" in page
    assert page.count("laid onto visit <b>before</b>") == 1
    assert 'masks agree FLAIR <b class="doubt">0.9</b> (doubt at 0.94)' in page
    assert '<span class="flag">masks agree:FLAIR</span>' in page
    assert "320 × 256 × 25, 1 × 2 × 3 mm, moved 3.2 mm" in page
    assert page.count("data:image/jpeg") == 2 * 2 * 2  # scans, modalities, views
    assert page.count('href="#p0axiale"') == 2  # one path of edges, drawn over both modalities
    assert not re.search(r'd=""', page)
    one = Path(build_preparations(warehouse.url, "c", tmp_path / "one.html", preparations=1)).read_text("utf-8")
    assert re.findall(r"<h3>(\w+)", one) == ["bad"]
    assert "1 more are not shown" in one


def test_a_page_without_model_and_without_preparations_is_refused(tmp_path: Path) -> None:
    """It would be empty: whoever asks for it has forgotten --model."""
    warehouse = Store(str(tmp_path / "w"))
    write(warehouse, "as_ingested", None)
    with pytest.raises(NotFound, match=r"No scan of cohort 'c' was ingested with --prepare.*: give the --model"):
        build_preparations(warehouse.url, "c", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_what_was_left_alone_is_shown_if_it_is_in_doubt(tmp_path: Path) -> None:
    warehouse = Store(str(tmp_path / "w"))
    write(warehouse, "alone", preparation(check("brain_at_edge", 0.0, 0.2, 0.7, "T1"), how="recognised"))
    found = preparation(check("brain_at_edge", 0.3, 0.2, 0.7, "T1"), how="recognised")
    write(warehouse, "cut", found, flags=["brain_at_edge:T1"])
    good = check("metric", -0.5, -0.33, -0.2, "FLAIR")
    write(warehouse, "good", preparation(good))
    write(warehouse, "lacking", preparation(good), flags=["without:T2"])
    page = Path(build_preparations(warehouse.url, "c", tmp_path / "page.html")).read_text("utf-8")
    assert re.findall(r"<h3>(\w+)", page) == ["cut", "lacking", "good"]
    assert page.count("prepared before and <b>left alone</b>") == 1
    assert '<span class="flag">without:T2</span>' in page
    assert "1 scan was prepared before and left alone" in page


def test_a_figure_is_the_worse_the_nearer_it_is_to_failure() -> None:
    values = [badness(check("masks_agree", value, 0.94, 0.85)) for value in (0.98, 0.94, 0.895, 0.85)]
    np.testing.assert_allclose(values, [-4 / 9, 0, 0.5, 1], atol=1e-9)
    assert worst_first([{"preparation": None, "scan_id": "a"}]) == []
    alone = {"value": 0.98, "doubt": 0.9, "failure": None, "verdict": "good"}  # a bound below, beyond which none fails
    assert badness(alone) < 0 < badness(alone | {"value": 0.5, "verdict": "doubtful"})


def test_a_figure_far_from_those_of_the_cohort_is_told() -> None:
    scans = [
        {"scan_id": f"c:{number}:1", "preparation": preparation(check("metric", value, -0.33, -0.2, "FLAIR"))}
        for number, value in enumerate([-0.60, -0.61, -0.59, -0.62, -0.60, -0.58, -0.61, -0.60, -0.40])
    ]
    assert unlike_cohort(scans) == {"c:8:1": ["metric:FLAIR"]}
    assert worst_first(scans)[0]["scan_id"] == "c:8:1"
    assert unlike_cohort(scans[2:]) == {}  # seven tell nothing


def test_edges_lie_between_fluid_and_tissue_whichever_is_bright() -> None:
    rows, columns = np.indices((80, 80)) - 40
    brain, ventricle = rows**2 + columns**2 < 36**2, rows**2 + columns**2 < 10**2
    paths = [
        edge_path(np.where(brain, np.where(ventricle, inner, outer), 0.0), brain)
        for inner, outer in ((20, 90), (90, 20))
    ]
    points = [np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2) - 40 for path in paths]
    for found in points:
        radius = np.sqrt(np.square(found).sum(axis=1))
        assert np.abs(radius[radius < 20] - 10).max() < 1.5
        assert (radius < 20).sum() > 10
    assert edge_path(np.zeros((80, 80)), np.zeros((80, 80), bool)) == ""
