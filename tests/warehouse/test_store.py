"""Readers get tables that they can trust, or an error that says what is wrong."""

import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segpipe.errors import NotFound, TableError
from segpipe.warehouse import slices
from segpipe.warehouse.scan_slices import scan_rows
from segpipe.warehouse.store import Store, cohort_slug
from segpipe.warehouse.tables import SCANS
from tests.warehouse.examples import RULE, images, scan_row, write_part

SUBJECTS = ["anna", "bert", "cleo", "dora"]


@pytest.fixture
def warehouse(tmp_path) -> Store:
    folder = tmp_path / "w"
    folder.mkdir()
    made = Store(str(folder))
    write_part(made, "c.2", SUBJECTS[:2])
    write_part(made, "c.1", SUBJECTS[2:])
    write_part(made, "d.1", ["anna"], cohort="d")
    return made


def test_the_scans_of_a_cohort_come_in_the_order_of_their_ids(warehouse):
    rows = warehouse.scans("c")
    assert rows["scan_id"].to_pylist() == [f"c:{subject}:1" for subject in SUBJECTS]
    assert rows.schema.names == SCANS.schema.names


def test_the_index_tells_the_part_of_every_scan(warehouse):
    parts = {scan_id: row["part"] for scan_id, row in warehouse.index("c").items()}
    assert parts == {"c:anna:1": "c.2", "c:bert:1": "c.2", "c:cleo:1": "c.1", "c:dora:1": "c.1"}


def test_slice_parts_lead_to_every_slice_once(warehouse):
    found = []
    for part in warehouse.slice_parts("c"):
        for scan in part.scans:
            for batch in slices.stream(part.path, warehouse.fs, scan.row_groups):
                assert (batch.scan_id, batch.split) == (scan.scan_id, scan.split)
                found += [(batch.scan_id, int(number)) for number in batch.slice_index]
    assert found == [(f"c:{subject}:1", number) for subject in [*SUBJECTS[2:], *SUBJECTS[:2]] for number in range(4)]


def test_slice_parts_of_a_split_leave_out_the_others(warehouse):
    for split in ("train", "validation", "test"):
        found = {scan.scan_id for part in warehouse.slice_parts("c", [split]) for scan in part.scans}
        assert found == {f"c:{subject}:1" for subject in SUBJECTS if RULE.of(subject) == split}


def test_a_warehouse_can_be_sent_to_a_worker(warehouse):
    assert pickle.loads(pickle.dumps(warehouse)).scans("c").equals(warehouse.scans("c"))


def test_hidden_and_staged_files_are_no_parts(warehouse, tmp_path):
    (tmp_path / "w" / "scans" / "_draft.parquet").write_bytes(b"")
    (tmp_path / "w" / "scans" / ".c.1.parquet.crc").write_bytes(b"")
    assert warehouse.parts("scans") == ["c.1", "c.2", "d.1"]


def other_split(subject: str) -> str:
    return "test" if RULE.of(subject) != "test" else "train"


def test_a_subject_that_spans_two_splits_is_refused_by_every_reader(warehouse):
    write_part(warehouse, "c.3", ["anna"], session="2", scan_id="c:anna:2", split=other_split("anna"))
    for read in (warehouse.scans, warehouse.slice_parts, warehouse.index):
        with pytest.raises(TableError, match="anna spans the splits"):
            read("c")


def test_slices_in_another_split_than_their_scan_are_refused(warehouse, tmp_path):
    path = tmp_path / "w" / "slices" / "c.2.parquet"
    rows = pq.read_table(path)
    moved = rows.set_column(
        rows.schema.get_field_index("split"), rows.schema.field("split"), pa.array([other_split("anna")] * 8)
    )
    with pq.ParquetWriter(path, moved.schema) as writer:
        writer.write_table(moved, row_group_size=2)
    with pytest.raises(TableError, match="does not hold c:anna:1"):
        warehouse.slice_parts("c")


def test_a_stream_in_which_a_subject_changes_its_split_is_refused(tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    warehouse = Store(str(folder))
    write_part(warehouse, "a", ["anna"])
    write_part(warehouse, "b", ["anna"], split=other_split("anna"))
    both = pa.concat_tables([pq.read_table(folder / "slices" / f"{name}.parquet") for name in "ab"])
    pq.write_table(both, folder / "both.parquet", row_group_size=2)
    with pytest.raises(TableError, match="Subject anna spans"):
        list(slices.stream(str(folder / "both.parquet"), warehouse.fs))


def test_a_part_that_is_half_replaced_is_refused(warehouse, tmp_path):
    (tmp_path / "other").mkdir()
    other = Store(str(tmp_path / "other"))
    write_part(other, "c.2", SUBJECTS[:2], run_id="r2")
    (tmp_path / "other" / "slices" / "c.2.parquet").replace(tmp_path / "w" / "slices" / "c.2.parquet")
    with pytest.raises(TableError, match=r"Part c\.2 .* is being replaced"):
        warehouse.slice_parts("c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": other_split("elsa")}, "not in .* as `hmac"),
        ({"split_rule": "by hand"}, "2 split rules"),
        ({"scan_id": "c:anna:1", "subject": "anna", "split": RULE.of("anna")}, "c:anna:1 is there more than once"),
    ],
    ids=["split against its rule", "two rules", "scan twice"],
)
def test_scans_that_break_a_promise_are_refused(warehouse, change, message):
    write_part(warehouse, "c.3", ["elsa"], **change)
    with pytest.raises(TableError, match=message):
        warehouse.scans("c")


