"""What a file is, by its first bytes: the name that a message gives to what it cannot use."""

import re

HEAD = 1024
"""How many first bytes ``kind_of`` looks at."""

_MAGIC = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"\x89PNG\r\n\x1a\n", "a PNG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
)
_BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF"}
_MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|svg|!--|error)", re.IGNORECASE)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")


def kind_of(data: bytes) -> str:
    """``a PNG``, ``an HTML page``, ``empty``, ...: what follows "it is", told by the first ``HEAD`` bytes."""
    head = data[:HEAD]
    if not head.strip(b"\0"):
        return "nothing but zeros" if head else "empty"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a video or HEIF")
    if _MARKUP.match(head):
        return "an HTML or XML page, as a server sends for an error"
    return "text" if _TEXT.fullmatch(head) else f"of no known format (its first bytes: {head[:4].hex(' ')})"
