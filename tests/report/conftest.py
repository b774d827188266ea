"""What the tests of the report share."""

import pytest

from tests.report.small_warehouse import Results, generate, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Six tiny cases, three of them in the test split (0, 10, 13), one of those (13) segmented empty."""
    cases = [generate(7, number, (14, 40, 36)) for number in (0, 1, 2, 5, 10, 13)]
    return write_results(tmp_path_factory.mktemp("results"), cases)
