"""200 files that a folder of photos, or somebody with a grudge, may hold."""

import io
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.inference.scenes import photo

Files = Iterator[tuple[str, bytes]]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes, colour: int = 2, depth: int = 8) -> bytes:
    """A PNG of compressed ``data``, whatever its header says of it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def face(size: int = 160) -> Image.Image:
    return Image.fromarray(photo((30, 30, 80), width=size, height=size))


def bombs() -> Files:
    zeros = zlib.compress(bytes(3 * 20_000 * 2000))  # 120 MB in 117 kB
    yield "bomb-400mp.png", png(20_000, 20_000, zeros)
    yield "bomb-4gp.png", png(65_000, 65_000, zeros)
    yield "bomb-wide.png", png(2**31 - 1, 1, zeros)
    yield "bomb-tall.png", png(1, 2**31 - 1, zeros)
    yield "bomb-lies-small.png", png(10, 10, zeros)
    yield "bomb-text.png", png(40, 40, zlib.compress(bytes(40 * 121)))[:-12] + _text_bomb()
    plain = encoded(face(), "JPEG")
    start = plain.index(b"\xff\xc0")
    for side in (8_001, 30_000, 65_500):
        yield f"bomb-{side}.jpg", plain[: start + 5] + struct.pack(">HH", side, side) + plain[start + 9 :]
    progressive = encoded(face(), "JPEG", progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    yield "bomb-scans.jpg", progressive[:-2] + progressive[scan:-2] * 5000 + b"\xff\xd9"
    for side in (10_000, 65_535):
        yield f"bomb-{side}.gif", b"GIF89a" + struct.pack("<HH", side, side) + b"\xf0\0\0" + bytes(6) + b"\x3b"
        yield f"bomb-{side}.bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, *[0] * 6)
    yield "bomb-negative.bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, -9, -9, 1, 24, *[0] * 6)


def _text_bomb() -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(200_000_000))
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


def others() -> Files:
    page = b"<!doctype html><title>404 Not Found</title>"
    yield from {
        "page.jpg": page,
        "page.png": page,
        "svg.jpg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "empty.jpg": b"",
        "empty.png": b"",
        "zeros.jpg": bytes(4096),
        "zeros.png": bytes(1),
        "text.jpg": b"a face",
        "pdf.jpg": b"%PDF-1.7\n",
        "zip.jpg": b"PK\x03\x04" + bytes(60),
        "gzip.png": b"\x1f\x8b\x08" + bytes(60),
        "lfs.jpg": b"version https://git-lfs.github.com/spec/v1\n",
        "apple.jpg": b"\0\x05\x16\x07" + bytes(60),
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "ppm.jpg": b"P6 9 9 255\n" + bytes(243),
        "nul\u00adname \u202e.jpg": page,
        "new\nline.jpg": page,
        "-option.jpg": page,
        "~.jpg": page,
        "%s{0}.jpg": page,
    }.items()


def odd_but_sound() -> Files:
    """What a decoder has to read."""
    image = face()
    yield "cmyk.jpg", encoded(image.convert("CMYK"), "JPEG")
    yield "cmyk.tif", encoded(image.convert("CMYK"), "TIFF")
    yield "grey.jpg", encoded(image.convert("L"), "JPEG")
    yield "one-bit.png", encoded(image.convert("1"), "PNG")
    yield "palette.gif", encoded(image.convert("P"), "GIF")
    yield "alpha.png", encoded(image.convert("RGBA"), "PNG")
    yield "sixteen.png", encoded(Image.fromarray(np.full((60, 60), 40_000, np.uint16)), "PNG")
    frames = [Image.fromarray(photo((30, 30, 60 + 4 * n), width=160, height=160)) for n in range(6)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"animated.{kind.lower()}", encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    yield "huge.jpg", encoded(Image.new("RGB", (8000, 7900)), "JPEG", quality=30)
    yield "huge.png", png(8000, 7900, zlib.compress(bytes(7900 * 24_001)))
    for width, height in ((1, 1), (2, 2), (1, 9000), (9000, 1), (3, 20_000), (65_000, 5)):
        yield f"thin-{width}x{height}.png", encoded(Image.new("RGB", (width, height), (90, 40, 40)), "PNG")
    exif = b"Exif\0\0MM\0*" + b"\xff" * 300
    yield "exif.jpg", b"\xff\xd8\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + encoded(image, "JPEG")[2:]
    yield "trailing.jpg", encoded(image, "JPEG") + bytes(1000)
    yield "jpeg.png", encoded(image, "JPEG")
    yield "no-ending", encoded(image, "JPEG")


def damaged(seed: int) -> Iterator[tuple[str, bytes]]:
    """Sound files cut short, or with bytes of chance in them, without end."""
    chance, image = random.Random(seed), face()
    whole = {
        "jpg": encoded(image, "JPEG"), "png": encoded(image, "PNG"), "webp": encoded(image, "WEBP"),
        "gif": encoded(image, "GIF"), "bmp": encoded(image, "BMP"), "tif": encoded(image, "TIFF"),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
    }  # fmt: skip
    number = 0
    while True:
        for ending, data in whole.items():
            number += 1
            yield f"cut-{number}.{ending}", data[: chance.randrange(2, len(data))]
            noisy = bytearray(data)
            for _ in range(chance.choice((1, 20, 300))):
                noisy[chance.randrange(len(noisy))] = chance.randrange(256)
            yield f"noisy-{number}.{ending}", bytes(noisy)
            yield f"head-{number}.{ending}", data[: chance.randrange(4, 40)] + chance.randbytes(600)


def write_hostile_files(folder: Path, count: int = 200) -> list[str]:
    """Write so many files and their like, and return their names."""
    folder.mkdir()
    files = [*bombs(), *others(), *odd_but_sound()]
    more = damaged(seed=1)
    files += [next(more) for _ in range(count - len(files) - 3)]
    for name, data in files:
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    return sorted(os.listdir(folder))
