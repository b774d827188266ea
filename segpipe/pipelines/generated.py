"""An archive of generated scans, written by Spark's tasks, or by the driver where these do not share its disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from segpipe.pipelines.progress import Progress
from segpipe.readers.generate import subject_id, write_subject
from segpipe.storage import filesystem as files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def write_archive(
    spark: SparkSession, url: str, subjects: int, seed: int, shape: tuple[int, int, int], progress: Progress
) -> None:
    """Write `subjects` scans of `shape` (slices, rows, columns) in BraTS layout; what is there already is kept.

    The files depend on `seed` and `shape` alone. Raises OSError if the folder cannot be written.
    """
    fs, path = files.filesystem(url)
    here = files.is_local(fs)
    folder, write = (path, write_subject) if here else (url, write_there)
    with progress(subjects, "generate") as bar:
        if not here or spark.sparkContext.master.startswith("local"):
            tasks = spark.sparkContext.parallelize(range(subjects), subjects)
            tasks.foreach(lambda index: write(folder, seed, index, shape))
        else:
            for index in range(subjects):
                write(folder, seed, index, shape)
                bar.advance()


def write_there(url: str, seed: int, index: int, shape: tuple[int, int, int]) -> str:
    """Write one scan below a URL, unless it is there; its folder appears with all of its files at once.

    Gives the subject's id.
    """
    fs, root = files.filesystem(url)
    subject = subject_id(seed, index)
    if fs.exists(files.join(root, subject)):
        return subject
    with tempfile.TemporaryDirectory(prefix="segpipe-demo-") as scratch:
        write_subject(scratch, seed, index, shape)
        with files.folder_aside(fs, files.join(root, subject)) as draft:
            for path in Path(scratch, subject).iterdir():
                fs.pipe_file(files.join(draft, path.name), path.read_bytes())
    return subject
