"""A training's curves for TensorBoard: one small event file per epoch, on any file system.

TensorBoard's own writer appends to one open file, which object stores do not do and which a killed worker leaves
broken. But TensorBoard reads all event files of a folder in the order of their names, so an epoch is a file of its own,
there whole or not at all, and the same one again when the epoch is done again.
"""

import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from segpipe.storage.filesystem import filesystem, join, replace

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

FOLDER = "tensorboard"
_TAGS = {"loss": "loss", "learning_rate": "learning_rate", "images_per_second": "speed/images_per_second"}
_DICE = "dice_"


def write_events(model_url: str, row: dict[str, Any]) -> None:
    """Put the event file of an epoch in place, from its row of history.csv: each scalar at step `epoch`."""
    fs, folder = filesystem(model_url)
    folder = join(folder, FOLDER)
    fs.makedirs(folder, exist_ok=True)
    replace(fs, join(folder, f"events.out.tfevents.{row['epoch']:010}.segpipe"), event_bytes(row, time.time()))


def event_bytes(row: dict[str, Any], wall_time: float) -> bytes:
    """The event file of an epoch; Dice where nothing was validated (NaN) is left out."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(row) if value == value]
    version = Event(wall_time=wall_time, file_version="brain.Event:2")
    return _record(version) + _record(Event(wall_time=wall_time, step=row["epoch"], summary=Summary(value=values)))


def _scalars(row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name in _TAGS:
            yield _TAGS[name], value
        elif name.startswith(_DICE):
            yield f"dice/{name.removeprefix(_DICE)}", value


def _record(event: "Event") -> bytes:
    """An event in the framing of a TFRecord: length, its checksum, data, its checksum."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
