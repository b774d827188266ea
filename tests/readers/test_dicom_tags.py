"""The fast walk over a header gives what pydicom gives, on every real DICOM file and on generated ones."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from segpipe.readers.archive import Entry
from segpipe.readers.dicom_index import Reducer, header
from segpipe.readers.dicom_tags import Elements, _Layout, _Unusual, is_dicom, parsed, read, walked
from segpipe.readers.series import alone
from tests.readers.hospital import studies, write

BIG_ENDIAN = ("MR_small_bigendian.dcm", "MR_small_expb.dcm")


def test_every_real_header_is_walked_as_pydicom_reads_it(real_data: Path) -> None:
    walked_files = 0
    for path in sorted((real_data / "odd").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        content = gzip.decompress(content) if path.name.endswith(".dcm.gz") else content
        if not is_dicom(content[:200]):
            continue
        theirs = parsed(io.BytesIO(content), path.name)
        assert read(io.BytesIO(content), path.name) == theirs, path.name
        if path.name not in BIG_ENDIAN:
            assert walked(content, whole=True) == theirs, path.name
            walked_files += 1
    assert walked_files >= 20


SIEMENS = (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "1000")
GE = (0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000001000", "8", "0", "0"])
PHILIPS = (0x2001, "Philips Imaging DD 001", 0x03, "FL", 1000.0)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("vendor", "private"),
    [("SIEMENS", SIEMENS), ("GE MEDICAL SYSTEMS", GE), ("Philips Medical Systems", PHILIPS)],
    ids=["Siemens", "GE", "Philips"],
)
def test_private_b_values(tmp_path: Path, syntax: str, vendor: str, private: tuple[int, str, int, str, Any]) -> None:
    write(tmp_path, studies()[0].only("dwi"))
    image = pydicom.dcmread(tmp_path / "00003")
    group, creator, element, kind, value = private
    image.private_block(group, creator, create=True).add_new(element, kind, value)
    image.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", bytes(40000))
    image.private_block(0x2005, "behind", create=True).add_new(0x10, "LO", "never read")
    image.Manufacturer, image.SeriesDescription = vendor, "Hirn"
    image.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    entry = Entry("a", len(buffer.getvalue()), "")
    found = header(io.BytesIO(buffer.getvalue()), entry)
    assert found is not None
    assert found.elements == parsed(io.BytesIO(buffer.getvalue()), "a")
    reducer = Reducer(b"key")
    reducer.add(found)
    (series,) = reducer.series()
    assert series.facts.b_values == (1000.0,)
    assert (alone(series).decision, alone(series).reason) == ("excluded", "diffusion")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_of_any_length_are_stepped_over(tmp_path: Path, syntax: str, undefined: bool) -> None:
    write(tmp_path, studies()[0])
    image = pydicom.dcmread(tmp_path / "00010")
    inner, outer = Dataset(), Dataset()
    inner.SeriesDescription, inner.Rows = "not the one of the image", 7
    outer.ReferencedImageSequence, outer.EchoTime = [inner], 1.0
    image.ReferencedImageSequence = [outer, outer]
    image["ReferencedImageSequence"].is_undefined_length = undefined
    outer.is_undefined_length_sequence_item = inner.is_undefined_length_sequence_item = undefined
    image.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    found = walked(buffer.getvalue(), whole=True)
    assert isinstance(found, Elements)
    assert found == parsed(io.BytesIO(buffer.getvalue()), "a")
    assert (found.text("SeriesDescription"), found.number("Rows")) == (image.SeriesDescription, 6.0)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(
    ("meaning", "tag", "agent"),
    [
        ("Gadoterate meglumine", None, True),
        (None, None, None),  # no item
        ("", None, None),
        ("Gadobutrol", "NONE GIVEN", False),
        ("Gadobutrol", "brak", False),
        ("Gadobutrol", "zadna KL", False),
        (None, "0 ml", False),
        (None, "0.1 mmol/kg Gadavist", True),
    ],
)
def test_an_agent_is_read_of_its_tag_or_its_sequence(
    tmp_path: Path, syntax: str, undefined: bool, meaning: str | None, tag: str | None, agent: bool | None
) -> None:
    content = with_agent(tmp_path, syntax, undefined, meaning, tag)
    found = header(io.BytesIO(content), Entry("a", len(content), ""))
    assert found is not None
    assert found.elements == walked(content, whole=True) == parsed(io.BytesIO(content), "a")
    reducer = Reducer(b"key")
    reducer.add(found)
    assert reducer.series()[0].facts.agent is agent


def with_agent(folder: Path, syntax: str, undefined: bool, meaning: str | None, tag: str | None) -> bytes:
    """A T1 whose agent stands in a sequence, after whose name another sequence stands, or in its own tag."""
    write(folder, studies()[0].only("t1 ax"))
    image = pydicom.dcmread(folder / "00000")
    items = []
    if meaning is not None:
        code, route = Dataset(), Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-B03A", "SRT", meaning
        route.CodeValue, route.CodingSchemeDesignator, route.CodeMeaning = "47625008", "SCT", "Intravenous route"
        code.ContrastBolusAdministrationRouteSequence = [route]
        items = [code]
        for one in (code, route):
            one.is_undefined_length_sequence_item = undefined
        code["ContrastBolusAdministrationRouteSequence"].is_undefined_length = undefined
    image.ContrastBolusAgentSequence = items
    image["ContrastBolusAgentSequence"].is_undefined_length = undefined
    if tag is not None:
        image.ContrastBolusAgent = tag
    image.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return buffer.getvalue()


@pytest.mark.parametrize("has_agent", [False, True])
def test_what_is_known_of_a_layout_changes_no_answer(tmp_path: Path, has_agent: bool) -> None:
    """Elements are taken from known places only where a walk would find them, tried with bytes that are turned."""
    write(tmp_path, studies()[1].only("dwi"))
    first = (tmp_path / "00000").read_bytes()
    if has_agent:
        first = with_agent(tmp_path, ExplicitVRLittleEndian, True, "Gadobutrol", None)
    dice = random.Random(0)
    same = 0
    for _ in range(1500):
        changed = bytearray(first)
        for place in dice.sample(range(128, len(first)), dice.choice((1, 1, 3))):
            changed[place] = dice.choice((changed[place] ^ 1 << dice.randrange(8), dice.randrange(256)))
        _Layout._known = []
        alone = answer(bytes(changed))
        _Layout._known = []
        answer(first)
        assert answer(bytes(changed)) == alone
        same += alone == answer(first)
    assert 0 < same < 1500


def answer(content: bytes) -> Elements | str | None:
    try:
        return walked(content, whole=True)
    except _Unusual as error:
        return type(error).__name__
