"""How what was valid becomes hostile: by its structure, by its bytes, and by what it is packed in."""

import copy
import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

MARK = "<script>alert(1)</script>"
"""What must never come out of a page as it went in."""
WORDS = (
    *("", " ", "\0", "\ud800", "a\udfff", "\ufeff", "\u2028", "\u202e", "\x85", "\r", "\x1b[2J\x1b]0;x\x07", "x" * 300),
    *("x" * 5000, "x" * 100_000, "é" * 200, "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1", MARK),
    *("<img src=x onerror=alert(1)>", '" onload="alert(1)', "javascript:alert(1)", "{{ 7 * 7 }}", "{% x %}", "%s"),
    *("../../x", "../", "/etc/hostname", "/", ".", "..", "a/../../../b", "C:\\x", "\\\\host\\x", "x\0y", "~/x"),
    *("NaN", "inf", "-1", "0", "1e400", "0x10", "null", "true", "[", "{", '"', "'", "\\", "(a+)+$", "(", "[[A]]", "{}"),
    *("|", "`x`", "\\input{/etc/passwd}", "\\write18{x}", "%", "&", "_", "squad", "v2.0", "done", "zero_init", "a b"),
    *("\U000e0041", "$HOME"),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 255, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.0, -0.0, 0.5, 1.5),
    *(1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf")),
)
RAW = (
    *("1e999", "-1e999", "9" * 5000, "-" + "9" * 4400, "[" * 400 + "]" * 400, "[" * 3000 + "]" * 3000, "[" * 20_000),
    *('{"a": 1, "a": 2}', '"\\ud800"', '"\\u0000"', "nul", "+1", "01", "'x'", "/**/1", "1,", "Infinity", '{"a":' * 990),
)
"""What stands in no value that Python would write."""
PLACE = "raw value %d of a mutation"

Draw = random.Random


def chance(draw: Draw, share: float) -> bool:
    return draw.random() < share


def anything(draw: Draw) -> Any:
    """A value that was not expected there."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(WORDS)
    if kind < 5:
        return draw.choice(NUMBERS)
    if kind == 5:
        return draw.choice((None, True, False))
    if kind == 6:
        return draw.choice(([], {}, [[]], [{}], {"": None}, {"x": {}}, [None], [1, "a"], ["a"] * 50, {"a": [1]}))
    return PLACE % draw.randrange(len(RAW))


def slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value: its container and its key there."""
    found: list[tuple[Any, Any]] = []
    ahead = [value]
    while ahead:
        inside = ahead.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        found += [(inside, key) for key in keys]
        ahead += [inside[key] for key in keys]
    return found


def changed(draw: Draw, value: Any, most: int = 3) -> Any:
    """The value with some of its places spoilt; now and then with none."""
    value = copy.deepcopy(value)
    for _ in range(draw.randrange(most + 1)):
        places = slots(value)
        if not places or chance(draw, 0.02):
            value = anything(draw)
            continue
        inside, key = draw.choice(places)
        draw.choice(CHANGES)(draw, inside, key, value)
    return value


