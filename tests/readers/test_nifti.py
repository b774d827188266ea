"""Files to volumes and back: nothing lost, nothing but BadInput for what is broken."""

import gzip
import logging
import struct
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segpipe.core.orientation import axis_codes, reorient_affine
from segpipe.errors import BadInput, Reason
from segpipe.readers import inflate, nifti
from tests.readers.conftest import LPS, head, save
from tests.tiers import examples

KINDS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
HEADERS = {
    "nifti1": nibabel.Nifti1Header,
    "nifti1-pair": nibabel.nifti1.Nifti1PairHeader,
    "nifti2": nibabel.Nifti2Header,
    "nifti2-pair": nibabel.nifti2.Nifti2PairHeader,
}
PARTS = {"RGB": (128, 3, "u1"), "RGBA": (2304, 4, "u1"), "complex64": (32, 2, "f4"), "complex128": (1792, 2, "f8")}


def real_images(folder: Path) -> list[Path]:
    """The images of the real data that a parser can read on its own."""
    names = ("*.nii", "*.nii.gz", "*.hdr", "*.hdr.gz", "*.mgz")
    without_voxels = {"analyze.hdr", "nifti1.hdr", "nifti2.hdr", "not-nifti.nii", "empty.nii.gz"}
    return sorted(path for name in names for path in folder.rglob(name) if path.name not in without_voxels)


def plain_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def test_every_real_file_comes_back_byte_by_byte(real_data: Path) -> None:
    images = real_images(real_data)
    assert len(images) > 60
    for path in images:
        volume = nifti.read(path)
        assert nifti.to_bytes(volume) == plain_bytes(path), path
        if ".hdr" in path.name:
            assert nifti.image_bytes(volume) == plain_bytes(path.with_name(path.name.replace(".hdr", ".img"))), path


def test_every_real_file_means_what_nibabel_says(real_data: Path) -> None:
    for path in real_images(real_data):
        if "brats2021" in path.parts and "00006" not in path.name:
            continue  # all alike
        ours, theirs = nifti.read(path), nibabel.load(path)
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-6, err_msg=str(path))
        mine, wanted = ours.scaled().squeeze(), np.asarray(theirs.dataobj, "f4").squeeze()
        same = np.array_equal(mine, wanted) or np.array_equal(mine, wanted, equal_nan=True)  # the first is quick
        assert same, path


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes, bytes | None, np.ndarray]:
    """Container, bytes of the file (or header file), bytes of the image file, and the voxels that are inside."""
    container = draw(st.sampled_from(sorted(HEADERS)))
    order = draw(st.sampled_from("<>"))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=7)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    header = HEADERS[container](endianness=order)
    if draw(st.booleans()):
        kind = np.dtype(order + draw(st.sampled_from(KINDS)))
        header["datatype"], parts = nibabel.nifti1.data_type_codes.code[kind.newbyteorder("=").type], 1
    else:
        code, parts, name = PARTS[draw(st.sampled_from(sorted(PARTS)))]
        header["datatype"], kind = code, np.dtype(order + name)
    header["dim"][: len(shape) + 1] = (len(shape), *shape)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.5, 3, 3)
    header.set_sform(affine, draw(st.sampled_from((0, 1, 4))))
    header.set_qform(affine, draw(st.sampled_from((0, 2))))
    header["scl_slope"] = draw(st.sampled_from((0.0, 1.0, -0.5, 3.25, np.nan)))
    header["scl_inter"] = draw(st.sampled_from((0.0, -7.5)))
    size = len(header.binaryblock)
    between = draw(st.sampled_from((4, 20, 100)))
    behind = rng.bytes(draw(st.sampled_from((0, 0, 1, 33))))
    voxels = np.frombuffer(rng.bytes(int(np.prod(shape)) * parts * kind.itemsize), kind)
    if container.endswith("-pair"):
        offset = draw(st.sampled_from((0, 16)))
        header["vox_offset"] = offset
        image = rng.bytes(offset) + voxels.tobytes() + behind
        return container, header.binaryblock + rng.bytes(between), image, voxels
    header["vox_offset"] = size + between
    return container, header.binaryblock + rng.bytes(between) + voxels.tobytes() + behind, None, voxels


