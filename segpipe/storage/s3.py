"""A bucket of an object store that speaks S3, to be read and never written: Arrow's own client under fsspec.

Keys, region and endpoint are those of every other program of the user: `AWS_PROFILE`, `AWS_ACCESS_KEY_ID` and
`AWS_SECRET_ACCESS_KEY`, a role of the machine, and `AWS_ENDPOINT_URL` for a store that is not Amazon's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from fsspec.implementations.arrow import ArrowFSWrapper

from segpipe.errors import StorageError, UsageError
from segpipe.storage import READ_ONLY, on_object_store

_AWS_ERROR = re.compile(
    r"AWS Error (?P<kind>\w+(?: \(HTTP status \d+\))?)(?: during \w+ operation)?(?:: (?P<words>.*))?", re.DOTALL
)
_REMEDIES = {
    "ACCESS_DENIED": "give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, that may list and read there",
    "NETWORK_CONNECTION": "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's",
    "NO_SUCH_BUCKET": "check the name of the bucket, and AWS_ENDPOINT_URL where the store is not Amazon's",
}
_REMEDIES |= dict.fromkeys(("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"), _REMEDIES["ACCESS_DENIED"])


class S3(ArrowFSWrapper):
    """The `s3://` of segpipe: keys are taken literally, nothing is written, errors are one line with a remedy."""

    protocol = "s3"
    cachable = False  # who has given other keys since an error gets another client

    def __init__(self, bucket: str, **options: Any):
        """Make a client for one bucket, whose region is asked for where the store is Amazon's."""
        try:
            from pyarrow.fs import S3FileSystem
        except ImportError:
            raise StorageError("This Python's pyarrow has no S3", "pip install --force-reinstall pyarrow") from None
        with one_line(f"s3://{bucket}"):
            client, _ = S3FileSystem.from_uri(f"s3://{quote(bucket)}")
        super().__init__(client, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """Bucket and key of a URL; `#`, `?` and `;` are letters of a key, as in `segpipe.storage.hdfs`."""
        return path.partition("://")[2].rstrip("/") if path.startswith(READ_ONLY) else path.rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        bucket = path.partition("://")[2].partition("/")[0]
        if "@" in bucket:
            problem = f"The URL of bucket {bucket.rpartition('@')[2]} holds a key, which notebooks and logs would show"
            raise UsageError(problem, "give it by AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if not bucket or ":" in bucket:
            raise UsageError(f"{path} names no bucket", "write s3://BUCKET/FOLDER, and the host into AWS_ENDPOINT_URL")
        return {"bucket": bucket}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What the store knows of an object, or of the folder that keys below it make."""
        with one_line(f"s3://{path}"):
            return dict(super().info(path, **kwargs))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The entries of a folder, those of this moment."""
        with one_line(f"s3://{path}"):
            return list(super().ls(path, detail, **kwargs))

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise on_object_store(f"s3://{path}")
        with one_line(f"s3://{path}"):
            return self.fs.open_input_file(path)

    def _refuse(self, path: str, *_: Any, **__: Any) -> None:
        """Every operation that changes something."""
        raise on_object_store(f"s3://{path}")

    mkdir = makedirs = rmdir = rm = rm_file = mv = cp_file = _refuse


@contextmanager
def one_line(where: str) -> Iterator[None]:
    """Raise what the store refuses as StorageError; that something is missing stays FileNotFoundError."""
    try:
        yield
    except OSError as error:
        if known := refusal(where, error):
            raise known from None
        raise


def refusal(where: str, error: OSError) -> StorageError | None:
    """What an object store has said, in one line; None where the error is another's."""
    found = _AWS_ERROR.search(str(error))
    if not found:
        return None
    said = " ".join((found["words"] or "").partition("(Request ID")[0].split()).rstrip(".")
    why = f"{found['kind']}: {said[:200]}" if said else found["kind"]
    remedy = _REMEDIES.get(found["kind"], "try again, or ask whoever runs the object store")
    return StorageError(f"{where} cannot be read ({why})", remedy)
