"""What the tests of the notebook's face share."""

import pytest

import segpipe
from segpipe.analysis import Warehouse
from tests.report.small_warehouse import Results, generate, write_results


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Four tiny cases; of subject 1 there are two sessions."""
    cases = [generate(7, number, (10, 24, 20)) for number in (0, 10, 13)]
    cases += [generate(7, 1, (10, 24, 20), session) for session in ("2019", "2020")]
    return write_results(tmp_path_factory.mktemp("analysis"), cases)


@pytest.fixture
def opened(results: Results) -> Warehouse:
    return segpipe.open_warehouse(str(results.warehouse))
