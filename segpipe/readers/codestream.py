"""Sizes that compressed pixels state themselves: a decoder believes them and allocates, so they are checked before."""

import struct

_J2K_START = b"\xff\x4f\xff\x51"
_MOST_TILES = 1 << 12
_MOST_LAYERS = 1 << 10
_JPEG_FRAMES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}


def jpeg2000_fits(frame: bytes, rows: int, columns: int) -> bool:
    """Whether a JPEG 2000 codestream (ISO/IEC 15444-1, A.5) is of one component of this size and few parts."""
    start = frame.find(_J2K_START)
    if start < 0 or len(frame) < start + 45:
        return False
    width, height, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", frame, start + 8
    )
    if (width - left, height - top, components) != (columns, rows, 1) or not (tile_width and tile_height):
        return False
    if max(left, top, tile_left, tile_top) > max(rows, columns):
        return False
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    style = frame.find(b"\xff\x52", start)
    if style < 0 or len(frame) < style + 12:
        return False
    layers, _transform, levels, block_width, block_height = struct.unpack_from(">HBBBB", frame, style + 6)
    blocks_are_sane = max(block_width, block_height) <= 8 and block_width + block_height <= 8
    return 0 < tiles <= _MOST_TILES and 0 < layers <= _MOST_LAYERS and levels <= 32 and blocks_are_sane


def jpeg_fits(frame: bytes, rows: int, columns: int) -> bool:
    """Whether every frame header of a JPEG or JPEG-LS stream (ITU-T T.81, B.2) is of one component of this size."""
    place, found = 2, False
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            break
        marker = frame[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in _JPEG_FRAMES:
            if len(frame) < place + 10:
                return False
            height, width, components = struct.unpack_from(">HHB", frame, place + 5)
            if (height, width, components) != (rows, columns, 1):
                return False
            found = True
        if marker == 0xDA:
            break
        place += 2 + struct.unpack_from(">H", frame, place + 2)[0]
    return found
