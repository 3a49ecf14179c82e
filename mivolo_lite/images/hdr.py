"""Detects HDR photos, whose levels look pale and flat if they are read as sRGB."""

import re

_HEAD = 1 << 16
"""Number of first bytes that are read."""
_CODES = re.compile(rb"colrnclx..(..)|\0\0\0\x04cICP.(.)", re.DOTALL)
"""The code of the transfer function in an AVIF or a HEIC, and in a PNG."""
_TRANSFERS = {16: "PQ", 18: "HLG"}
"""The HDR transfer functions by their codes in ITU-T H.273."""
_GAIN_MAP = b"tmap"
"""What an AVIF or a HEIC holds whose own image is SDR, and which says how HDR is made of it."""


def hdr_transfer(data: bytes) -> str | None:
    """``PQ`` or ``HLG`` for the bytes of an HDR file; None for any other."""
    head = data[:_HEAD]
    code = None if _GAIN_MAP in head else _CODES.search(head)
    return None if code is None else _TRANSFERS.get(int.from_bytes(code[1] or code[2]))
