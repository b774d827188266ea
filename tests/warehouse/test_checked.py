"""A flipped bit in a part is an error, never another answer."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from segpipe.errors import TableError
from segpipe.warehouse import checked, slices
from segpipe.warehouse.store import Store
from tests.warehouse.examples import write_part


@pytest.fixture
def warehouse(tmp_path) -> Store:
    folder = tmp_path / "w"
    folder.mkdir()
    write_part(Store(str(folder)), "p", ["anna", "bert"])
    return Store(str(folder))


def answer(warehouse: Store) -> list:
    """Everything that a reader of scans and slices is told."""
    found = warehouse.scans("c").to_pylist()
    for part in warehouse.slice_parts("c"):
        for scan in part.scans:
            for batch in slices.stream(part.path, warehouse.fs, scan.row_groups):
                arrays = [*(batch.image or ()), batch.mask, batch.foreground_pixels, batch.brain_pixels]
                found.append((batch.scan_id, batch.split, [array.tobytes() for array in arrays]))
    return found


def flipped(content: bytes, places: list[int], seed: int = 0) -> Iterator[tuple[int, bytes]]:
    dice = random.Random(seed)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << dice.randrange(8)
        yield place, bytes(damaged)


def pages(path: Path, column: str) -> list[int]:
    """The places of a column's compressed values in a file, without the headers of its pages (under 40 bytes)."""
    metadata = pq.read_metadata(path)
    number = metadata.schema.names.index(column)
    chunks = [metadata.row_group(group).column(number) for group in range(metadata.num_row_groups)]
    return [
        place
        for chunk in chunks
        for place in range(chunk.data_page_offset + 40, chunk.data_page_offset + chunk.total_compressed_size)
    ]


@pytest.mark.parametrize("column", ["image", "mask"])
def test_every_flipped_bit_in_voxels_or_labels_is_an_error(warehouse, column):
    path = Path(warehouse.path("slices", "p.parquet"))
    places = pages(path, column)
    assert len(places) > 30
    for _, damaged in flipped(path.read_bytes(), places[:: len(places) // 30]):
        path.write_bytes(damaged)
        with pytest.raises(TableError, match="damaged"):
            answer(warehouse)


@pytest.mark.parametrize(("table", "steps"), [("slices", 97), ("scans", 97)])
def test_a_flipped_bit_anywhere_never_gives_another_answer(warehouse, table, steps):
    """What does not count, such as the reserved bits of a page's header, may be read over."""
    path, right = Path(warehouse.path(table, "p.parquet")), answer(warehouse)
    content = path.read_bytes()
    noticed = 0
    for place, damaged in flipped(content, list(range(0, len(content), len(content) // steps)), seed=1):
        path.write_bytes(damaged)
        try:
            assert answer(warehouse) == right, f"byte {place} of {table} was flipped: another answer"
        except TableError:
            noticed += 1
    assert noticed > steps / 2


def test_every_flipped_bit_of_a_footer_is_an_error(warehouse):
    """Its statistics decide which rows a reader looks at."""
    path = Path(warehouse.path("scans", "p.parquet"))
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little") + 8
    name = content.rindex(checked.FOOTER)  # only these bytes cannot tell of themselves
    places = [place for place in range(len(content) - length, len(content)) if not name - 2 <= place < name + 16]
    for _, damaged in flipped(content, places[::97]):
        path.write_bytes(damaged)
        with pytest.raises(TableError):
            warehouse.scans("c")


def test_a_cut_off_part_is_named(warehouse):
    path = Path(warehouse.path("scans", "p.parquet"))
    content = path.read_bytes()
    for size in (0, 3, 200, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(TableError, match=r"scans/p.parquet is damaged .*`verify`"):
            warehouse.scans("c")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_named_and_not_waited_for(warehouse, make):
    make(warehouse.path("scans", "x.parquet"))
    for ask in (lambda: warehouse.scans("c"), lambda: warehouse.table("scans")):
        with pytest.raises(TableError, match=r"x\.parquet is damaged .it is no file."):
            ask()


def test_parts_without_checksums_are_still_read(warehouse):
    """As earlier versions wrote them."""
    right = answer(warehouse)
    for table in ("scans", "slices"):
        path = Path(warehouse.path(table, "p.parquet"))
        with pq.ParquetFile(path) as old:
            groups = [old.read_row_group(number) for number in range(old.num_row_groups)]
            metadata = {key: value for key, value in old.schema_arrow.metadata.items() if key != checked.FOOTER}
        with pq.ParquetWriter(path, groups[0].schema.with_metadata(metadata)) as writer:
            for group in groups:
                writer.write_table(group)
        assert not checked.is_sealed(checked.read_metadata(warehouse.fs, str(path)))
    assert answer(warehouse) == right


def test_spark_notices_a_flipped_bit_as_well(warehouse, spark):
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    from segpipe.pipelines.catalog import read
    from segpipe.warehouse.tables import SLICES

    path = Path(warehouse.path("slices", "p.parquet"))
    voxels = read(spark, warehouse, SLICES).select("image")
    assert len(voxels.collect()) == 8
    places = pages(path, "image")
    (_, damaged), *_ = flipped(path.read_bytes(), places[len(places) // 2 :])
    path.write_bytes(damaged)
    for crc in path.parent.glob(".*.crc"):  # Hadoop's own, where there are any
        crc.unlink()
    with pytest.raises((PySparkException, Py4JJavaError), match="CRC checksum"):
        voxels.collect()


@pytest.mark.parametrize("most", [0, 1])
def test_a_dataset_gives_the_same_rows_whether_it_keeps_footers_or_not(warehouse, monkeypatch, most):
    monkeypatch.setattr(checked, "_MOST_FOOTERS", most)
    dataset = warehouse.table("slices")
    (fragment,) = dataset.get_fragments()
    assert dataset.to_table().equals(dataset.to_table())
    assert dataset.count_rows() == dataset.to_table().num_rows == fragment.count_rows() == 8


def test_a_dataset_that_was_filtered_reads_on_after_a_merge(warehouse):
    write_part(warehouse, "q", ["cleo"])
    dataset = warehouse.table("scans")
    some = dataset.filter(pc.field("subject") != "anna").filter(pc.field("subject") != "cleo")
    path = Path(dataset.files[0])
    aside = path.parents[1] / "_replaced" / "scans"
    aside.mkdir(parents=True)
    path.rename(aside / path.name)
    assert some.to_table().column("subject").to_pylist() == ["bert"]
    assert some.scanner(columns=["subject"]).to_table().num_rows == 1
    assert dataset.sort_by("subject").to_table().column("subject").to_pylist() == ["anna", "bert", "cleo"]
