"""The secret of a standalone cluster comes from a file that others cannot read."""

import pytest

from segpipe.errors import UsageError
from segpipe.launch.session import _secret


def test_the_secret_is_what_the_file_holds(tmp_path):
    path = tmp_path / "secret"
    path.write_text("of the cluster\n")
    path.chmod(0o640)
    assert _secret(path) == "of the cluster"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("x", 0o644, "is open to everybody on this machine: chmod o= "),
        ("\n", 0o600, "is empty"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_file_that_will_not_do_is_told_without_its_content(tmp_path, content, mode, said):
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(UsageError, match=said):
        _secret(path)
