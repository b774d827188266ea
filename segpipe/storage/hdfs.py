"""HDFS for Python workers: hdfs-native under fsspec, without libhdfs and without a JVM.

The cluster's own configuration files (HADOOP_CONF_DIR) name the file system, its high-availability pairs and its
security; in a YARN container the delegation tokens of the job are used. See docs/how-to/hadoop.md.
"""

from __future__ import annotations

import errno
import io
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from hdfs_native import FileReader, WriteOptions
from hdfs_native.fsspec import HdfsFileSystem

from segpipe.errors import StorageError
from segpipe.storage import modes
from segpipe.storage.native import Guarded, watched

_REMEDIES = {
    "SafeModeException": "wait until the name node has left safe mode (`hdfs dfsadmin -safemode get` tells)",
    "NSQuotaExceededException": "delete files below that folder or ask the administrator for a larger name quota",
    "DSQuotaExceededException": "delete files below that folder or ask the administrator for a larger space quota",
    "AccessControlException": "ask the owner of the folder for access, or give a folder of your own",
    "ParentNotDirectoryException": "move the file away that is where a folder is needed",
    "No fs.defaultFS": "let HADOOP_CONF_DIR name the folder of the cluster's core-site.xml, or write hdfs://host:port/",
    "StandbyException": "let HADOOP_CONF_DIR name the high-availability pair instead of one name node",
    "DataTransferError": "see which data nodes are up (`hdfs dfsadmin -report`)",
}
_AS_ON_A_DISK = {
    "SafeModeException": errno.EROFS,
    "NSQuotaExceededException": errno.EDQUOT,
    "DSQuotaExceededException": errno.EDQUOT,
    "AccessControlException": errno.EACCES,
}
# Fifteen attempts, the default, are three minutes of silence before a dead name node is reported; these are 40 s.
_PATIENCE = {"dfs.client.failover.max.attempts": "6"}
# A name node with the default settings goes on naming a dead data node for ten minutes and a half.
_DEAD_NODE_SECONDS = 720.0
_LONGEST_PAUSE_SECONDS = 1.0
_KEPT_IN_MEMORY = 8 << 20
_MOST_KEPT = 1 << 30
_UNREACHABLE = "check HADOOP_CONF_DIR and that the name node is up (./spark-submit.sh doctor)"
_NO_TICKET = "kinit, or give --principal and --keytab before the job's name"
_GSSAPI_ERROR = re.compile(r'GSSAPIError\(.*"(?P<message>[^"]*)"\)+$', re.DOTALL)
_RPC_ERROR = re.compile(r'^RPCError\("(?P<type>[\w.$]+)", "(?P<message>.*)"\)$', re.DOTALL)


class Hdfs(HdfsFileSystem):
    """The `hdfs://` of segpipe: paths are taken literally, a rename replaces, errors are one line with a remedy."""

    protocol = "hdfs"

    def __init__(self, host: str | None = None, port: int | None = None, **options: Any):
        """Connect by the cluster's configuration; `options` are Hadoop settings that come before its files."""
        with _one_line(f"hdfs://{host or ''}{f':{port}' if port else ''}"), watched() as clients:
            super().__init__(host, port, **(_PATIENCE | options))
            clients.append(self.client.inner)
        self.client.inner = cast(Any, Guarded(self.client.inner))

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        """The path of a URL; unlike in a web address, `#`, `?` and `;` are letters of a file's name."""
        if path.startswith("hdfs://"):
            path = path.removeprefix("hdfs://").partition("/")[2]
            return "/" + path.rstrip("/")
        return path.rstrip("/") or "/"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        host, _, port = path.removeprefix("hdfs://").partition("/")[0].partition(":")
        return {"host": host or None, "port": int(port) if port else None}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What the name node knows of a file or folder."""
        with _one_line(path):
            return super().info(path, **kwargs)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The entries of a folder."""
        with _one_line(path):
            return super().ls(path, detail, **kwargs)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a folder and those above it."""
        with _one_line(path):
            super().mkdir(path, create_parents, **({"permission": modes.folder_mode()} | kwargs))

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Rename in one step, over a file that may be there already: readers see the one or the other."""
        with _one_line(path1):
            super().mv(path1, path2, **({"overwrite": True} | kwargs))

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete a file, or a folder with all that is in it."""
        with _one_line(path):
            super().rm(path, recursive, maxdepth)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a whole file; with mode `create` it appears complete, or FileExistsError is raised."""
        if mode != "create":
            super().pipe_file(path, value, mode, **kwargs)
            return
        draft = f"{self._strip_protocol(path)}.{uuid.uuid4().hex}.draft"
        super().pipe_file(draft, value)
        try:
            self.mv(draft, path, overwrite=False)
        except BaseException:
            with suppress(Exception):
                self.rm(draft)
            raise

    def _open(
        self,
        path: str,
        mode: str = "rb",
        overwrite: bool = True,
        replication: int | None = None,
        block_size: int | None = None,
        **_: Any,
    ) -> Any:
        if mode == "wb":
            options = WriteOptions(
                block_size=block_size,
                replication=replication,
                permission=modes.file_mode(),
                overwrite=overwrite,
            )
            return _Writer(self.client, self._strip_protocol(path), options)
        with _one_line(path):
            file = super()._open(path, mode)
        if not isinstance(file, FileReader):
            return file
        reader = _Reader(path, file)
        return io.BufferedReader(reader, block_size) if block_size else reader


