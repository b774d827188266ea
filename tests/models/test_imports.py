"""TensorFlow is imported without looking for garbage."""

import gc
import sys

import pytest

from segpipe.models import imports


@pytest.fixture
def thawed():
    """What a test froze is looked through again."""
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_not_looked_for_while_tensorflow_is_imported(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    before = gc.get_freeze_count()
    try:
        with imports():
            assert not gc.isenabled()
            if fails:
                raise ImportError
    except ImportError:
        assert fails
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_a_second_import_freezes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a long process would keep for ever what each of its trainings left behind."""
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    before = gc.get_freeze_count()
    with imports():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
