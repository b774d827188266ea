"""What the tests of the report share."""

import shutil
from pathlib import Path

import pytest

from segpipe.report import build
from tests.report.small_warehouse import COHORT, Results, generate, write_results

NOTE = "Synthetic scans: generated, no patient."
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Six tiny cases, three of them in the test split (0, 10, 13), one of those (13) segmented empty."""
    cases = [generate(7, number, (14, 40, 36)) for number in (0, 1, 2, 5, 10, 13)]
    return write_results(tmp_path_factory.mktemp("results"), cases)


@pytest.fixture(scope="session")
def page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return Path(build(str(results.warehouse), COHORT, str(results.model), output, note=NOTE))


@pytest.fixture
def browser(tmp_path: Path) -> list[str]:
    """The command line of a headless browser without network; the test is skipped where there is none."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine: Debian has it as the package chromium")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --hide-scrollbars --force-color-profile=srgb"
    return [BROWSER, *flags.split(), *more.split(), f"--user-data-dir={tmp_path / 'profile'}"]
