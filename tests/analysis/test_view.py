"""The same rows, whichever library asks for them."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

import segpipe
from segpipe.analysis import Warehouse
from segpipe.errors import NotFound, SegpipeError, TableError, UsageError
from segpipe.storage.filesystem import filesystem
from segpipe.warehouse import checked
from segpipe.warehouse.tables import SCANS, TABLES
from tests.report.small_warehouse import MODEL_ID, Results

TEST_ROWS = {
    ("Synthetic_07_000", "whole_tumour"),
    ("Synthetic_07_010", "whole_tumour"),
    ("Synthetic_07_013", "whole_tumour"),
}


def text_of(page: str) -> str:
    """The text of HTML, after a check that its tags nest."""
    words: list[str] = []
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert tags.pop() == tag

        def handle_data(self, data: str) -> None:
            words.append(data)

    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not tags
    return " ".join(words)


def test_every_table_has_its_property_and_its_key(opened: Warehouse) -> None:
    for name in TABLES:
        assert getattr(opened, name).name == opened[name].name == name
        assert name in dir(opened)
    assert opened._ipython_key_completions_() == list(TABLES)


def test_pandas_arrow_duckdb_and_spark_give_the_same_rows(opened: Warehouse, spark: SparkSession) -> None:
    view = opened.segmentations.where(split="test", region="whole_tumour").select("subject", "region")
    answers = {
        "arrow": [tuple(row.values()) for row in view.arrow().to_pylist()],
        "pandas": list(view.pandas().itertuples(index=False, name=None)),
        "duckdb": view.duckdb().fetchall(),
        "spark": [tuple(row) for row in view.spark(spark).collect()],
    }
    for rows in answers.values():
        assert len(rows) == len(view) == 3
        assert set(rows) == TEST_ROWS


def test_null_and_several_values_select_alike_everywhere(opened: Warehouse, spark: SparkSession) -> None:
    for conditions in (
        {"model_id": [MODEL_ID, None]},
        {"model_id": None},
        {"job": ["train", "segment"], "model_id": [None]},
    ):
        view = opened.runs.where(**conditions).select("job")
        wanted = sorted(row["job"] for row in view.arrow().to_pylist())
        assert len(view) == len(wanted)
        assert sorted(job for (job,) in view.duckdb().fetchall()) == wanted
        assert sorted(row.job for row in view.spark(spark).collect()) == wanted
    assert sorted(opened.runs.where(model_id=None).pandas()["job"]) == ["ingest"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_reads_in_every_library(name: str, opened: Warehouse, spark: SparkSession) -> None:
    view = opened[name]
    rows = len(view)
    assert rows == view.arrow().num_rows == len(view.pandas()) == view.spark(spark).count()
    assert len(view.duckdb().df()) == rows
    assert view.spark(spark).columns == view.duckdb().columns == TABLES[name].schema.names


def test_spark_knows_what_columns_mean(opened: Warehouse, spark: SparkSession) -> None:
    field = opened.segmentations.spark(spark).schema["volume_ml"]
    assert field.metadata["comment"] == "predicted volume"


def test_sql_over_tables_by_name(opened: Warehouse, spark: SparkSession) -> None:
    query = (
        "select s.split, count(distinct g.scan_id) as scans from Segmentations g join scans s on s.scan_id = g.scan_id"
        " group by s.split order by 1"
    )
    expected = [("test", 3), ("train", 2)]
    assert opened.sql(query).fetchall() == expected
    assert [tuple(row) for row in opened.spark_sql(query, spark).collect()] == expected


def test_tables_are_those_of_the_moment(results: Results, tmp_path: Path) -> None:
    shutil.copytree(results.warehouse, tmp_path / "w")
    opened = segpipe.open_warehouse(str(tmp_path / "w"))
    assert opened.sql("select count(*) from runs").fetchall() == [(3,)]
    shutil.copy(tmp_path / "w/runs/part-0.parquet", tmp_path / "w/runs/part-1.parquet")
    assert len(opened.runs) == 6
    assert opened.sql("select count(*) from runs").fetchall() == [(6,)]


def test_empty_tables_read_as_empty(tmp_path: Path, spark: SparkSession) -> None:
    opened = segpipe.open_warehouse(str(tmp_path))
    assert len(opened.scans) == len(opened.scans.pandas()) == opened.scans.spark(spark).count() == 0
    assert opened.sql("select * from scans").fetchall() == []
    assert opened.cohorts == opened.models == []
    assert "scans 0" in text_of(opened._repr_html_())


def test_warehouse_behind_a_url(results: Results) -> None:
    fs, root = filesystem("memory://opened")
    fs.put(str(results.warehouse), root, recursive=True)
    opened = segpipe.open_warehouse("memory://opened")
    assert len(opened.scans) == 5
    assert opened.sql("select count(*) from slices").fetchall() == [(50,)]
    assert opened.segmentations.where(split="test").duckdb().aggregate("count(*)").fetchall() == [(9,)]


def test_subject_in_two_splits_is_refused_in_every_library(
    results: Results, tmp_path: Path, spark: SparkSession
) -> None:
    shutil.copytree(results.warehouse, tmp_path / "w")
    path = tmp_path / "w/scans/part-0.parquet"
    rows = pq.read_table(path).to_pylist()
    moved = next(row for row in rows if row["session"] == "2020")
    moved["split"] = "validation"
    pq.write_table(pa.Table.from_pylist(rows, SCANS.schema), path)
    opened = segpipe.open_warehouse(str(tmp_path / "w"))
    asked = [opened.scans.pandas, opened.slices.arrow, opened.segmentations.duckdb, lambda: opened.scans.spark(spark)]
    for ask in (*asked, lambda: opened.sql("select * from scans"), lambda: opened.scan("Synthetic_07_000")):
        with pytest.raises(TableError, match="spans the splits"):
            ask()
    assert len(opened.runs) == 3


def test_parts_that_were_checked_are_not_opened_for_it_again_until_a_file_changes(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of thousands of parts is checked once for many questions, and again as soon as it is not the same."""
    opened = segpipe.open_warehouse(shutil.copytree(results.warehouse, tmp_path / "w").as_posix())
    query = "select count(*) from segmentations join scans using (scan_id)"
    answer = opened.sql(query).fetchall()
    opens: list[str] = []
    open_file = checked._open
    monkeypatch.setattr(checked, "_open", lambda fs, path: opens.append(path) or open_file(fs, path))
    assert opened.sql(query).fetchall() == answer
    assert opened.segmentations.arrow().num_rows == len(opened.segmentations)
    assert opens == []
    path = tmp_path / "w/scans/part-0.parquet"
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"split": "train"} for row in rows], SCANS.schema), path)
    for ask in (lambda: opened.sql(query), opened.slices.arrow):
        with pytest.raises(TableError, match="cannot be trusted"):
            ask()
    assert str(path) in opens


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda w: w.scans.where(splt="test"), "no column `splt`: did you mean `split`?"),
        (lambda w: w.scans.select("scan_id", "colour"), "no column `colour`"),
        (lambda w: w.scans.where(brain_voxels="many"), "'many' is not a value of `brain_voxels`"),
        (lambda w: w.scans.where(modalities="T1"), "filter it in pandas"),
        (lambda w: w["scan"], "no table scan"),
    ],
    ids=["misspelt", "unknown", "type", "list", "table"],
)
def test_wrong_questions_are_told_apart(wrong: object, message: str, opened: Warehouse) -> None:
    with pytest.raises((UsageError, NotFound)) as error:
        wrong(opened)  # type: ignore[operator]
    assert message in str(error.value)