@given(files(), st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_generated_files_come_back_byte_by_byte(
    file: tuple[str, bytes, bytes | None, np.ndarray], packed: bool
) -> None:
    container, data, image, flat = file
    pack = gzip.compress if packed else bytes
    volume = nifti.parse(pack(data), None if image is None else pack(image))
    assert volume.container == container
    assert volume.voxels.ndim >= 3
    assert volume.voxels.dtype == flat.dtype
    assert nifti.to_bytes(volume) == data
    assert nifti.image_bytes(volume) == image
    # as after the tables: little-endian voxels, all else from the stored header
    native = volume.voxels.astype(volume.voxels.dtype.newbyteorder("<"))
    again = nifti.from_header(volume.header, volume.extensions, container, native)
    assert nifti.to_bytes(again) == data
    assert nifti.image_bytes(again) == image
    np.testing.assert_array_equal(again.affine, volume.affine)
    assert (again.slope, again.inter) == (volume.slope, volume.inter)


@st.composite
def odd_headers(draw: st.DrawFn) -> nibabel.Nifti1Header:
    """A header of 2 x 2 x 2 voxels as programs of the field leave them."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header.set_data_dtype(np.int16)
    size = st.sampled_from((0.0, 1.0, -1.0, 0.5, -2.5, 3.0))
    header["pixdim"][:4] = (draw(st.sampled_from((0, 1, -1, 2, 0.5))), draw(size), draw(size), draw(size))
    header["qform_code"], header["sform_code"] = draw(st.sampled_from((0, 1))), draw(st.sampled_from((0, 0, 0, 2)))
    header.set_sform(np.diag([-2.0, 2, 3, 1]), int(header["sform_code"]))
    turn = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=4)
    turn *= (1, 1, 1, draw(st.booleans()))  # without a real part, rounding may make it longer than 1
    turn *= np.sqrt(1 + draw(st.sampled_from((0, 3e-7, 1e-6, 1e-4)))) / np.linalg.norm(turn)
    for part, value in zip("bcd", turn[:3], strict=True):
        header[f"quatern_{part}"] = value
    header["vox_offset"] = 352
    return header


@given(odd_headers())
@settings(max_examples=examples(200), deadline=None)
def test_odd_headers_mean_what_nibabel_makes_of_them(header: nibabel.Nifti1Header) -> None:
    volume = nifti.parse(header.binaryblock + bytes(4) + np.arange(8, dtype="<i2").tobytes())
    fixed = header.copy()
    fixed.check_fix(logger=logging.getLogger("nibabel.silent"), error_level=100)
    atol = 1e-5
    try:
        wanted = fixed.get_best_affine()
    except ValueError:  # a quaternion that is longer than nibabel's rounding: nifti1_io.c takes its direction
        atol = 3e-3
        turn = nibabel.quaternions.quat2mat((0, *(float(header[f"quatern_{part}"]) for part in "bcd")))
        sizes = fixed["pixdim"][1:4] * (1, 1, fixed["pixdim"][0])
        wanted = nibabel.affines.from_matvec(turn * sizes)
    np.testing.assert_allclose(volume.affine, wanted, atol=atol)


def test_scaling_is_what_the_header_says(tmp_path: Path) -> None:
    volume = nifti.read(save(tmp_path / "a.nii", slope=0.5, inter=-3.0))
    np.testing.assert_array_equal(volume.scaled(), head() * np.float32(0.5) - 3)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "IPL"])
def test_orientation_survives(tmp_path: Path, codes: str) -> None:
    affine = reorient_affine(LPS, (6, 5, 4), "LPS", codes)
    assert axis_codes(nifti.read(save(tmp_path / "a.nii.gz", affine=affine)).affine) == codes


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_written_files_open_in_nibabel(tmp_path: Path, name: str) -> None:
    found = nibabel.load(save(tmp_path / name))
    np.testing.assert_array_equal(np.asarray(found.dataobj), head())
    np.testing.assert_array_equal(found.affine, LPS)


def test_a_pair_is_written_and_found_from_either_half(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(head(), LPS), tmp_path / "a.img")
    volume = nifti.read(tmp_path / "a.hdr")
    nifti.write(volume, tmp_path / "b.hdr.gz")
    np.testing.assert_array_equal(nifti.read(tmp_path / "b.img.gz").voxels, head())
    with pytest.raises(ValueError, match=r"\.hdr"):
        nifti.write(volume, tmp_path / "b.nii")


def test_a_longer_array_gets_a_nifti2_header() -> None:
    assert nifti.from_array(np.zeros((40000, 1, 1), np.uint8), LPS).container == "nifti2"


def test_voxels_that_are_not_the_headers_are_refused() -> None:
    volume = nifti.from_array(head(), LPS)
    with pytest.raises(ValueError, match="header has"):
        nifti.to_bytes(nifti.from_header(volume.header, volume.extensions, "nifti1", head((2, 2, 2))))


def good() -> bytes:
    return nifti.to_bytes(nifti.from_array(head(), LPS))


def changed(place: int, form: str, *values: float) -> bytes:
    data = bytearray(good())
    struct.pack_into(form, data, place, *values)
    return bytes(data)


BROKEN = {
    "empty": (b"", Reason.EMPTY_FILE),
    "gzip of nothing": (gzip.compress(b""), Reason.EMPTY_FILE),
    "text": (b"not an image, but long enough to hold a header " * 20, Reason.NOT_AN_IMAGE),
    "short text": (b"hello", Reason.NOT_AN_IMAGE),
    "wrong magic": (changed(344, "4s", b"abc\0"), Reason.NOT_AN_IMAGE),  # type: ignore[arg-type]
    "half": (good()[:400], Reason.TRUNCATED),
    "header only": (good()[:352], Reason.TRUNCATED),
    "half of the header": (good()[:200], Reason.NOT_AN_IMAGE),
    "half of a gzip": (gzip.compress(good())[:-40], Reason.TRUNCATED),
    "gzip without its checksum": (gzip.compress(good())[:-8], Reason.TRUNCATED),
    "gzip with a wrong checksum": (gzip.compress(good())[:-8] + b"\0" * 8, Reason.CORRUPT),
    "gzip of noise": (b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + bytes(range(7, 200)), Reason.CORRUPT),
    "no axes": (changed(40, "<h", 0), Reason.CORRUPT),
    "nine axes": (changed(40, "<h", 9), Reason.CORRUPT),
    "negative axis": (changed(42, "<h", -5), Reason.CORRUPT),
    "axis of length 0": (changed(44, "<h", 0), Reason.CORRUPT),
    "absurd axes": (changed(40, "<8h", 7, *[32767] * 7), Reason.TOO_LARGE),
    "more than there is": (changed(42, "<3h", 900, 900, 900), Reason.TRUNCATED),
    "float128": (changed(70, "<h", 1536), Reason.UNSUPPORTED),
    "unknown datatype": (changed(70, "<h", 7), Reason.UNSUPPORTED),
    "voxels before the header": (changed(108, "<f", 3.0), Reason.CORRUPT),
    "voxels nowhere": (changed(108, "<f", np.nan), Reason.CORRUPT),
    "voxels at infinity": (changed(108, "<f", np.inf), Reason.CORRUPT),
    "broken intercept": (changed(112, "<2f", 2.0, np.nan), Reason.CORRUPT),
    "impossible rotation": (changed(252, "<2h3f", 1, 0, 5.0, 5.0, 5.0), Reason.BAD_GEOMETRY),
    "MGH of a strange type": (struct.pack(">7i", 1, 2, 2, 2, 1, 99, 0) + bytes(400), Reason.UNSUPPORTED),
    "MGH without voxels": (struct.pack(">7i", 1, 9, 9, 9, 1, 3, 0) + bytes(400), Reason.TRUNCATED),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_have_their_reason(name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(BadInput) as caught:
        nifti.parse(data, name="archive/x.nii")
    assert caught.value.reason == reason
    assert "archive/x.nii" in caught.value.problem


def test_half_a_pair_asks_for_the_other() -> None:
    header = nibabel.nifti1.Nifti1PairHeader()
    header.set_data_shape((2, 2, 2))
    with pytest.raises(BadInput, match=r"\.img") as caught:
        nifti.parse(header.binaryblock)
    assert caught.value.reason == Reason.TRUNCATED


def test_a_gzip_bomb_inflates_no_further_than_its_header_promises() -> None:
    bomb = gzip.compress(good() + bytes(300 << 20), 1)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput) as caught:
            nifti.parse(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == Reason.TOO_LARGE
    assert peak < 8 << 20


def test_a_bomb_of_promises_is_refused_before_it_inflates() -> None:
    header = changed(42, "<3h", 1000, 1000, 1000)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput) as caught:
            nifti.parse(gzip.compress(header + bytes(1000)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == Reason.TRUNCATED
    assert peak < 8 << 20


def test_members_of_a_gzip_file_are_one_content() -> None:
    data = good()
    packed = b"".join(gzip.compress(data[start : start + 100]) for start in range(0, len(data), 100))
    assert nifti.to_bytes(nifti.parse(packed)) == data
    assert inflate.up_to(packed, 10**6, "x") == (data, True)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file of any container with a few bytes changed, cut or put in, perhaps gzipped before or after."""
    data = bytearray(
        draw(files())[1] if draw(st.booleans()) else draw(st.sampled_from((good(), BROKEN["MGH without voxels"][0])))
    )
    packed = draw(st.sampled_from(("no", "before", "after")))
    if packed == "before":
        data = bytearray(gzip.compress(bytes(data)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(data), 560)))
        kind = draw(st.sampled_from(("set", "cut", "insert")))
        if kind == "set":
            new = draw(st.binary(min_size=1, max_size=8))
            data[place : place + len(new)] = new
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 400))]
        else:
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
    return gzip.compress(bytes(data)) if packed == "after" else bytes(data)


@given(mutated(), st.none() | st.binary(max_size=300), st.sampled_from(("x.nii", "x.hdr")))
@settings(max_examples=examples(1000), deadline=10_000, suppress_health_check=[HealthCheck.too_slow])
def test_hostile_bytes_raise_bad_input_and_nothing_else(data: bytes, companion: bytes | None, name: str) -> None:
    try:
        volume = nifti.parse(data, companion, max_voxels=1 << 20, name=name)
    except BadInput:
        return
    assert volume.voxels.size <= (1 << 20) * 4
    nifti.to_bytes(volume)


@given(st.binary(max_size=2000))
@settings(max_examples=examples(300), deadline=10_000)
def test_noise_is_bad_input(data: bytes) -> None:
    with pytest.raises(BadInput):
        nifti.parse(data, data, max_voxels=1 << 16)
