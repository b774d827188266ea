"""Files of other packages: where they are, and what is said before a scan is read if they are missing."""

import importlib.util
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

import jobs.ingest
import jobs.segment
from segpipe.errors import MissingPackage, NotFound
from segpipe.prepare import shipped
from segpipe.prepare.scan import check_installed
from segpipe.settings import IngestSettings, SegmentSettings

ROOT = Path(__file__).resolve().parents[2]


def test_the_versions_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements-data.lock").read_text("utf-8")
    assert dict(re.findall(r"(?m)^(\w+)==(\S+)", lock)) == shipped.VERSIONS


def test_nothing_is_missing_here() -> None:
    check_installed()


@pytest.fixture
def no_deepbet(monkeypatch: pytest.MonkeyPatch) -> str:
    """deepbet is not installed; gives what is to be said of that."""
    found = metadata.distribution

    def without(name: str) -> metadata.Distribution:
        if name == "deepbet":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(shipped, "distribution", without)
    remedy = "run `make setup` in a checkout, or pip install --no-deps deepbet==1.0.2"
    return re.escape(f"Package deepbet is not installed: {remedy}")


def test_ingest_tells_a_missing_package_before_it_starts(tmp_path: Path, no_deepbet: str) -> None:
    settings = IngestSettings(str(tmp_path), str(tmp_path / "w"), "c", layout="plain")
    jobs.ingest.check(settings)
    with pytest.raises(NotFound, match=no_deepbet):
        jobs.ingest.check(replace(settings, prepare=True))


def test_segment_tells_it_if_it_prepares_scans_itself(
    tmp_path: Path, no_deepbet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.segment, "check_model", lambda url, expected: None)
    (tmp_path / "scans").mkdir()
    settings = SegmentSettings(str(tmp_path), "c", "m", source=str(tmp_path / "scans"), prepare=True)
    with pytest.raises(NotFound, match=no_deepbet):
        jobs.segment.check(settings)
    jobs.segment.check(replace(settings, prepare=False))


def test_a_module_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    finds = importlib.util.find_spec
    monkeypatch.setattr(shipped, "find_spec", lambda name: None if name == "openvino" else finds(name))
    with pytest.raises(MissingPackage, match=re.escape("pip install 'segpipe[openvino]'")):
        check_installed()
