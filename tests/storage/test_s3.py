"""Tables in a bucket: read over the S3 protocol from a server on loopback, and never written.

The server is moto's, in an environment of its own, with the packages of requirements-s3-server.lock.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest

import segpipe
from segpipe.errors import NotFound, StorageError, TableError, UsageError
from segpipe.storage import filesystem as files
from segpipe.warehouse.store import Store
from segpipe.warehouse.tables import SCANS
from tests.environments import clean, environment_of
from tests.report.small_warehouse import Results, generate, write_results

pytestmark = [pytest.mark.long, pytest.mark.process, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
PLACE = "bucket/W #1"
URL = f"s3://{PLACE}"


@dataclass(frozen=True)
class Server:
    """A running server, and the warehouse that was copied into its bucket as `URL`."""

    process: subprocess.Popen[str]
    endpoint: str
    copied: Results

    def ask_for_keys(self, after: str) -> None:
        """Answer so many requests of anybody, then those of keys alone that the server knows, which are none."""
        url, plain = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, after.encode(), plain)).close()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    words = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements-s3-server.lock"))
    environment = environment_of(sys.executable, tmp_path_factory.mktemp("s3"), *words)
    return [str(environment / "python"), "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]


@contextmanager
def running(program: list[str], folder: Path) -> Iterator[Server]:
    """A server with a warehouse in its bucket, which the variables of the environment name."""
    process = subprocess.Popen(program, env=clean(), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = next(match for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        drained = threading.Thread(target=process.stderr.read)  # it tells each request, and would wait for a full pipe
        drained.start()
        results = write_results(folder, [generate(0, number, (8, 24, 24)) for number in range(3)])
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": found[0]}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in keys.items():
                patch.setenv(name, value)
            client, _ = pafs.S3FileSystem.from_uri("s3://bucket?allow_bucket_creation=true")
            client.create_dir("bucket")
            pafs.copy_files(str(results.warehouse), PLACE, destination_filesystem=client)
            yield Server(process, found[0], results)
    finally:
        process.kill()
        drained.join()
        process.wait()


@pytest.fixture(scope="module")
def server(program: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(program, tmp_path_factory.mktemp("copied")) as found:
        yield found


@pytest.mark.parametrize("url", [URL, f"S3A://{PLACE}/"])
def test_tables_and_scans_are_those_of_the_disk(server: Server, url: str) -> None:
    here, there = segpipe.open_warehouse(server.copied.warehouse), segpipe.open_warehouse(url)
    for name in ("scans", "slices", "segmentations", "predictions"):
        assert there[name].to_arrow().equals(here[name].to_arrow())
    query = (
        "select region, count(*), avg(dice) from segmentations join scans using (scan_id) group by region order by 1"
    )
    assert there.sql(query).fetchall() == here.sql(query).fetchall() != []
    assert there.scans.where(split="test").duckdb().fetchall() == here.scans.where(split="test").duckdb().fetchall()
    subject = server.copied.cases[0].subject
    for read in (lambda scan: scan.image("flair"), lambda scan: scan.mask(), lambda scan: scan.prediction()):
        np.testing.assert_array_equal(read(there.scan(subject)), read(here.scan(subject)))


def test_a_part_that_was_cut_short_is_named(server: Server) -> None:
    warehouse = segpipe.open_warehouse(URL)
    path = warehouse.store.path("slices", f"{warehouse.store.parts('slices')[0]}.parquet")
    client, _ = pafs.S3FileSystem.from_uri("s3://bucket")
    with client.open_input_file(path) as file:
        content = file.read()
    try:
        with client.open_output_stream(path) as file:
            file.write(content[: len(content) // 2])
        with pytest.raises(TableError, match=re.escape(f"{path} is damaged")):
            warehouse.slices.to_arrow()
    finally:
        with client.open_output_stream(path) as file:
            file.write(content)


WRITES: dict[str, Callable[[Store], Any]] = {
    "a row of a table": lambda store: store.append(SCANS, store.table("scans").to_table(), "run"),
    "a file": lambda store: store.fs.pipe_file("bucket/new", b"x"),
    "a file in place": lambda store: files.replace(store.fs, store.path("new"), b"x"),
    "a lock": lambda store: files.exclusive_create(store.fs, store.path("new"), b"x"),
    "a folder": lambda store: store.fs.makedirs(store.path("new")),
    "a rename": lambda store: store.fs.mv(store.path("scans"), store.path("new")),
    "a copy": lambda store: store.fs.copy(_part(store), store.path("new")),
    "a part deleted": lambda store: store.fs.rm_file(_part(store)),
    "a table deleted": lambda store: store.fs.rm(store.path("scans"), recursive=True),
}


def _part(store: Store) -> str:
    return store.path("scans", f"{store.parts('scans')[0]}.parquet")


def _objects() -> set[tuple[str, int, int]]:
    client, _ = pafs.S3FileSystem.from_uri("s3://bucket")
    found = client.get_file_info(pafs.FileSelector("bucket", recursive=True))
    return {(one.path, one.size, one.mtime_ns) for one in found if one.type is pafs.FileType.File}


@pytest.mark.parametrize("what", WRITES)
def test_nothing_is_written(server: Server, what: str) -> None:
    store = segpipe.open_warehouse(URL).store
    before = _objects()
    with pytest.raises(UsageError, match="on an object store, where no rename is atomic"):
        WRITES[what](store)
    assert _objects() == before


def test_keys_that_the_store_does_not_know_are_told_as_that(server: Server) -> None:
    opened = segpipe.open_warehouse(URL).scans.dataset()
    server.ask_for_keys("0")
    try:
        with pytest.raises(StorageError, match=r"W #1 cannot be read \(ACCESS_DENIED.*: give AWS_PROFILE"):
            segpipe.open_warehouse(URL)
        with pytest.raises(
            StorageError, match=r"scans cannot be read \(INVALID_ACCESS_KEY_ID: [^(]*\): give AWS_PROFILE"
        ):
            opened.to_table()
    finally:
        server.ask_for_keys("inf")
    assert segpipe.open_warehouse(URL).scans.to_arrow().num_rows == 3


def test_a_store_that_is_gone_is_no_damaged_table(program: list[str], tmp_path: Path) -> None:
    with running(program, tmp_path) as server:
        opened = segpipe.open_warehouse(URL).scans.dataset()
        server.process.kill()
        server.process.wait()
        for ask in (opened.to_table, lambda: segpipe.open_warehouse(URL)):
            with pytest.raises(StorageError, match=r"cannot be read \(NETWORK_CONNECTION: .*: check the network"):
                ask()


def test_spark_is_refused_before_it_starts(server: Server) -> None:
    warehouse = segpipe.open_warehouse(URL)
    for ask in (warehouse.scans.spark, lambda: warehouse.spark_sql("select * from scans")):
        with pytest.raises(UsageError, match=r"Spark comes without a client for s3://bucket/W #1: take to_pandas"):
            ask()


def test_a_folder_that_is_not_there_and_one_without_tables(server: Server) -> None:
    for url, problem in (
        ("s3://bucket/none", "does not exist"),
        ("s3://another/W", "does not exist"),
        (f"{URL}/scans", "is not a warehouse"),
    ):
        with pytest.raises(NotFound, match=problem):
            segpipe.open_warehouse(url)