class _Reader(FileReader):
    """A file being read that raises StorageError where no data node gives what it holds."""

    def __init__(self, path: str, file: FileReader):
        super().__init__(file.inner)
        self._path = path

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place and tell where that is, as other files do."""
        super().seek(offset, whence)
        return int(self.tell())

    def read(self, size: int = -1) -> bytes:
        with _one_line(self._path):
            return super().read(size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes: what reading in steps asks for."""
        content = self.read(memoryview(buffer).nbytes)
        memoryview(buffer)[: len(content)] = content
        return len(content)

    def read_range(self, offset: int, len: int) -> bytes:
        with _one_line(self._path):
            return super().read_range(offset, len)


class _Writer(io.RawIOBase):
    """A file being written that knows how far it is, as Parquet writers ask, that closes once, and outlives data nodes.

    hdfs-native writes to the data nodes that the name node names and gives up where one of them is dead, of which the
    name node learns minutes later. So what was written is kept, up to a GB, and written again when a node fails: as one
    copy, for which the name node may choose any node, and of which HDFS makes the others. A file that was deleted or
    renamed meanwhile is not made again: FileNotFoundError.
    """

    def __init__(self, client: Any, path: str, options: WriteOptions):
        self._client = client
        self._path = path
        self._options = options
        self._copies: int | None = None
        self._failure: Exception | None = None
        self._written = 0
        self._file: Any = None
        self._kept: Any = tempfile.SpooledTemporaryFile(_KEPT_IN_MEMORY)  # noqa: SIM115 (closed with the file)
        with _one_line(path):
            self._file = self._create()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        count = memoryview(data).nbytes
        self._written += count
        if self._written > _MOST_KEPT:
            self._let_go()
        elif self._kept is not None:
            self._kept.write(data)
        self._do(lambda file: file.write(data), self._repeat)
        return count

    def tell(self) -> int:
        return self._written

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._file is not None:  # one that could not be written is not completed either
                self._do(lambda file: file.close(), self._repeat_to_the_end)
            if self._file is not None and self._copies is not None:
                with _one_line(self._path):
                    self._client.set_replication(self._path, self._copies)
        finally:
            self._let_go()
            super().close()

    def _do(self, step: Callable[[Any], Any], again: Callable[[Any], Any]) -> None:
        """Do `step` with the file or, whenever a data node has failed, `again` with a new one in its place."""
        deadline, pause = time.monotonic() + _DEAD_NODE_SECONDS, 0.1
        with _one_line(self._path):
            if self._file is None and self._failure is not None:
                raise self._failure
            while True:
                try:
                    step(self._file)
                    return
                except (OSError, RuntimeError) as error:
                    self._file, self._failure = None, error
                    if self._kept is None or time.monotonic() > deadline or not _is_of_a_data_node(error):
                        raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                self._file, step = self._create_again(), again

    def _create(self) -> Any:
        """The native file: the one that hdfs-native gives to others tries to complete itself, for 15 s, when let go."""
        return self._client.inner.create(self._path, self._options)

    def _create_again(self) -> Any:
        copies = self._client.get_file_info(self._path).replication
        self._copies = self._copies or copies
        # Each block is another chance to be sent to the dead node: few large ones.
        self._options.overwrite, self._options.replication, self._options.block_size = True, 1, None
        return self._create()

    def _repeat(self, file: Any) -> None:
        self._kept.seek(0)
        shutil.copyfileobj(self._kept, file, _KEPT_IN_MEMORY)

    def _repeat_to_the_end(self, file: Any) -> None:
        self._repeat(file)
        file.close()

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
        self._kept = None


def _is_of_a_data_node(error: Exception) -> bool:
    """Whether a write failed at a data node, and not because the name node refused it."""
    if isinstance(error, OSError):
        return not isinstance(error, FileNotFoundError | FileExistsError)
    return str(error).startswith(("DataTransferError", "OperationFailed"))


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Raise what the name node refuses as a builtin error or StorageError, without its Java stack trace."""
    try:
        yield
    except (FileNotFoundError, FileExistsError) as error:
        raise type(error)(f"{_first_line(str(error)) or path} (HDFS)") from None
    except (OSError, RuntimeError) as error:
        raise _storage_error(path, str(error)) from None


def _first_line(text: str) -> str:
    return text.replace("\\n", "\n").replace('\\"', '"').partition("\n")[0].strip()


def _storage_error(path: str, text: str) -> StorageError:
    if unknown := _GSSAPI_ERROR.search(text):
        return StorageError(f"HDFS asks for Kerberos at {path} ({unknown['message']})", _NO_TICKET)
    refused = _RPC_ERROR.match(text)
    kind = refused["type"].rpartition(".")[2] if refused else next((name for name in _REMEDIES if name in text), "")
    message = _first_line(refused["message"] if refused else text)
    remedy = _REMEDIES.get(kind, _UNREACHABLE)
    error = StorageError(f"HDFS refused {path} ({kind + ': ' if refused else ''}{message})", remedy)
    error.errno = _AS_ON_A_DISK.get(kind)
    return error
