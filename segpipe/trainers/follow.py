"""A training as a person sees it: each epoch in a line."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segpipe.trainers.contract import TrainPlan

_POLL_SECONDS = 1.0
_RECENT_EPOCHS = 5  # the time left is told from these


@contextmanager
def followed(plan: "TrainPlan", progress: Any, title: str) -> Iterator[Callable[[str], None]]:
    """Show each epoch when it stands in history.csv: workers on other machines have no other way to tell."""
    from segpipe.storage.model_directory import read_history

    if progress is None or plan.finished:
        yield lambda line: None
        return
    stop = threading.Event()
    shown = plan.initial_epoch
    with progress(plan.epochs, title) as bar:
        bar.begin_at(shown)

        def show() -> None:
            nonlocal shown
            rows = read_history(plan.settings.model)
            for place in range(shown, len(rows)):
                bar.advance()
                bar.tell(epoch_line(rows[: place + 1], plan.epochs, plan.coarse_epochs))
            shown = max(shown, len(rows))

        def follow() -> None:
            while not stop.wait(_POLL_SECONDS):
                show()

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield bar.tell
        finally:
            stop.set()
            thread.join()
            show()


def epoch_line(rows: Sequence[Mapping[str, float]], epochs: int, coarse_epochs: int = 0) -> str:
    """The last epoch of a history in a line: loss, validation Dice per region, speed, and how long the rest takes."""
    row = rows[-1]
    scores = [
        f"{name.removeprefix('dice_')} {value:.3f}"
        for name, value in row.items()
        if name.startswith("dice_") and value == value
    ]
    dice = f"  Dice {', '.join(scores)}" if scores else ""
    done = len(rows)
    recent = range(max(0, done - _RECENT_EPOCHS), done)
    seconds = sum(rows[epoch]["seconds"] + rows[epoch]["validation_seconds"] for epoch in recent)
    seconds *= _pixels(range(done, epochs), coarse_epochs) / _pixels(recent, coarse_epochs)
    left = f"  {_duration(seconds)} left" if done < epochs else ""
    speed = f"{row['images_per_second']:.3g} images/s"
    return f"epoch {done} of {epochs}  loss {row['loss']:.3f}{dice}  {speed}{left}"


def _pixels(epochs: range, coarse_epochs: int) -> int:
    """How many pixels some epochs show, in units of what a coarse one does."""
    return sum(1 if epoch < coarse_epochs else 4 for epoch in epochs)


def _duration(seconds: float) -> str:
    """About how long, in the unit that a person would take.

    >>> _duration(42), _duration(600), _duration(20_000)
    ('42 s', '10 min', '5.6 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
