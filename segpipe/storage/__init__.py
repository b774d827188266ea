"""The file system behind a URL, the same for every room: file://, hdfs://, s3a:// and whatever else fsspec knows."""

from fsspec import AbstractFileSystem, register_implementation
from fsspec.core import url_to_fs as _url_to_fs

# hdfs:// without libhdfs and with segpipe's guarantees; loaded when such a URL is met.
register_implementation("hdfs", "segpipe.storage.hdfs.Hdfs", clobber=True)


def url_to_fs(url: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of a URL or path, and the path inside it."""
    if url.startswith("s3a://"):
        url = "s3://" + url.removeprefix("s3a://")
    return _url_to_fs(url)
