"""Is an LMDB whole? Asked before the LMDB library maps it into memory.

The library trusts its file: a page that is not there ends the process with SIGBUS, a damaged one
with an abort. This walks the tree of pages from the newest meta page, and looks that every page and
every value lies within the file.

Source: the file format of LMDB 0.9 (``mdb.c``): two meta pages, then branch, leaf and overflow
pages.
"""

from __future__ import annotations

import os
import struct
from typing import IO

from caffe_compat.foreign import Unfit

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG_DATA, _SUB_DATA, _DUPLICATES = 1, 2, 4
_NO_PAGE = (1 << 64) - 1
_HEADER = 16
_MAX_DEPTH = 32


class _Pages:
    """Pages of an open file by number."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream, self.size = stream, size
        self.page_size, self.root, self.last = self._meta()
        self.seen: set[int] = set()

    def _meta(self) -> tuple[int, int, int]:
        """Page size, root page and last page, as the newest meta page has them."""
        found = []
        page_size = 4096
        for number in range(2):
            self.stream.seek(number * page_size)
            head = self.stream.read(152)
            if len(head) < 152:
                raise Unfit(f"it has {self.size:,} bytes, less than its two head pages: cut short")
            magic, version = struct.unpack_from("<II", head, _HEADER)
            if magic != _MAGIC:
                raise Unfit("it is no LMDB (its first bytes are others)")
            if version != _VERSION:
                raise Unfit(f"it is of LMDB's format {version}, known is {_VERSION}")
            (size,) = struct.unpack_from("<I", head, 40)
            if number == 0:
                page_size = size
                if size < 256 or size > 1 << 16 or size & (size - 1):
                    raise Unfit(f"it claims pages of {size} bytes")
            (root,) = struct.unpack_from("<Q", head, 128)
            last, transaction = struct.unpack_from("<QQ", head, 136)
            found.append((transaction, root, last))
        _, root, last = max(found)
        return page_size, root, last

    def read(self, number: int, count: int = 1) -> bytes:
        """Read some pages, the first of them with this number."""
        self._go_to(number, count)
        return self.stream.read(count * self.page_size)

    def _go_to(self, number: int, count: int) -> None:
        """Go to the first of some pages; all of them must lie in the file."""
        end = (number + count) * self.page_size
        if number < 2 or end > self.size:
            need = max(end, (self.last + 1) * self.page_size)
            raise Unfit(
                f"it is cut short: it has {self.size:,} bytes and needs {need:,}; copy it again"
            )
        self.stream.seek(number * self.page_size)

    def walk(self, number: int, depth: int = 0) -> None:
        """Look at a page and everything below it."""
        if depth > _MAX_DEPTH or number in self.seen:
            raise Unfit(f"page {number} is reached twice: damaged")
        self.seen.add(number)
        page = self.read(number)
        own, _, flags, lower, upper = struct.unpack_from("<QHHHH", page)
        if own != number or not _HEADER <= lower <= upper <= self.page_size or lower & 1:
            raise Unfit(f"page {number} is damaged")
        places = struct.unpack_from(f"<{(lower - _HEADER) // 2}H", page, _HEADER)
        if any(place < upper or place + 8 > self.page_size for place in places):
            raise Unfit(f"page {number} is damaged")
        if flags & _LEAF:
            for place in places:
                self._leaf(page, place, number)
        elif flags & _BRANCH:
            for place in places:
                low, high, more, keys = struct.unpack_from("<HHHH", page, place)
                if place + 8 + keys > self.page_size:
                    raise Unfit(f"page {number} is damaged")
                self.walk(low | high << 16 | more << 32, depth + 1)
        else:
            raise Unfit(f"page {number} is neither branch nor leaf")

    def _leaf(self, page: bytes, place: int, number: int) -> None:
        low, high, flags, keys = struct.unpack_from("<HHHH", page, place)
        if flags & (_SUB_DATA | _DUPLICATES):
            raise Unfit("it holds databases within the database, which Caffe's records never have")
        size, first = low | high << 16, place + 8 + keys
        if not flags & _BIG_DATA:
            if first + size > self.page_size:
                raise Unfit(f"page {number} is damaged")
            return
        if first + 8 > self.page_size:
            raise Unfit(f"page {number} is damaged")
        (target,) = struct.unpack_from("<Q", page, first)
        count = -(-(_HEADER + size) // self.page_size)
        self._overflow(target, count)

    def _overflow(self, number: int, count: int) -> None:
        self._go_to(number, count)
        own, _, flags, pages = struct.unpack("<QHHI", self.stream.read(_HEADER))
        if own != number or not flags & _OVERFLOW or pages < count:
            raise Unfit(f"page {number} is damaged")


def check(path: str | os.PathLike[str]) -> None:
    """Look at every page of an LMDB's data file.

    Parameters
    ----------
    path : ``data.mdb`` itself.

    Raises
    ------
    Unfit : says what is wrong, with the sizes where the file is cut short.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        pages = _Pages(stream, size)
        if pages.root != _NO_PAGE:
            pages.walk(pages.root)
