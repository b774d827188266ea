"""A quick test that is none is found out."""

import pytest

from tests import tiers

pytest_plugins = ["pytester"]

QUICK_AND_NOT = """
    import subprocess, sys
    import pytest

    def test_quick():
        assert sum([1, 2]) == 3

    def test_starts_a_program():
        subprocess.run(["true"], check=True)

    @pytest.mark.process
    def test_says_so():
        subprocess.run(["true"], check=True)
"""


@pytest.mark.process
def test_a_program_in_a_quick_test_fails_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from tests import tiers

        def pytest_configure(config):
            config.addinivalue_line("markers", "process: starts a program")
            config.pluginmanager.register(tiers.Guard())
        """
    )
    pytester.makepyfile(QUICK_AND_NOT)
    outcome = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist")
    outcome.assert_outcomes(passed=1, failed=2)
    outcome.stdout.fnmatch_lines(["*this test is no quick one (subprocess.Popen)*"])


@pytest.mark.parametrize(
    ("path", "ignored"),
    [("tests/trainers/test_feed.py", True), ("tests/core/test_splits.py", False), ("segpipe/trainers/feed.py", False)],
)
def test_rooms_that_import_tensorflow_are_not_looked_at(path: str, ignored: bool, pytestconfig: pytest.Config) -> None:
    assert tiers.is_ignored(pytestconfig.rootpath / path, pytestconfig.rootpath) is ignored
