"""What a training leaves for people to follow it by."""

from pathlib import Path

import pytest

from segpipe.errors import StorageError, TableError
from segpipe.trainers import reason_of
from segpipe.trainers.events import write_events
from segpipe.trainers.follow import epoch_line
from segpipe.trainers.records import take_failure, telling

ROW = {
    "epoch": 1,
    "loss": 0.5,
    "learning_rate": 0.001,
    "images_per_second": 41.23,
    "seconds": 60.0,
    "dice_lesion": 0.75,
    "dice_core": float("nan"),
    "validation_seconds": 20.0,
}


@pytest.mark.parametrize("url", ["{}/model", "file://{}/model"])
def test_tensorboard_reads_every_epoch(tmp_path: Path, url: str):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epoch in (1, 2, 10, 2):  # epoch 2 is done again, as after a kill
        write_events(url.format(tmp_path), ROW | {"epoch": epoch, "loss": 1 / epoch})
    events = EventAccumulator(str(tmp_path / "model" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "learning_rate", "speed/images_per_second", "dice/lesion"}
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 1.0),
        (2, 0.5),
        (10, pytest.approx(0.1)),
    ]
    assert [event.value for event in events.Scalars("dice/lesion")] == [0.75] * 3


def test_an_epoch_in_a_line_with_the_time_left():
    assert epoch_line([ROW], 31) == "epoch 1 of 31  loss 0.500  Dice lesion 0.750  41.2 images/s  40 min left"
    assert epoch_line([ROW, ROW | {"seconds": 0.0, "validation_seconds": 0.0}], 3).endswith("  40 s left")
    assert epoch_line([ROW], 4, coarse_epochs=2).endswith("  12 min left")  # 1, and 2 of four times the pixels
    assert epoch_line([ROW, ROW, ROW], 4, coarse_epochs=2).endswith("  3 min left")
    assert epoch_line([ROW], 1) == "epoch 1 of 1  loss 0.500  Dice lesion 0.750  41.2 images/s"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Horovod detected that one or more processes exited", "Horovod detected that one or more processes exited"),
        (
            "Job aborted\nTraceback (most recent call last):\n  File 'a'\nKeyError: 1\n\n"
            "Traceback (most recent call last):\n  File 'b'\nValueError: bad cell\n\n\tat org.apache.spark",
            "ValueError: bad cell",
        ),
        ("", "RuntimeError"),
        ("Job aborted: " + 30 * "barrier ", "Job aborted: " + 23 * "barrier " + "ba…"),
    ],
    ids=["without a trace", "the last trace", "nothing said", "too long"],
)
def test_why_workers_failed_in_a_line(text: str, reason: str):
    assert reason_of(RuntimeError(text)) == reason


def test_our_reasons_are_told_to_the_driver_and_those_of_storage_are_not(tmp_path: Path):
    url = str(tmp_path / "model")
    with pytest.raises(StorageError), telling(url):
        raise StorageError("HDFS is in safe mode", "wait")
    assert take_failure(url) is None
    with pytest.raises(TableError), telling(url):
        raise TableError("Slices are damaged", "ingest again")
    assert str(take_failure(url)) == "Slices are damaged: ingest again"
    assert take_failure(url) is None
