"""Damage that knows nothing of the format: bits, bytes, ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

ByteEdit = Callable[[random.Random, bytes], bytes]

#: Bytes that mean something somewhere: lengths, tags, signs, ends of strings.
_LOUD = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x22, 0x5B, 0x7B)


def flip_bits(chooser: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(chooser.choice((1, 1, 2, 8, 64))):
        result[chooser.randrange(len(result))] ^= 1 << chooser.randrange(8)
    return bytes(result)


def set_bytes(chooser: random.Random, data: bytes) -> bytes:
    result = bytearray(data)
    for _ in range(chooser.choice((1, 2, 4, 16))):
        result[chooser.randrange(len(result))] = chooser.choice(_LOUD)
    return bytes(result)


def truncate(chooser: random.Random, data: bytes) -> bytes:
    return data[: chooser.randrange(len(data))]


def insert(chooser: random.Random, data: bytes) -> bytes:
    at = chooser.randrange(len(data))
    piece = chooser.choice((chooser.randbytes(chooser.choice((1, 4, 100))), b"\xff" * 10, b"\0" * 100_000))
    return data[:at] + piece + data[at:]


def remove(chooser: random.Random, data: bytes) -> bytes:
    start = chooser.randrange(len(data))
    return data[:start] + data[start + chooser.choice((1, 2, 16, 200)) :]


def repeat(chooser: random.Random, data: bytes) -> bytes:
    start, end = sorted((chooser.randrange(len(data)), chooser.randrange(len(data))))
    return data[:end] + data[start:end] * chooser.choice((1, 1, 3, 100)) + data[end:]


def exchange(chooser: random.Random, data: bytes) -> bytes:
    """Two sections change places."""
    a, b, c, d = sorted(chooser.randrange(len(data)) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


EDITS: Mapping[str, ByteEdit] = {
    "bits flipped": flip_bits,
    "bytes set": set_bytes,
    "truncated": truncate,
    "bytes inserted": insert,
    "bytes removed": remove,
    "section repeated": repeat,
    "sections exchanged": exchange,
}
