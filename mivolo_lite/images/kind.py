"""The format of a file by its first bytes, for error messages."""

import re

HEAD = 1024
"""Number of first bytes that ``kind_of`` reads."""

_IMAGES = {
    "a JPEG": rb"\xff\xd8\xff",
    "a PNG": rb"\x89PNG\r\n\x1a\n",
    "a GIF": rb"GIF8[79]a",
    "a WebP": rb"RIFF....WEBP",
    "a BMP": rb"BM....\0\0\0\0",
    "a TIFF": rb"II\*\0|MM\0\*",
    "an AVIF": rb"....ftypavi[fs]",
    "a HEIC": rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)",
    "a JPEG XL": rb"\0\0\0\x0cJXL |\xff\x0a",
    "a JPEG 2000": rb"\0\0\0\x0cjP  ",
}
_OTHERS = {
    "a PDF": rb"%PDF-",
    "a macOS file of attributes (AppleDouble), no image": rb"\0\x05\x16\x07",
    "a zip archive": rb"PK\x03\x04",
    "compressed with gzip": rb"\x1f\x8b",
    "a video": rb"....ftyp",
    "a Git LFS pointer; fetch the file itself with `git lfs pull`": rb"version https://git-lfs",
    "an HTML or XML page, as a server sends for an error": rb"(?i:\s*<(!doctype|html|head|body|\?xml|svg|!--|error))",
}
_STARTS = [(kind, re.compile(start, re.DOTALL)) for kind, start in (_IMAGES | _OTHERS).items()]
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]+")


def kind_of(data: bytes) -> str:
    """The format of a file by its first ``HEAD`` bytes, to follow "it is": ``a PNG``, ``an HTML page``, ``empty``,
    ..."""
    head = data[:HEAD]
    if not head.strip(b"\0"):
        return "nothing but zeros" if head else "empty"
    for kind, start in _STARTS:
        if start.match(head):
            return kind
    return "text" if _TEXT.fullmatch(head) else f"of no known format (its first bytes: {head[:4].hex(' ')})"


def is_image(data: bytes) -> bool:
    """Whether the first bytes are those of a usual image format."""
    return kind_of(data) in _IMAGES
