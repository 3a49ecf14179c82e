"""Damage and lies for files of every kind that users are given. All of it follows from a ``random.Random``."""

import io
import json
import os
import pickle
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

import yaml

CANARY = os.path.join(tempfile.gettempdir(), "mivolo_lite_fuzz_canary")
"""A file that hostile values would make; nothing else does."""

_EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)

NUMBERS = (
    *(0, -1, 1, 2, 255, 256, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "a\0b",
        "\ud800",
        "\udcff",
        "\u202e",
        "\U0001f600",
        "é",
        "x" * 300,
        "y" * 100_000,
        "/",
        "//",
        ".",
    ),
    *("..", "../../../../" + CANARY, CANARY, "/dev/zero", "/dev/stdin", "/proc/self/mem", f"pipe:touch {CANARY}"),
    *(
        f"file://{CANARY}",
        "s3://",
        "http://127.0.0.1:9/x",
        "~nobody",
        "$UNSET_HERE",
        "-1",
        "1e999",
        "nan",
        "None",
        "true",
    ),
    *(
        "<script>alert(1)</script>",
        "=cmd()",
        "%s%n",
        "{0.__class__}",
        "'; DROP TABLE",
        "\x1b[2J",
        "a" + "\u0301" * 2000,
    ),
)
CONTAINERS = ([], {}, [[]], {"": None}, [None] * 1000, {str(n): n for n in range(1000)}, [0, [1, {"a": [2]}]])
SCALARS = (None, True, False, *NUMBERS, *TEXTS)


