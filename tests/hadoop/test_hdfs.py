"""HDFS through the warehouse's file system face, against real name and data nodes."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from segpipe.errors import StorageError
from segpipe.readers import sources
from segpipe.settings import IngestSettings
from segpipe.storage import filesystem as files
from segpipe.warehouse.runs import record_run
from segpipe.warehouse.store import Store
from tests.hadoop.yarn_jobs import put, submit
from tools.hadoop import cluster as hadoop

pytestmark = pytest.mark.hadoop


def test_what_is_written_is_read_back_across_blocks(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    data = np.random.default_rng(0).bytes(3 * (1 << 20) + 17)
    with fs.open(files.join(folder, "data"), "wb", block_size=1 << 20) as file:
        assert file.write(data) == len(data)
        assert file.tell() == len(data)
    with fs.open(files.join(folder, "data"), "rb") as file:
        assert file.seek(0, io.SEEK_END) == len(data)
        file.seek((1 << 20) - 5)
        middle = file.read(10)
    assert fs.cat_file(files.join(folder, "data")) == data
    assert middle == data[(1 << 20) - 5 : (1 << 20) + 5]


def test_a_file_is_read_in_steps(hdfs_folder: str) -> None:
    fs, path = files.filesystem(f"{hdfs_folder}/steps")
    content = bytes(range(256)) * 50
    fs.pipe_file(path, content)
    with fs.open(path, "rb", block_size=1 << 10) as file:  # as headers of DICOM files are
        assert (file.read(3), file.tell()) == (content[:3], 3)
        assert file.seek(2000) == 2000
        assert file.read(5000) == content[2000:7000]
        assert file.read() == content[7000:]


def test_every_file_has_a_copy_on_both_data_nodes(cluster: hadoop.Cluster, hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    files.replace(fs, files.join(folder, "file"), b"x")
    url = f"{cluster.web('namenode')}/webhdfs/v1{folder}/file?op=GETFILEBLOCKLOCATIONS"
    wanted = {f"127.0.0.1:{cluster.ports[f'datanode-{worker}.data']}" for worker in hadoop.WORKERS}
    deadline = time.monotonic() + 30
    while (holders := _holders(url)) != wanted:  # a file is closed when one data node has reported its block
        assert time.monotonic() < deadline, holders
        time.sleep(0.1)


def _holders(url: str) -> set[str]:
    """The data nodes that have told the name node that they hold the one block of a file."""
    with urllib.request.urlopen(url) as answer:
        (block,) = json.load(answer)["BlockLocations"]["BlockLocation"]
    return set(block["names"])


@pytest.fixture
def restarted(cluster: hadoop.Cluster) -> Iterator[None]:
    """Afterwards what was killed runs again."""
    yield
    hadoop.up(cluster.state)


def test_writers_outlive_a_data_node_that_the_name_node_believes_alive(
    cluster: hadoop.Cluster, hdfs_folder: str, restarted: None
) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    data = np.random.default_rng(0).bytes(3 << 20)
    with fs.open(files.join(folder, "open"), "wb", block_size=1 << 20) as file:
        file.write(data[:1000])
        hadoop.kill(cluster, "datanode-2")
        began = time.monotonic()
        file.write(data[1000:])
    small = {files.join(folder, f"small {number}"): b"%d" % number for number in range(8)}
    for path, content in small.items():
        files.replace(fs, path, content)
    assert time.monotonic() - began < 30
    assert fs.cat_file(files.join(folder, "open")) == data
    assert {path: fs.cat_file(path) for path in small} == small
    assert {fs.client.get_file_info(path).replication for path in small} == {2}  # HDFS is to make the second copy


def test_a_file_that_another_run_has_dropped_is_not_made_again(
    hdfs_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    file = fs.open(files.join(folder, "file"), "wb")

    def fail(data: bytes) -> None:
        files.remove(fs, folder)
        raise OSError("connection reset by data node")

    monkeypatch.setattr(file, "_file", SimpleNamespace(write=fail))
    with pytest.raises(FileNotFoundError, match="file"), file:
        file.write(b"x")
    assert not fs.exists(folder)
    fs.makedirs(folder)


@pytest.mark.long
def test_a_file_whose_data_nodes_are_all_dead_is_a_storage_error(
    cluster: hadoop.Cluster, hdfs_folder: str, restarted: None
) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    path = files.join(folder, "file")
    files.replace(fs, path, b"x")
    for worker in hadoop.WORKERS:
        hadoop.kill(cluster, f"datanode-{worker}")
    with pytest.raises(StorageError, match="see which data nodes are up"):
        fs.cat_file(path)


def test_a_rename_replaces_and_a_missing_source_is_told(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    old, new = files.join(folder, "old"), files.join(folder, "new")
    files.replace(fs, old, b"old")
    files.replace(fs, new, b"new")
    files.rename_over(fs, new, old)
    assert fs.cat_file(old) == b"new"
    assert files.names(fs, folder) == ["old"]
    with pytest.raises(FileNotFoundError):
        files.rename_over(fs, new, old)


def test_one_of_many_creators_wins_and_its_file_is_whole(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    path, start, winners = files.join(folder, "lock"), threading.Barrier(8), []

    def create(number: int) -> None:
        start.wait()
        try:
            files.exclusive_create(fs, path, b"%d" % number * 1000)
            winners.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert fs.cat_file(path) == b"%d" % winners[0] * 1000
    assert files.names(fs, folder) == ["lock"]


def test_names_that_look_like_web_addresses_are_taken_literally(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    strange = ["a", "a#1", "a;v=2", "a?q", "a b", "ä"]
    for name in strange:
        fs.pipe_file(files.join(folder, name), name.encode())
    assert files.names(fs, folder) == sorted(strange)
    assert {name: fs.cat_file(files.join(folder, name)).decode() for name in strange} == dict(
        zip(strange, strange, strict=True)
    )
    url = files.join(hdfs_folder, "a#1")
    fs, path = files.filesystem(url)
    assert fs.cat_file(path) == b"a#1"


def test_a_forked_child_of_a_process_that_used_hdfs_ends_and_can_use_it_itself(hdfs_folder: str) -> None:
    """What the parent read last leaves a connection to a data node, which the child must not take for its own."""
    fs, folder = files.filesystem(hdfs_folder)
    path = files.join(folder, "file")
    files.replace(fs, path, b"parent")
    assert fs.cat_file(path) == b"parent"

    def child() -> None:
        fs, _ = files.filesystem(hdfs_folder)
        files.replace(fs, path, fs.cat_file(path) + b" child")

    process = multiprocessing.get_context("fork").Process(target=child)
    began = time.monotonic()
    process.start()
    process.join(timeout=60)
    ended = process.exitcode
    process.kill()
    assert ended == 0
    assert time.monotonic() - began < 20
    assert fs.cat_file(path) == b"parent child"


def test_a_parent_reads_on_while_its_children_come_and_go(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    data = os.urandom(1 << 22)
    files.replace(fs, files.join(folder, "file"), data)
    ended = threading.Event()

    def read() -> int:
        count = 0
        while not ended.is_set():
            assert fs.cat_file(files.join(folder, "file")) == data
            count += 1
        return count

    def child() -> None:
        fs, _ = files.filesystem(hdfs_folder)
        assert fs.cat_file(files.join(folder, "file")) == data

    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        reads = pool.submit(read)
        for _ in range(10):
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
            process.join(timeout=30)
            assert process.exitcode == 0
        ended.set()
        assert reads.result(timeout=30) > 0
    assert time.monotonic() - began < 40


def test_missing_folders_are_empty_and_removal_is_forgiving(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    assert files.names(fs, files.join(folder, "none")) == []
    files.remove(fs, files.join(folder, "none"))
    with pytest.raises(FileNotFoundError, match="none"):
        fs.open(files.join(folder, "none"), "rb")


def test_a_file_where_a_folder_is_to_be_is_named(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    path = files.join(folder, "_staging")
    fs.pipe_file(path, b"notes")
    with pytest.raises(StorageError, match=f"{path} is a file, but a folder is needed there: move it away"):
        files.names(fs, path)
    with pytest.raises(StorageError, match=f"{path} is a file, but a folder is needed there: move it away"):
        files.make_folder(fs, path)
    with pytest.raises(StorageError, match=r"_staging.*: move the file away that is where a folder is needed"):
        files.make_folder(fs, files.join(path, "run", "part"))


def test_parquet_is_written_in_row_groups_and_read_by_column(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    table = pa.table({"index": range(100), "image": [os.urandom(1000) for _ in range(100)]})
    path = files.join(folder, "part.parquet")
    with fs.open(path, "wb") as file, pq.ParquetWriter(file, table.schema) as writer:
        writer.write_table(table, row_group_size=40)
    with fs.open(path, "rb") as file:
        found = pq.ParquetFile(file)
        assert found.num_row_groups == 3
        assert found.read_row_group(1).equals(table.slice(40, 40))
    assert ds.dataset(folder, filesystem=fs).to_table(columns=["index"]).equals(table.select(["index"]))


def test_without_a_name_node_in_the_url_the_cluster_s_default_is_meant(hdfs_folder: str) -> None:
    fs, folder = files.filesystem(hdfs_folder)
    files.replace(fs, files.join(folder, "file"), b"x")
    default, path = files.filesystem(f"hdfs://{folder}/file")
    assert default.cat_file(path) == b"x"


def test_a_refused_write_names_the_folder_and_the_remedy_in_one_line(hdfs_folder: str) -> None:
    program = (
        "import sys; from segpipe.storage.filesystem import filesystem\n"
        "fs, path = filesystem(sys.argv[1])\n"
        "try: fs.mkdir(path + '/mine')\n"
        "except Exception as error: print(error.errno, type(error).__name__, error)"
    )
    environment = os.environ | {"HADOOP_USER_NAME": "eve"}
    done = subprocess.run(
        [sys.executable, "-c", program, hdfs_folder], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    refusal = f"StorageError HDFS refused {files.filesystem(hdfs_folder)[1]}/mine (AccessControlException"
    assert line.startswith(f"{errno.EACCES} {refusal}")
    assert "user=eve" in line
    assert line.endswith("ask the owner of the folder for access, or give a folder of your own")


def test_a_dead_name_node_is_reported_within_a_minute(dead_name_node: subprocess.Popen[str]) -> None:
    said, _ = dead_name_node.communicate(timeout=90)
    seconds, _, line = said.partition(" ")
    assert int(seconds) < 60
    assert re.match(r"HDFS refused / .*Connection refused.*HADOOP_CONF_DIR", line)


def test_a_process_that_read_tables_ends_well(hdfs_folder: str) -> None:
    """Arrow's threads, left to themselves, abort two out of five such processes while the interpreter ends."""
    program = (
        "import sys\n"
        "from segpipe.warehouse.store import Store\n"
        "print(Store(sys.argv[1]).table('runs').to_table().num_rows)"
    )
    with record_run(Store(hdfs_folder), "ingest", IngestSettings()):
        pass
    for _ in range(8):
        done = subprocess.run([sys.executable, "-c", program, hdfs_folder], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_process_whose_threads_still_read_ends_well(hdfs_folder: str) -> None:
    """Such threads, TensorFlow's for one, would come back into an interpreter that is being taken down, and abort."""
    program = (
        "import sys, threading\n"
        "from segpipe.storage import filesystem as files\n"
        "fs, path = files.filesystem(sys.argv[1])\n"
        "files.replace(fs, path + '/file', b'x' * 100_000)\n"
        "begun = threading.Event()\n"
        "def read():\n"
        "    while True:\n"
        "        fs.cat_file(path + '/file')\n"
        "        fs.ls(path)\n"
        "        begun.set()\n"
        "for _ in range(4):\n"
        "    threading.Thread(target=read, daemon=True).start()\n"
        "begun.wait()\n"
        "print('end')"
    )
    for _ in range(3):
        command = [sys.executable, "-c", program, hdfs_folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.fixture
def ha_conf(cluster: hadoop.Cluster, tmp_path: Path) -> Path:
    """The cluster's configuration under the name of a high-availability pair, of which the first name node is down."""
    folder = tmp_path / "conf"
    shutil.copytree(cluster.conf, folder)
    pair = {
        "dfs.nameservices": "archive",
        "dfs.ha.namenodes.archive": "nn1,nn2",
        "dfs.namenode.rpc-address.archive.nn1": "127.0.0.1:1",
        "dfs.namenode.rpc-address.archive.nn2": cluster.file_system.removeprefix("hdfs://"),
        "dfs.client.failover.proxy.provider.archive": (
            "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
        ),
    }
    root = ElementTree.parse(folder / "hdfs-site.xml").getroot()
    for name, value in pair.items():
        entry = ElementTree.SubElement(root, "property")
        ElementTree.SubElement(entry, "name").text = name
        ElementTree.SubElement(entry, "value").text = value
    ElementTree.ElementTree(root).write(folder / "hdfs-site.xml")
    return folder


@pytest.mark.long
def test_a_high_availability_pair_is_named_as_one(
    cluster: hadoop.Cluster, hdfs_folder: str, ha_conf: Path, glioma_archive: Path
) -> None:
    """A job reads and writes hdfs://archive while one of its two name nodes is down."""
    put(glioma_archive, f"{hdfs_folder}/source")
    named = hdfs_folder.replace(cluster.file_system, "hdfs://archive")
    words = ["ingest", "--source", f"{named}/source", "--warehouse", f"{named}/warehouse", "--cohort", "pair"]
    submit(*words, HADOOP_CONF_DIR=str(ha_conf))
    ingested = Store(f"{hdfs_folder}/warehouse").scans("pair", ["subject"])["subject"].to_pylist()
    assert sorted(ingested) == [scan.subject for scan in sources.find(str(glioma_archive)).scans]
