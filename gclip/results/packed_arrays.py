"""Small arrays out of NumPy's archives, in a tenth of the time that zipfile and NumPy take.

A store of many runs has most to wait for that. What is not packed as NumPy packs it is left to
them, and so is whatever is wrong.
"""

from __future__ import annotations

import functools
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST_HEAD = 2**16
"""Bytes: no array's head is longer, but for foreign ones."""
_SMALL = 2**22
_LOCAL = struct.Struct("<4s5H3L2H")
_LENGTH = struct.Struct("<H")
_HEADS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def arrays_in(archive: bytes, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """The arrays of an archive whose names are wanted, in their order there."""
    found: dict[str, NDArray[Any]] = {}
    with np.load(io.BytesIO(archive), allow_pickle=False) as packed:
        for member in packed.zip.infolist():
            name = member.filename.removesuffix(".npy")
            if wanted(name):
                content = unpacked(archive, member)
                array = None if content is None else _row(content)
                found[name] = packed[name] if array is None else array
    return found


def unpacked(archive: bytes, member: zipfile.ZipInfo) -> bytes | None:
    """The bytes of a member, once its checksum was compared; None for one that is not packed as
    NumPy does it, is damaged, or unpacks to more than 4 MiB."""
    at, name = member.header_offset, member.orig_filename.encode("ascii", "replace")
    local = archive[at : at + _LOCAL.size]
    if len(local) < _LOCAL.size or member.file_size > _SMALL or member.flag_bits:
        return None
    magic, _, flags, method, *_, names, extra = _LOCAL.unpack(local)
    place = at + _LOCAL.size
    usual = magic == b"PK\3\4" and not flags and method == zipfile.ZIP_DEFLATED
    if not usual or method != member.compress_type or archive[place : place + names] != name:
        return None
    place += names + extra
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = archive[place : place + member.compress_size]
    try:
        content = unpacker.decompress(packed, member.file_size + 1)
    except zlib.error:
        return None
    whole = unpacker.eof and not unpacker.unused_data and len(content) == member.file_size
    return content if whole and zlib.crc32(content) == member.CRC else None


def head_of(content: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, dtype and length of the head with which an array's bytes begin.

    Raises:
        ValueError: it is none.
    """
    length = LONGEST_HEAD
    if content[6:8] == b"\1\0":
        length = _LENGTH.unpack_from(content, 8)[0] + 10
    return _parsed(content[:length])


@functools.lru_cache(maxsize=256)
def _parsed(head: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """NumPy's reading of a head, which evaluates it as Python: once, for all runs as long."""
    file = io.BytesIO(head)
    shape, _, dtype = _HEADS[np.lib.format.read_magic(file)](file)
    return tuple(shape), dtype, file.tell()


def _row(content: bytes) -> NDArray[Any] | None:
    """An array of one dimension; None for others, whose order is NumPy's to tell."""
    shape, dtype, length = head_of(content)
    if len(shape) != 1 or dtype.hasobject or len(content) - length != shape[0] * dtype.itemsize:
        return None
    return np.frombuffer(content, dtype, offset=length).copy()