def damage(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """One to three ways in which bytes go wrong on disks, in copies and by malice."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(_DAMAGES)(data, random, other)
    return data


def _flip(data: bytes, random: Random, other: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(random.choice((1, 1, 8, 64))):
        if damaged:
            damaged[_place(damaged, random)] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _place(data: Sequence, random: Random) -> int:
    """Mostly at the beginning, where headers are."""
    return random.randrange(min(len(data), random.choice((16, 512, 4096, len(data)))))


def _truncate(data: bytes, random: Random, other: bytes) -> bytes:
    return data[: random.choice((0, 1, 7, random.randrange(len(data) + 1), len(data) // 2, max(0, len(data) - 1)))]


def _span(data: bytes, random: Random) -> tuple[int, int]:
    start = _place(data, random) if data else 0
    return start, min(len(data), start + random.choice((1, 4, 16, 512, 4096, len(data))))


def _zero(data: bytes, random: Random, other: bytes) -> bytes:
    start, end = _span(data, random)
    return data[:start] + bytes(end - start) + data[end:]


def _noise(data: bytes, random: Random, other: bytes) -> bytes:
    start, end = _span(data, random)
    return data[:start] + random.randbytes(end - start) + data[end:]


def _duplicate(data: bytes, random: Random, other: bytes) -> bytes:
    start, end = _span(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 3)) + data[end:]


def _delete(data: bytes, random: Random, other: bytes) -> bytes:
    start, end = _span(data, random)
    return data[:start] + data[end:]


def _splice(data: bytes, random: Random, other: bytes) -> bytes:
    other = other or data[::-1]
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _extreme(data: bytes, random: Random, other: bytes) -> bytes:
    """A number within the file becomes the largest, the smallest, or negative."""
    size, order = random.choice((1, 2, 4, 8)), random.choice("<>")
    value = random.choice(_EXTREMES) if size < 8 else random.choice((0, 2**31, 2**40, 2**63, 2**64 - 1))
    number = struct.pack(order + {1: "B", 2: "H", 4: "I", 8: "Q"}[size], value % (1 << 8 * size))
    start = _place(data, random) if data else 0
    return data[:start] + number + data[start + size :]


_DAMAGES = (_flip, _flip, _truncate, _zero, _noise, _duplicate, _delete, _splice, _extreme)


def value(random: Random) -> Any:
    """A value that nobody expects."""
    return deepcopy(random.choice(random.choice((SCALARS, SCALARS, NUMBERS, TEXTS, CONTAINERS))))


def mutate(tree: Any, random: Random, times: int | None = None) -> Any:
    """A tree of mappings, lists and plain values with some of them replaced, lost, renamed or doubled."""
    tree = deepcopy(tree)
    for _ in range(random.choice((1, 1, 2, 4)) if times is None else times):
        holders = list(_holders(tree))
        if not holders:
            return value(random)
        holder, key = random.choice(holders)
        action = random.randrange(6)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, dict):
            holder[str(value(random))[:50]] = holder.pop(key)
        elif action == 2 and isinstance(holder, list):
            holder.extend(deepcopy(holder[:100]))
        elif action == 3 and isinstance(holder[key], int | float):
            holder[key] = random.choice((-holder[key], holder[key] + 1, holder[key] * 1000, str(holder[key])))
        else:
            holder[key] = value(random)
    return tree


def _holders(tree: Any):
    if isinstance(tree, dict | list):
        for key, item in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
            yield tree, key
            yield from _holders(item)


def json_text(tree: Any, random: Random) -> bytes:
    """JSON of a mutated tree, or something that only looks like it."""
    shape = random.randrange(20)
    if shape == 0:
        depth = random.choice((100, 5000, 100_000))
        return random.choice((b"[", b'{"a":')) * depth
    if shape == 1:
        return b"[" * 2000 + b"]" * 2000
    if shape == 2:
        return json.dumps(mutate(tree, random)).encode(random.choice(("utf-16", "utf-8-sig", "utf-32")))
    text = json.dumps(mutate(tree, random)).encode()
    if shape == 3:
        return damage(text, random)
    if shape == 4:
        return re.sub(rb"\d+", lambda match: b"9" * random.choice((20, 400, 5000)), text, count=1)
    if shape == 5:  # a key twice
        return text.replace(b"{", b'{"age": 5, "age": 1e400, ', 1)
    return text


def csv_text(rows: Sequence[Sequence[str]], random: Random) -> bytes:
    """A table with cells of other kinds, quotes that never end, other encodings, other separators."""
    rows = [list(row) for row in rows]
    for _ in range(random.choice((1, 1, 2, 5))):
        row = random.choice(rows[random.random() < 0.9 :])
        action = random.randrange(6)
        if action == 0:
            row.append(str(value(random)))
        elif action == 1 and row:
            row.pop()
        elif action == 2:
            rows.insert(random.randrange(len(rows) + 1), list(row))
        elif row:
            row[random.randrange(len(row))] = str(value(random))
    separator = random.choice((",",) * 15 + (";", "\t"))
    text = "\n".join(separator.join(row) for row in rows) + "\n"
    if random.random() < 0.2:
        place = random.randrange(len(text))
        text = text[:place] + random.choice(('"', "\r", "\0", '"""', "\n\n")) + text[place:]
    encoded = text.encode(random.choice(("utf-8",) * 18 + ("utf-16", "utf-8-sig")), "surrogatepass")
    return damage(encoded, random) if random.random() < 0.1 else encoded


def jpeg(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """A JPEG damaged anywhere, or with a header that lies."""
    action = random.randrange(5)
    if action == 0:
        return _with_size(data, random.choice((0, 1, 65500, 65535, 20000)), random.choice((0, 1, 65500, 65535, 20000)))
    if action == 1:  # segments whose lengths lead elsewhere
        places = [match.start() for match in re.finditer(rb"\xff[\xc0-\xfe]", data)]
        place = random.choice(places)
        return data[: place + 2] + struct.pack(">H", random.choice((0, 1, 2, 0xFFFF))) + data[place + 4 :]
    if action == 2:
        return data[:2] + _exif(random) + data[2:]
    if action == 3:
        kinds = (
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBP",
            b"GIF89a",
            b"<html>",
            b"BM",
            b"%PDF-",
            b"version https://git-lfs",
            b"",
        )
        return random.choice(kinds) + random.randbytes(random.choice((0, 10, 1000)))
    return damage(data, random, other)


def _with_size(data: bytes, height: int, width: int) -> bytes:
    frame = re.search(rb"\xff[\xc0\xc1\xc2]", data)
    place = frame.start() + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _exif(random: Random) -> bytes:
    order = random.choice(("II", "MM"))
    packing = "<" if order == "II" else ">"
    entries = random.choice((1, 0, 0xFFFF))
    offset = random.choice((8, 0, 4, 0xFFFFFFFF))
    entry = struct.pack(
        packing + "HHII", 0x0112, random.choice((3, 0, 99)), random.choice((1, 2**31)), value_of(random)
    )
    body = b"Exif\0\0" + order.encode() + struct.pack(packing + "HIH", 42, offset, entries) + entry
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def value_of(random: Random) -> int:
    return random.choice((1, 3, 6, 8, 0, 9, 6 << 16, 0xFFFFFFFF))


def tar(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """A tar whose headers lie, with extensions of the format, cut, joined or damaged."""
    action = random.randrange(8)
    if action == 0:
        return damage(data, random, other)
    if action == 1:
        return data[: random.randrange(len(data) // 512) * 512] + random.choice((b"", bytes(512), bytes(1024) + data))
    if action == 2:
        return data + random.choice((data, other, data[512:], b"x" * 511))
    if action == 3:
        return random.choice((pax, gnu_long))(random) + data
    headers = [place for place in range(0, len(data) - 511, 512) if data[place + 257 : place + 262] == b"ustar"]
    for _ in range(random.choice((1, 1, 3))):
        place = random.choice(headers)
        if action == 4 and random.random() < 0.3:
            return data[:place] + random.choice((pax, gnu_long))(random) + data[place:]
        data = data[:place] + _lying_header(data[place : place + 512], random) + data[place + 512 :]
    return data


def _lying_header(header: bytes, random: Random) -> bytes:
    field, texts = random.choice(_FIELDS)
    start, size = field
    text = random.choice(texts)
    header = header[:start] + text[:size].ljust(size, b"\0") + header[start + size :]
    return checked(header)


def checked(header: bytes) -> bytes:
    """A tar header with the checksum that fits it."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


_SIZES = (
    b"77777777777",
    b"00000000000",
    b"-0000000001",
    b"zzz",
    b"",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"\x80" + b"\0" * 6 + b"\1" + b"\0" * 4,
)
_NAMES = (
    b"",
    b"../../evil.json",
    b"/etc/evil.face.jpg",
    b"a" * 100,
    b"\xff\xfe.json",
    b"a.b.c.d.face.jpg",
    b"._x.face.jpg",
    b"dir/",
)
_FIELDS = (
    ((124, 12), _SIZES),
    ((124, 12), _SIZES),
    ((0, 100), _NAMES),
    ((156, 1), (b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"K", b"S", b"x", b"g", b"\0", b"Z")),
    ((100, 8), _SIZES),
    ((136, 12), _SIZES),
    ((257, 6), (b"", b"ustar ", b"xxxxxx")),
    ((345, 155), (b"p" * 155, b"..", b"\xff")),
    ((157, 100), _NAMES),
)


def pax(random: Random) -> bytes:
    """A PAX header with records that lie about sizes and names."""
    records = (
        b"30 size=99999999999999999999\n",
        b"12 size=-5\n",
        b"9999999 path=x\n",
        b"5 a=b\n",
        b"0 a=b\n",
        b"-7 a=b\n",
        b"x path=y\n",
        b"20 path=\xff\xfe\0\n",
        b"30 GNU.sparse.realsize=9999999\n",
        b"40 GNU.sparse.map=0,1,2,99999999999999\n",
        b"26 GNU.sparse.size=1e99\n",
        b"18 hdrcharset=BAD\n",
        b"",
    )
    body = b"".join(random.choice(records) for _ in range(random.choice((1, 2, 5, 2000))))
    return member(b"PaxHeader", body, random.choice((b"x", b"g", b"X")), random.choice((None, None, 2**33, 10**6)))


def gnu_long(random: Random) -> bytes:
    """A GNU header with a name that is long, or claims to be."""
    body = random.choice((b"n" * 70_000, b"../" * 50, b"", b"\xff" * 300))
    return member(b"././@LongLink", body, random.choice((b"L", b"K")), random.choice((None, None, 2**33, 10**6)))


def member(name: bytes, body: bytes, kind: bytes = b"0", size: int | None = None) -> bytes:
    """A member of a tar, of a size that may be another than it says."""
    header = (
        name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % (len(body) if size is None else size)
    )
    header += b"00000000000\0" + b" " * 8 + kind + bytes(100) + b"ustar\00000"
    return checked(header.ljust(512, b"\0")) + body + bytes(-len(body) % 512)


def safetensors(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """A safetensors file with a header that lies, or damaged anywhere."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = data[8 : 8 + length], data[8 + length :]
    action = random.randrange(5)
    if action == 0:
        return (
            struct.pack("<Q", random.choice((0, 1, length - 1, length + 8, 2**31, 2**40, 2**63, 2**64 - 1))) + data[8:]
        )
    if action == 1:
        return damage(data, random, other)
    if action == 2:  # numbers in the tensors themselves
        numbers = struct.pack("<4f", *(random.choice((float("nan"), float("inf"), 1e38, -1.0)) for _ in range(4)))
        place = random.randrange(0, max(1, len(body) - 16), 4)
        return data[:8] + header + body[:place] + numbers + body[place + 16 :]
    mutated = (
        json.dumps(mutate(json.loads(header), random)).encode()
        if action == 3
        else json_text(json.loads(header), random)
    )
    return struct.pack("<Q", len(mutated)) + mutated + body


def yaml_text(tree: Any, random: Random) -> bytes:
    """YAML of a mutated tree, or of hostile forms."""

    def dumped(tree: Any) -> str:
        try:
            return yaml.safe_dump(tree, sort_keys=False, allow_unicode=bool(random.randrange(2)))
        except (yaml.YAMLError, UnicodeError, ValueError):
            return repr(tree)

    text = dumped(mutate(tree, random))
    shape = random.randrange(20)
    if shape == 0:
        text += "\n" + random.choice(_HOSTILE_YAML)
    elif shape == 1:
        text = random.choice(_HOSTILE_YAML)
    elif shape == 2:
        text += "\n" + text  # every key twice
    elif shape == 3:
        lines = text.splitlines()
        lines[random.randrange(len(lines))] = (
            random.choice(("\t", "- a", "  : ", "? x", "&a *a", "|", "%YAML 9.9", "---", "...")) if lines else ""
        )
        text = "\n".join(lines)
    elif shape == 4:
        return text.encode(random.choice(("utf-16", "utf-32", "utf-8-sig")), "surrogatepass")
    encoded = text.encode("utf-8", "surrogatepass")
    return damage(encoded, random) if shape == 5 else encoded


def _laughs(form: str) -> str:
    lines = ["x0: &x0 {a: 1, b: 2}"]
    for level in range(9):
        lines.append(f"x{level + 1}: &x{level + 1} " + form.format(", ".join(f"*x{level}" for _ in range(9)), level))
    return "\n".join(lines)


_HOSTILE_YAML = (
    _laughs("[{0}]"),
    _laughs("{{<<: [{0}]}}"),
    "a: &a [*a]\n",
    "[" * 5000,
    "{a: " * 5000,
    "- " * 5000,
    f"run: !!python/object/apply:os.system ['touch {CANARY}']\n",
    f"x: !!python/object/new:subprocess.Popen [[touch, '{CANARY}']]\n",
    "tasks: [{class_path: antigravity.geohash}]\n",
    f"data: {{train: [{{class_path: subprocess.Popen, init_args: {{args: [touch, '{CANARY}']}}}}]}}\n",
    f"data: {{train: 'pipe:touch {CANARY}'}}\n",
    "x: " + "9" * 6000 + "\n",
    "x: !!binary ///\n",
    "x: 2026-99-99\n",
    "? {a: b}\n: c\n",
    "\0\0\0",
    "a: b: c",
    "base: /dev/zero\n",
    "base: .\n",
    "base: [a]\n",
    "base: {a: b}\n",
    "base: '~nobody/x.yaml'\n",
    "data:\n" * 3,
    "optim:\n#\n",
    "'" + "x" * 100_000,
)


class _Touch:
    """Unpickled, it would create the canary."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


def torch_file(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """A file of ``torch.save``, with a pickle that runs code, or a zip that lies."""
    action = random.randrange(5)
    if action == 0:
        return pickle.dumps(
            random.choice((_Touch(), {"state_dict": _Touch()}, [1, 2], {"state_dict": {"a": 1}}, "text"))
        )
    if action == 1:
        return _rezipped(
            data, lambda name, body: pickle.dumps({"state_dict": _Touch()}, 2) if name.endswith("data.pkl") else body
        )
    if action == 2:
        chosen = random.choice(("data.pkl", "version", "byteorder", "data/0"))
        return _rezipped(data, lambda name, body: damage(body, random) if name.endswith(chosen) else body)
    if action == 3:
        return _rezipped(data, lambda name, body: None if random.random() < 0.3 else body)
    return damage(data, random, other)


def _rezipped(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            body = change(entry.filename, old.read(entry))
            if body is not None:
                new.writestr(entry.filename, body)
    return written.getvalue()


def lines(data: bytes, random: Random, other: bytes = b"") -> bytes:
    """JSON lines, some of them no records any longer."""
    records = data.splitlines()
    for _ in range(random.choice((1, 2, 4))):
        if not records:
            break
        place = random.randrange(len(records))
        try:
            records[place] = json_text(json.loads(records[place]), random)
        except (ValueError, RecursionError):  # damaged before
            records[place] = damage(records[place], random)
    return b"\n".join(records) + random.choice((b"", b"\n", b"{"))
