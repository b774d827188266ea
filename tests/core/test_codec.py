import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.core import codec

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RGBA = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])
NIFTI_DTYPES = [
    *(order + kind for order in "<>" for kind in ("i2", "i4", "i8", "u2", "u4", "u8", "f4", "f8", "c8", "c16")),
    "u1",
    "i1",
    np.dtype(np.longdouble),
    np.dtype(np.clongdouble),
    RGB,
    RGBA,
]


def arrays(dtype):
    shape = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
    size = np.dtype(dtype).itemsize

    def build(dims):
        count = int(np.prod(dims)) * size
        return st.binary(min_size=count, max_size=count).map(lambda raw: np.frombuffer(raw, dtype).reshape(dims))

    return shape.flatmap(build)


@pytest.mark.parametrize("dtype", NIFTI_DTYPES, ids=str)
@given(data=st.data())
def test_every_dtype_and_bit_pattern_comes_back(dtype, data):
    source = data.draw(arrays(dtype))
    (back,) = codec.decode(codec.encode([source]), *source.shape[1:], [source.dtype])
    assert back.dtype == codec.little_endian(source.dtype)
    assert back.astype(source.dtype).tobytes() == source.tobytes()


@given(
    hnp.arrays(">i2", (2, 3, 4)),
    hnp.arrays("<f8", (2, 3, 4), elements=st.floats(width=64)),
    hnp.arrays("u1", (2, 3, 4)),
)
def test_channels_of_mixed_dtypes_share_a_cell(first, second, third):
    cells = codec.encode([first, second, third])
    assert cells.shape == (2, 12 * (2 + 8 + 1))
    back = codec.decode(cells, 3, 4, [first.dtype.str, "<f8", np.dtype("u1")])
    for source, found in zip([first, second, third], back, strict=True):
        np.testing.assert_array_equal(source, found)


def test_a_view_with_reversed_axes_is_encoded_as_it_looks():
    source = np.arange(2 * 3 * 4, dtype=">i4").reshape(4, 3, 2).T[::-1, :, ::-1]
    (back,) = codec.decode(codec.encode([source]), 3, 4, ["<i4"])
    np.testing.assert_array_equal(back, source)


def test_layout_is_low_bytes_then_high_bytes_per_channel():
    cells = codec.encode([np.array([[[0x0102, 0x0304]]], ">i2"), np.array([[[7, 8]]], "u1")])
    assert cells.tolist() == [[0x02, 0x04, 0x01, 0x03, 7, 8]]


def test_the_one_line_reader_of_the_module_docstring_reads_a_cell():
    channels = [np.random.default_rng(0).normal(size=(1, 5, 6)).astype("f4") for _ in range(3)]
    cell = codec.encode(channels)[0].tobytes()
    planes = np.frombuffer(cell, np.uint8).reshape(3, 4, 30)
    image = planes.swapaxes(1, 2).copy().view("<f4").reshape(3, 5, 6)
    np.testing.assert_array_equal(image, np.concatenate(channels))


def test_decoded_arrays_are_writable_and_apart_from_the_cells():
    cells = codec.encode([np.ones((1, 2, 2), "u1")])
    cells.setflags(write=False)
    (back,) = codec.decode(cells, 2, 2, ["u1"])
    back[:] = 9
    assert cells.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(("height", "dtype"), [(3, "u1"), (2, "<i2")])
def test_a_cell_of_another_size_is_refused(height, dtype):
    cells = codec.encode([np.ones((1, 2, 2), "u1")])
    with pytest.raises(ValueError, match="take"):
        codec.decode(cells, height, 2, [dtype])
