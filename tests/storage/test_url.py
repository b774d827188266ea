"""Which URLs are opened, and that a path means what it says."""

import sys

import pytest
from fsspec.registry import _registry

from segpipe.errors import MissingPackage, UsageError
from segpipe.storage import url_to_fs


@pytest.mark.parametrize(
    "name", ["a::b", "memory::x", "simplecache::http://host/x.nii", "zip://x::y.zip", "http:/x", "a b#c?d;e", "1://x"]
)
def test_a_path_is_taken_as_it_stands(tmp_path, name):
    fs, path = url_to_fs(f"{tmp_path}/{name}")
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as file:
        file.write(b"here")
    assert (tmp_path / name).read_bytes() == b"here"
    assert url_to_fs(f"file://{tmp_path}/{name}")[1] == path


def test_a_relative_path_with_colons_is_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert url_to_fs("simplecache::x")[1] == f"{tmp_path}/simplecache::x"


@pytest.mark.parametrize(
    "url", ["s3a://bucket/w", "s3://bucket/w", "gs://b", "abfss://c@account.dfs/w", "S3A://bucket/w"]
)
def test_object_stores_are_refused_with_the_reason(url):
    with pytest.raises(UsageError, match=r"where no rename is atomic.*: copy it to a disk or to HDFS"):
        url_to_fs(url)


@pytest.mark.parametrize("url", ["gs://b/w", "abfss://c@account.dfs/w"])
def test_object_stores_but_s3_are_refused_to_readers_too(url):
    with pytest.raises(UsageError, match="where no rename is atomic"):
        url_to_fs(url, to_read=True)


def test_a_job_that_is_given_a_bucket_hears_who_may_read_there():
    with pytest.raises(UsageError, match=r"open_warehouse reads tables there\): copy it to a disk or to HDFS"):
        url_to_fs("s3://bucket/w")


@pytest.mark.parametrize(("url", "match"), [("s3:///w", "names no bucket"), ("s3://host:9000/b/w", "AWS_ENDPOINT_URL")])
def test_a_url_without_a_bucket_is_refused(url, match):
    with pytest.raises(UsageError, match=match):
        url_to_fs(url, to_read=True)


def test_a_key_in_the_url_of_a_bucket_is_refused_and_not_told():
    with pytest.raises(UsageError, match="holds a key") as refusal:
        url_to_fs("s3://key:secret@bucket/w", to_read=True)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["http://host/x", "ftp://host/x", "reference://x", "s9://x", "viewfs://c/x", "github://a:b@c"]
)
def test_what_is_not_known_is_refused(url):
    with pytest.raises(UsageError, match="is not supported: give a path, or a URL of file:// or hdfs://"):
        url_to_fs(url)


def test_a_refusal_tells_no_secret():
    with pytest.raises(UsageError) as refusal:
        url_to_fs("s3a://key:secret@bucket/w")
    assert "secret" not in str(refusal.value)
    assert "s3a://bucket/w" in str(refusal.value)


def test_hdfs_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.delitem(_registry, "hdfs", raising=False)  # as in a Python that has opened no HDFS
    monkeypatch.delitem(sys.modules, "segpipe.storage.hdfs", raising=False)
    monkeypatch.setitem(sys.modules, "hdfs_native", None)
    with pytest.raises(MissingPackage, match=r"hdfs_native is not installed: pip install 'segpipe\[hdfs\]'"):
        url_to_fs("hdfs://namenode/tables")
