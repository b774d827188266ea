"""What a person sees of long work."""

import io

from segpipe.pipelines.progress import watch


def test_told_lines_stay_and_come_in_order_without_a_terminal():
    stream = io.StringIO()
    with watch(None, 2, "train", stream) as bar:
        bar.advance()
        bar.tell("epoch 1 of 2  loss 0.5")
        bar.advance()
        bar.tell("epoch 2 of 2  loss 0.4")
    assert stream.getvalue().splitlines() == ["train: epoch 1 of 2  loss 0.5", "train: epoch 2 of 2  loss 0.4"]


def test_told_lines_stay_above_the_bar_of_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with watch(None, 2, "train", stream) as bar:
        bar.tell("epoch 1 of 2  [loss] 0.5")
    assert "epoch 1 of 2  [loss] 0.5" in stream.getvalue()


def test_what_an_earlier_run_has_done_is_counted():
    stream = io.StringIO()
    with watch(None, 5, "train", stream) as bar:
        bar.begin_at(3)
        bar.advance()
        assert str(bar) == "train: 4 of 5"
