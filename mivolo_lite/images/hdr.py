"""HDR photos, whose levels mean other light than sRGB's: read as those, people are pale and flat."""

import re

_HEAD = 1 << 16
"""How many first bytes are looked at."""
_CODES = re.compile(rb"colrnclx..(..)|\0\0\0\x04cICP.(.)", re.DOTALL)
"""The code of the transfer function in an AVIF or a HEIC, and in a PNG."""
_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Those of HDR, by their codes in ITU-T H.273."""
_GAIN_MAP = b"tmap"
"""What an AVIF or a HEIC holds whose own image is SDR, and which says how HDR is made of it."""


def hdr_transfer(data: bytes) -> str | None:
    """``PQ`` or ``HLG`` of the bytes of a file whose image is HDR; None of any other."""
    head = data[:_HEAD]
    code = None if _GAIN_MAP in head else _CODES.search(head)
    return None if code is None else _TRANSFERS.get(int.from_bytes(code[1] or code[2]))
