"""What labels mean, settled over a whole archive: told by all its masks and those in the tables, or by the user."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from segpipe.core.regions import CONVENTIONS
from segpipe.readers import scan as scan_reader
from segpipe.readers.sources import find
from segpipe.warehouse.store import Store
from tests.pipelines.deadly import In
from tests.pipelines.examples import COHORT, leftovers, run_ingest, tables
from tests.readers.conftest import head, save

OWN = """
name = "clinic"
[labels]
1 = "core"
2 = "oedema"
4 = "cavity"
[regions]
tumour = [1, 2]
core = [1]
cavity = [4]
"""


def add(archive: Path, patient: str, labels: Iterable[int]) -> None:
    """A T1 and a mask with these labels."""
    mask = np.zeros((6, 5, 4), np.uint8)
    for place, label in enumerate(labels):
        mask[1 + place, 2, 1] = label
    save(archive / f"{patient}_T1.nii.gz", head())
    save(archive / f"{patient}_seg.nii.gz", mask)


def conventions(warehouse: Path) -> dict[str, str]:
    rows = Store(str(warehouse)).scans(COHORT, ["subject", "label_convention"]).to_pylist()
    return {row["subject"]: row["label_convention"] for row in rows}


def test_a_mask_that_lacks_a_label_is_read_as_its_cohort_is(spark, tmp_path):
    source = tmp_path / "source"
    for patient, labels in {"g01": (1, 2, 4), "g02": (1,), "g03": (), "g04": (2, 4)}.items():
        add(source, patient, labels)
    run_ingest(spark, source, tmp_path / "w")
    add(source, "g05", (1,))  # later, and alone: the masks in the tables tell it
    run_ingest(spark, source, tmp_path / "w")
    assert conventions(tmp_path / "w") == dict.fromkeys(("g01", "g02", "g03", "g04", "g05"), "brats")


def test_the_user_says_what_labels_mean(spark, tmp_path):
    source, own = tmp_path / "source", tmp_path / "own.toml"
    add(source, "BraTS2021_00001", (1, 2, 4))
    own.write_text(OWN)
    run_ingest(spark, source, tmp_path / "w", label_convention=str(own))
    convention = CONVENTIONS[conventions(tmp_path / "w")["BraTS2021_00001"]]
    assert (convention.title, convention.labels[4], convention.is_nested) == ("clinic", "cavity", False)
    run_ingest(spark, source, tmp_path / "named", label_convention="brats2024")
    assert conventions(tmp_path / "named") == {"BraTS2021_00001": "brats2024"}


@pytest.mark.parametrize("labels", [(1, 2, 3), (1, 2, 4, 5)])
def test_labels_that_nobody_explained_cost_the_mask_alone(spark, tmp_path, labels):
    add(tmp_path / "source", "p1", labels)
    run_ingest(spark, tmp_path / "source", tmp_path / "w")
    assert conventions(tmp_path / "w") == {"p1": None}
    (row,) = tables(tmp_path / "w")["quarantine"]
    assert (row["paths"], row["reason"]) == (["p1_seg.nii.gz"], "unknown_labels")
    assert "--label-convention" in row["message"]


def test_a_mask_that_kills_its_readers_is_read_as_the_others_are(spark, tmp_path, monkeypatch):
    for patient, labels in {"g01": (1, 2, 4), "g02": (1, 2)}.items():
        add(tmp_path / "source", patient, labels)
    deadly = In(scan_reader, "mask_labels", scan_reader, "label_counts", lambda voxels: 4 in voxels)
    deadly.put(monkeypatch)
    run_ingest(spark, tmp_path / "source", tmp_path / "w")
    assert conventions(tmp_path / "w") == {"g01": "brats", "g02": "brats"}
    assert leftovers(tmp_path / "w") == []


def test_a_mask_for_which_memory_does_not_suffice_stops_no_archive(tmp_path, monkeypatch):
    add(tmp_path, "g01", (1, 2, 4))
    (scan,) = find(str(tmp_path)).scans
    assert scan_reader.mask_labels(str(tmp_path), scan) == {1, 2, 4}

    def failing(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(scan_reader, "_read", failing)
    assert scan_reader.mask_labels(str(tmp_path), scan) is None