def test_all_missing_columns_are_named_at_once(warehouse, tmp_path):
    path = tmp_path / "w" / "scans" / "c.1.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["split", "affine"]), path)
    with pytest.raises(TableError, match="lacks column `split`; lacks column `affine`"):
        warehouse.scans("c")


def test_what_is_not_there_is_named(warehouse, tmp_path):
    with pytest.raises(NotFound, match=r"'e' has no scans in .*: run ingest, or name one of c, d$"):
        warehouse.scans("e")
    with pytest.raises(NotFound, match=r"'c' has no scans in .*: run ingest first$"):
        Store(str(tmp_path)).scans("c")
    with pytest.raises(NotFound, match="nowhere does not exist"):
        Store(str(tmp_path / "nowhere")).scans("c")


def test_cohort_slugs_differ_where_cohorts_do():
    names = ["brats", "a b", "a_b", "a/b", "../a", "é", "a.b", ""]
    slugs = [cohort_slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert not [slug for slug in slugs if set(slug) & set("/.% ")]


@pytest.mark.parametrize("with_mask", [True, False])
def test_slices_come_back_as_they_were(tmp_path, with_mask):
    rng = np.random.default_rng(1)
    channels = images(rng, (5, 3, 4))
    mask = rng.integers(0, 5, (5, 3, 4)).astype(">u2") if with_mask else None
    brain = rng.integers(0, 2, (5, 3, 4)).astype(bool)
    rows = pa.Table.from_batches(slices.row_groups(scan_row("anna"), channels, mask, brain, group_bytes=100))
    assert rows["slice_index"].num_chunks == 5
    pq.write_table(rows, tmp_path / "s.parquet", row_group_size=2)
    batches = list(slices.stream(str(tmp_path / "s.parquet"), Store(str(tmp_path)).fs))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    for number, channel in enumerate(channels):
        found = np.concatenate([batch.image[number] for batch in batches])
        assert found.dtype == channel.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found, channel)
    np.testing.assert_array_equal(np.concatenate([batch.brain_pixels for batch in batches]), brain.sum(axis=(1, 2)))
    if with_mask:
        np.testing.assert_array_equal(np.concatenate([batch.mask for batch in batches]), mask)
        counted = np.concatenate([batch.foreground_pixels for batch in batches])
        np.testing.assert_array_equal(counted, (mask != 0).sum(axis=(1, 2)))
    else:
        assert {batch.mask for batch in batches} == {None}


def test_columns_that_are_not_asked_for_are_not_read(warehouse):
    part = warehouse.slice_parts("c")[0]
    for batch in slices.stream(part.path, warehouse.fs, columns=["mask"]):
        assert batch.image is None
        assert batch.brain_pixels is None
        assert batch.mask.shape[1:] == (3, 5)


def test_a_cell_of_the_wrong_size_is_refused(tmp_path):
    rows = pa.Table.from_batches(
        slices.row_groups(scan_row("anna"), images(np.random.default_rng(1)), None, np.ones((4, 3, 5), bool), 999)
    )
    short = rows.set_column(
        rows.schema.get_field_index("width"), rows.schema.field("width"), pa.array([4] * 4, pa.int32())
    )
    pq.write_table(short, tmp_path / "s.parquet")
    with pytest.raises(TableError, match=r"c:anna:1 .* are damaged"):
        list(slices.stream(str(tmp_path / "s.parquet"), Store(str(tmp_path)).fs))


def test_a_part_of_an_earlier_version_has_nulls_where_columns_came_later(tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    made = Store(str(folder))
    write_part(made, "c.1", ["anna"])
    path = made.path("scans", "c.1.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["space", "preparation", "flags"]), path)
    row = scan_rows(made, "c.1", ["c:anna:1"])["c:anna:1"]
    assert (row["space"], row["preparation"], row["flags"]) == (None, None, None)
    assert made.scans("c", ("scan_id", "space")).to_pylist() == [{"scan_id": "c:anna:1", "space": None}]


def test_sizes_and_versions_leave_out_what_is_moved_aside_between_listing_and_asking(warehouse):
    """As a link does that leads nowhere: its name is listed, and there is nothing to ask."""
    before = warehouse.versions("scans")
    assert set(before) == set(warehouse.sizes("scans")) == set(warehouse.parts("scans"))
    os.symlink("nowhere", warehouse.path("scans", "x.parquet"))
    Path(warehouse.path("scans", next(iter(before)))).touch()  # no part, though it is called like one
    assert "x" in warehouse.parts("scans")
    assert warehouse.versions("scans") == before
    assert set(warehouse.sizes("scans")) == set(before)
    with pytest.raises(TableError, match=r"x\.parquet is missing"):
        warehouse.table("scans")