def test_missing_warehouse_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        segpipe.open_warehouse(str(tmp_path / "none"))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_things_is_not_an_empty_warehouse(results: Results, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    shutil.copytree(results.warehouse, tmp_path / "demo" / "tables")
    with pytest.raises(NotFound, match=r"demo is not a warehouse: it has no table: give the folder that ingest"):
        segpipe.open_warehouse(tmp_path / "demo")
    (tmp_path / "demo" / "__pycache__").mkdir()  # of a folder with programs
    (tmp_path / "demo" / "scans" / "Synthetic_00_000").mkdir(parents=True)  # an archive, as make demo makes one
    with pytest.raises(NotFound, match="demo is not a warehouse"):
        segpipe.open_warehouse(tmp_path / "demo")
    assert len(segpipe.open_warehouse(tmp_path / "demo" / "tables").scans) == 5


def test_reprs_are_short_and_html_is_whole(opened: Warehouse) -> None:
    assert repr(opened) == f"<warehouse {opened.store.url}: {', '.join(TABLES)}>"
    assert repr(opened.scans) == "<scans: each row a subject's session: one scan>"
    page = text_of(opened.slices.where(split="test")._repr_html_())
    assert "split test" in " ".join(page.split())
    assert "stored voxels, one byte-separated plane per channel" in page
    assert len(opened.slices._repr_html_()) < 10_000
    assert "segmentations" in text_of(opened._repr_html_())


def test_a_repr_opens_no_part(results: Results, tmp_path: Path) -> None:
    shutil.copytree(results.warehouse, tmp_path / "w")
    opened = segpipe.open_warehouse(tmp_path / "w")
    scan = opened.scan("Synthetic_07_013")
    for part in (tmp_path / "w").rglob("*.parquet"):
        part.write_bytes(b"no Parquet")
    for shown in (opened, opened.scans, opened.slices.where(split="test"), scan):
        assert repr(shown)
        assert shown._repr_html_()
    with pytest.raises(SegpipeError):
        opened.scans.to_arrow()


def test_long_and_short_forms_are_the_same(opened: Warehouse) -> None:
    view = opened.scans.select("scan_id", "split")
    assert view.to_arrow() == view.arrow()
    assert view.to_pandas().equals(view.pandas())
    assert segpipe.NotFound is NotFound