def _replaced(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    inside[key] = anything(draw)


def _like(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    """Another value of the same kind, which most checks let through."""
    old = inside[key]
    if isinstance(old, bool):
        inside[key] = not old
    elif isinstance(old, int | float):
        inside[key] = draw.choice(NUMBERS)
    elif isinstance(old, str):
        word = draw.choice(WORDS)
        inside[key] = draw.choice((word, word + old, old + word, old[: len(old) // 2] + word + old[len(old) // 2 :]))
    else:
        inside[key] = draw.choice((type(old)(), copy.deepcopy(old)))


def _deleted(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    del inside[key]


def _twice(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    if isinstance(inside, list):
        inside[key:key] = [copy.deepcopy(inside[key]) for _ in range(draw.choice((1, 2, 30)))]
    else:
        inside[f"{key}{draw.choice(('', ' ', '2'))}"] = copy.deepcopy(inside[key])


def _renamed(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    if isinstance(inside, dict):
        inside[draw.choice((*WORDS, key.upper(), key + "s"))] = inside.pop(key)
    else:
        inside[key] = {"": inside[key]}


def _wrapped(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    for _ in range(draw.choice((1, 1, 2, 60))):
        inside[key] = draw.choice(([inside[key]], {"a": inside[key]}))


def _moved(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    other, place = draw.choice(slots(whole))
    inside[key] = copy.deepcopy(other[place])


def _more(draw: Draw, inside: Any, key: Any, whole: Any) -> None:
    if isinstance(inside, dict):
        inside[draw.choice(WORDS)] = anything(draw)
    else:
        inside.append(anything(draw))


CHANGES: Sequence[Callable[..., None]] = (
    *(_replaced, _replaced, _like, _like, _like, _like, _deleted, _twice, _renamed, _wrapped, _moved, _more),
)


def written(value: Any) -> str:
    """As JSON, with what JSON cannot say put in between."""
    try:
        text = json.dumps(value)
    except ValueError:  # integers of too many digits
        text = json.dumps(_shorter(value))
    if "raw value" in text:
        for number, raw in enumerate(RAW):
            text = text.replace(json.dumps(PLACE % number), raw)
    return text


def _shorter(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shorter(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shorter(each) for each in value]
    return "9" if isinstance(value, int) and abs(value) > 10**4000 else value


def json_file(draw: Draw, value: Any) -> bytes:
    """A file of JSON, changed here or there."""
    return spoilt(draw, written(changed(draw, value)))


def json_lines(draw: Draw, values: Sequence[Any]) -> bytes:
    """JSON lines, changed here or there."""
    return spoilt(draw, "\n".join(map(written, _listed(changed(draw, list(values))))) + "\n")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def spoilt(draw: Draw, text: str, share: float = 0.25) -> bytes:
    """A text as bytes, now and then of an odd encoding or damaged."""
    data = text.encode("utf-8", "surrogatepass")
    if not chance(draw, share):
        return data
    way = draw.randrange(8)
    if way == 0:
        return b"\xef\xbb\xbf" + data
    if way == 1:
        return text.encode(draw.choice(("utf-16", "utf-32", "latin-1", "cp1252", "utf-7")), "replace")
    if way == 2:
        return data.replace(b"\n", b"\r\n")
    if way == 3:
        return draw.choice((b"\0", b"", b"\xff\xfe", b" ", b"{", b"\x1f\x8b")) + data[draw.randrange(3) :]
    return damaged(draw, data)


def damaged(draw: Draw, data: bytes) -> bytes:
    """Bytes with one or two of them, or a piece, other than before."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(found) + 1)
        way = draw.randrange(7)
        if way == 0:
            del found[place:]
        elif way == 1:
            found[place : place + draw.choice((1, 4, 64))] = b""
        elif way == 2:
            start = draw.randrange(len(found) + 1)
            found[place:place] = found[start : start + draw.choice((1, 8, 200))]
        elif way == 3:
            found[place:place] = draw.choice((b"\0", b"\xff", b"\xed\xa0\x80", b'"', b"\n", b"[" * 2000, b"\x1b[31m"))
        elif place < len(found):
            found[place] = draw.choice((found[place] ^ (1 << draw.randrange(8)), draw.randrange(256), 0, 255))
    return bytes(found)


BOMB = zlib.compress(bytes(1 << 26), 9)
"""64 MiB in 64 KiB."""


def gzipped(draw: Draw, data: bytes) -> bytes:
    """Packed, now and then not wholly."""
    packed = gzip.compress(data, 1, mtime=0)
    way = draw.randrange(12)
    if way == 0:
        return damaged(draw, packed)
    if way == 1:
        return packed[: draw.randrange(len(packed) + 1)]
    if way == 2:
        return draw.choice((packed + packed, packed + bytes(100), packed + b"x", data, b"", gzip.compress(packed)))
    if way == 3 and chance(draw, 0.01):
        return packed + gzip.compress(bytes(1 << 26), 1)
    return packed


def _picture(kind: str, mode: str, side: int = 4, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, (side, side), 1).save(target, kind, **options)
    return target.getvalue()


KINDS = (
    *(("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("PNG", "I;16"), ("JPEG", "RGB")),
    *(("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "F"), ("PPM", "RGB"), ("WEBP", "RGB")),
    *(("ICO", "RGBA"), ("TGA", "RGB"), ("PCX", "RGB"), ("JPEG2000", "RGB"), ("DDS", "RGB"), ("SGI", "RGB")),
    *(("EPS", "RGB"), ("PDF", "RGB"), ("ICNS", "RGBA"), ("IM", "RGB"), ("MSP", "1"), ("XBM", "1")),
)
PICTURES = tuple(_picture(kind, mode) for kind, mode in KINDS)
PLAIN = _picture("PNG", "RGB")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><image href="file:///etc/passwd"/></svg>'


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\n"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, color: int = 2) -> bytes:
    """A PNG that says of itself how large it is."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    rest = chunks or ((b"IDAT", zlib.compress(bytes(30))),)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*each) for each in [(b"IHDR", head), *rest, (b"IEND", b"")])


def picture(draw: Draw) -> bytes:
    """A picture, or what has the name of one."""
    way = draw.randrange(12)
    if way < 4:
        return PLAIN
    if way < 7:
        return draw.choice(PICTURES)
    if way < 10:
        return damaged(draw, draw.choice(PICTURES))
    if way == 10:
        side = draw.choice((0, 1, 4, 9000, 20_000, 2**31 - 1, 2**32 - 1))
        bombs = ((b"zTXt", b"a\0\0" + BOMB), (b"iCCP", b"a\0\0" + BOMB))
        text = draw.choice((*bombs, (b"IDAT", b"x"), (b"tEXt", b"a\0b")))
        return png(side, draw.choice((1, 4, side)), text, (b"IDAT", zlib.compress(bytes(52))))
    return draw.choice((SVG, EPS, b"", b"x", b"GIF89a", b"BM"))


NAMES = (
    *("../../escaped", "/tmp/zeroinit-escaped", "images/../../../escaped", "images", "", "."),
    *("x" * 300, "a\0b", "a\udc80"),
)


def archive(draw: Draw, files: dict[str, bytes], mode: str = "", extra: int | None = None) -> bytes:
    """A tar of these files, with so many members that want to leave it; none: it is whole."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode or draw.choice(("w", "w:gz"))) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            _add(tar, tarfile.TarInfo(name), data)
        for _ in range(draw.randrange(3) if extra is None else extra):
            member = tarfile.TarInfo(draw.choice((*NAMES, *files)))
            member.type = draw.choice((b"0", b"1", b"2", b"2", b"3", b"5", b"6", b"S", b"x"))
            member.linkname = draw.choice((*NAMES, *files))
            member.mode = draw.choice((0, 0o644, 0o4777))
            member.uid = draw.choice((0, 2**21 - 1))
            try:
                _add(tar, member, b"escaped" if member.type == b"0" else b"")
            except (ValueError, UnicodeError):
                continue
    data = target.getvalue()
    return damaged(draw, data) if extra is None and chance(draw, 0.3) else data


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, data: bytes) -> None:
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def zipped(draw: Draw, files: dict[str, bytes]) -> bytes:
    """A zip of these files, with members that want to leave it."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
        for _ in range(draw.randrange(3)):
            folder = Path(draw.choice(list(files))).parent.as_posix()
            member = zipfile.ZipInfo(draw.choice(NAMES[:7]) + draw.choice(("", f"/{folder}/x", "/test.txt")))
            member.external_attr = draw.choice((0, 0o120777, 0o40755)) << 16
            packed.writestr(member, draw.choice((b"escaped", b"../../../escaped")))
    data = target.getvalue()
    return damaged(draw, data) if chance(draw, 0.3) else data
