# SPDX-License-Identifier: GPL-2.0-or-later
"""makedumpfile's flattened format: a dump that was written to a pipe. Values in, values out.

A header of 4096 bytes, then the pieces of the file in the order in which they were written. Each
follows its offset and size; an offset and a size of -1 mark the end. Numbers are signed 64-bit
big-endian (makedumpfile_header and makedumpfile_data_header in makedumpfile.h).
"""

import struct
from collections.abc import Iterator

_HEADER = 4096
_START = struct.pack(">16sq", b"makedumpfile", 1)  # signature and type, then a version
_PIECE = struct.Struct(">qq")

# No piece ends beyond this: makedumpfile writes no file as large as 64 TiB.
_LARGEST = 1 << 46


class Parser:
    """Parses such a stream as it arrives."""

    def __init__(self) -> None:
        self.ended = False  # the end was seen: anything after it is not part of the dump
        self._started = False
        self._rest = b""
        self._place = self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """The pieces in ``data``, each with its offset in bytes; they are not copied.

        A piece that arrives in several calls is returned in several pieces, so a truncated stream
        loses nothing that arrived. Raises ValueError if it is not in the flattened format.
        """
        if self._rest:
            data = self._rest + data
        view, at = memoryview(data), 0
        while not self.ended:
            there = len(view) - at
            if not self._started:
                if there < _HEADER:
                    break
                if not data.startswith(_START):
                    raise ValueError("it is not in the flattened format")
                self._started = True
                at = _HEADER
            elif self._left:
                piece = view[at : at + self._left]
                if not piece:
                    break
                yield self._place, piece
                at += len(piece)
                self._place += len(piece)
                self._left -= len(piece)
            elif there < _PIECE.size:
                break
            else:
                self._open(*_PIECE.unpack_from(view, at))
                at += _PIECE.size
        self._rest = bytes(view[at:])

    def _open(self, place: int, size: int) -> None:
        self.ended = place == size == -1
        if not self.ended and not (0 <= place < place + size <= _LARGEST):
            raise ValueError("it contains an invalid offset or size")
        self._place, self._left = place, size
