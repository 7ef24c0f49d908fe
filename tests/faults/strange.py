"""Photos as hardly anybody writes them: floods of metadata, odd profiles, rare kinds, two things at once."""

import random
import struct
import zlib

from tests.faults.build import (
    chunk,
    chunks,
    exif,
    frame_of,
    in_header,
    png,
    riff,
    riff_chunks,
    saved,
    scene,
    segment,
    segments,
    vp8x,
)
from tests.faults.good import ANY, BROKEN, OK, OTHER, Found, good

FLOOD = 8_000_000  # bytes; well within the cap, and enough to take minutes where a reader is careless


def exif_directories() -> Found:
    """EXIF that lies about itself, in each format; the photo is good, and is not to be lost for it."""
    many = [(tag, 7, 60_000, 8) for tag in range(1_000, 6_000)]
    wrong = {
        "empty": b"",
        "head only": b"II*\0",
        "random": random.Random(3).randbytes(500),
        "loop": exif((0x0112, 3, 1, 1))[:-4] + struct.pack("<I", 8),
        "pointing outside": exif((0x010F, 2, 2**31, 2**31)),
        "huge count": exif((0x0112, 3, 2**32 - 1, 8)),
        "orientation 0": exif((0x0112, 3, 1, 0)),
        "orientation 99": exif((0x0112, 3, 1, 99)),
        "orientation as text": exif((0x0112, 2, 4, 0x41414141)),
        "orientation as fraction": exif((0x0112, 5, 1, 8)),
        "all overlapping": exif(*many, behind=bytes(3_000)),
        "big endian": exif((0x0112, 3, 1, 3 << 16), order=">"),
        "zero resolution": exif((0x011A, 5, 1, 26), (0x0128, 3, 1, 2), behind=bytes(8)),
        "nested": exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8)),
        "big tiff": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60),
    }
    for name, directory in wrong.items():
        jpeg = in_header(good()["grey.jpg"], segment(0xE1, b"Exif\0\0" + directory[:65_000]))
        yield f"{name}.jpg", jpeg, OK
        head, *rest = chunks(good()["rgb.png"])
        yield f"{name}.png", png(head, (b"eXIf", directory), *rest), OK
        lossy = riff_chunks(good()["lossy.webp"])
        yield f"{name}.webp", riff(vp8x(320, 240, 0x08), *lossy, (b"EXIF", directory)), OK


def metadata() -> Found:
    """So much of it, or so many pieces, that reading takes long or much memory."""
    jpeg, (head, *rest) = good()["grey.jpg"], chunks(good()["rgb.png"])
    marker = bytes([0xFF, 0xC0]) + struct.pack(">HBHHB", 65_006, 8, 120, 160, 3)
    pieces = {
        "exif pieces": segment(0xE1, b"Exif\0\0" + b"a" * 10),
        "comments": segment(0xFE, b""),
        "large comments": segment(0xFE, b"c" * 1_000),
        "padding": b"\xff",
        "junk": segment(0xFE, b"") + b"\0" * 100_000,
        "frame headers": marker + b"\1\x22\0" * 21_666 + b"\0\0",
        "tables": segment(0xDB, (b"\0" + bytes(64)) * 900),
        "resolution": segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\0" * 5_000),
        "restarts": b"\xff\xd0",
        "stuffing": b"\xff\0",
    }
    for name, piece in pieces.items():
        yield (
            f"jpeg of {name}",
            in_header(jpeg, piece * (FLOOD // len(piece))),
            BROKEN if len(piece) < 10_000 else ANY,
        )
    yield "segment longer than the file", in_header(jpeg, segment(0xE5, b"", length=65_535)), ANY
    yield "segment of length 0", in_header(jpeg, segment(0xE5, b"", length=0)), ANY
    yield (
        "xmp that orients",
        in_header(jpeg, segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0tiff:Orientation="6"')),
        OK,
    )
    yield (
        "much xmp",
        in_header(jpeg, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<" * 65_000) * 20),
        OK,
    )
    photoshop = b"Photoshop 3.0\0" + (b"8BIM\x03\xed\0\0" + struct.pack(">I", 2**32 - 1)) * 3
    yield "photoshop block that lies", in_header(jpeg, segment(0xED, photoshop)), OK
    megabyte = zlib.compress(bytes(2**20), 9)
    parts = {
        "unknown chunks": (b"abCd", b""),
        "pixels in nothing": (b"IDAT", b""),
        "texts": (b"tEXt", b"a\0" + b"b" * 50),
        "packed texts": (b"zTXt", b"a\0\0" + megabyte),
        "packed profiles": (b"iCCP", b"a\0\0" + megabyte),
        "exif": (b"eXIf", exif((0x0112, 3, 1, 6))),
    }
    for name, part in parts.items():
        piece = chunk(*part)
        yield f"png of {name}", png(head, piece * (FLOOD // len(piece)), *rest), BROKEN
    yield (
        "text bomb",
        png(head, (b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9)), *rest),
        OK | BROKEN,
    )
    yield (
        "xmp bomb",
        png(head, (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(50_000_000))), *rest),
        OK | BROKEN,
    )
    yield "raw profile", png(head, (b"tEXt", b"Raw profile type exif\0\nexif\n4\nnothex"), *rest), OK
    yield (
        "webp of chunks",
        riff(vp8x(320, 240, 0), *[(b"abcd", b"")] * (FLOOD // 8), *riff_chunks(good()["lossy.webp"])),
        ANY,
    )


def colours() -> Found:
    """Embedded colour profiles: they are not used, so nothing in them may cost the photo."""
    icc = {
        "empty": b"",
        "garbage": random.Random(4).randbytes(3_000),
        "size of 4 GB": struct.pack(">I", 2**32 - 1) + bytes(200),
        "large": bytes(3_000_000),
    }
    for name, profile in icc.items():
        for format in ("JPEG", "PNG", "WEBP"):
            yield f"{name} icc.{format.lower()}", saved(scene(), format, icc_profile=profile or b"\0"), OK
    jpeg = good()["grey.jpg"]
    part = b"ICC_PROFILE\0"
    for name, numbers in {
        "one of 255": [(1, 255)],
        "out of order": [(3, 3), (1, 3), (2, 3)],
        "number 0": [(0, 0)],
        "twice": [(1, 1)] * 2,
    }.items():
        pieces = [segment(0xE2, part + bytes(pair) + b"x" * 400) for pair in numbers]
        yield f"icc pieces, {name}", in_header(jpeg, *pieces), OK
    yield "icc piece without numbers", in_header(jpeg, segment(0xE2, part)), ANY
    for transform in (0, 1, 2, 9):
        adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
        yield f"adobe transform {transform} on grey", in_header(jpeg, adobe), OK
        yield f"adobe transform {transform} on cmyk", in_header(good()["cmyk.jpg"], adobe), OK
    head, *rest = chunks(good()["rgb.png"])
    for name, chunk_ in {
        "gAMA": bytes(4),
        "cHRM": bytes(32),
        "sRGB": b"\xff",
        "tRNS": b"\0" * 6,
        "bKGD": b"",
        "pHYs": b"\0",
    }.items():
        yield f"odd {name}", png(head, (name.encode(), chunk_), *rest), ANY
    palette = chunks(good()["palette.png"])
    without = [c for c in palette if c[0] != b"PLTE"]
    yield "palette missing", png(*without), ANY
    yield "palette of one colour", png(*[(n, c[:3] if n == b"PLTE" else c) for n, c in palette]), ANY
    yield "palette of 257 colours", png(*[(n, c + bytes(9) if n == b"PLTE" else c) for n, c in palette]), ANY


def jpegs() -> Found:
    """Kinds of JPEG that hardly anybody writes."""
    for name in ("baseline.jpg", "grey.jpg", "progressive.jpg"):
        data = good()[name]
        at = frame_of(data)
        for code in (0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF):
            # Arithmetic decoders take any bits for a picture: these are real files of the kind, of noise.
            yield f"{name} as SOF{code - 0xC0}", data[: at + 1] + bytes([code]) + data[at + 2 :], ANY
        for bits in (2, 12, 16):
            yield f"{name} of {bits} bits", data[: at + 4] + bytes([bits]) + data[at + 5 :], BROKEN
        for parts in (0, 2, 5, 255):
            yield f"{name} of {parts} components", data[: at + 9] + bytes([parts]) + data[at + 10 :], BROKEN
        yield f"{name} sampled 15x15", data[: at + 11] + b"\xff" + data[at + 12 :], ANY
        yield f"{name} without tables", without(data, 0xDB), ANY
        yield f"{name} without codes", without(data, 0xC4), ANY
        yield f"{name} without its end", data[:-2], ANY
        yield f"{name} with two pictures", data + data, OK
        yield f"{name} with DAC", in_header(data, segment(0xCC, b"\0\x10\x10\x05")), ANY
        yield f"{name} with a restart interval of 1", in_header(data, segment(0xDD, b"\0\1")), ANY
    data = good()["progressive.jpg"]
    last = data.rfind(b"\xff\xda")
    for times, ends in ((80, OK), (200, BROKEN), (2_000, BROKEN)):
        yield f"{times} scans more", data[:last] + data[last:-2] * times + data[-2:], ends
    hidden = segment(0xFE, b"\xff\xd9")
    yield "scans behind a hidden end", data[:last] + (hidden + data[last:-2]) * 1_000 + data[-2:], BROKEN
    scan = segment(0xDA, b"\3\1\0\2\x11\3\x11\0\x3f\0")
    yield "scans without data", data[:last] + scan * 20_000 + data[-2:], BROKEN


def without(data: bytes, code: int) -> bytes:
    """A JPEG without its segments of this code."""
    kept = [data[start:end] for found, start, end in segments(data) if found != code]
    end = [end for _, _, end in segments(data)][-1]
    return data[:2] + b"".join(kept) + data[end:]


def animations() -> Found:
    frames = [scene(seed=seed, size=(64, 48)) for seed in range(4)]
    first, others = frames[0], frames[1:]
    mpo = saved(first, "MPO", save_all=True, append_images=others)
    yield "mpo", mpo, OK
    yield "mpo cut off in its second picture", mpo[: len(mpo) // 2], OK
    yield "mpo cut off in its first picture", mpo[: len(mpo) // 8], BROKEN
    at = mpo.index(b"MPF\0") + 4
    for name, content in {
        "nothing": b"",
        "garbage": b"II*\0" + b"\xff" * 60,
        "no pictures": b"II*\0\x08\0\0\0\0\0",
    }.items():
        yield f"mpo index of {name}", in_header(good()["baseline.jpg"], segment(0xE2, b"MPF\0" + content)), OK
    million = mpo[:at] + mpo[at:].replace(struct.pack("<I", 4), struct.pack("<I", 10**6), 1)
    yield "mpo of a million pictures", million, ANY
    for place in range(at, at + 80, 8):
        yield f"mpo index broken at {place - at}", mpo[:place] + b"\xff" * 8 + mpo[place + 8 :], ANY

    apng = chunks(saved(first, "PNG", save_all=True, append_images=others))
    animated = dict(apng)
    rest = [part for part in apng[1:] if part[0] not in (b"acTL", b"IEND")]
    end = (b"IEND", b"")
    for count in (0, 1, 2**31 - 1, 2**32 - 1):
        yield (
            f"apng of {count} frames",
            png(apng[0], (b"acTL", struct.pack(">II", count, 0)), *rest, end),
            ANY,
        )
    yield "apng without its control", png(apng[0], *rest, end), ANY
    yield "apng with two controls", png(apng[0], (b"acTL", animated[b"acTL"]), *apng[1:]), ANY
    yield "apng with a short control", png(apng[0], (b"acTL", b"\0"), *rest, end), ANY
    yield (
        "apng of frames only",
        png(apng[0], (b"acTL", animated[b"acTL"]), *[p for p in rest if p[0] != b"IDAT"], end),
        ANY,
    )
    yield "apng backwards", png(apng[0], *reversed(apng[1:-1]), end), ANY
    outside = b"fcTL", struct.pack(">IIIIIHHBB", 0, 10**6, 10**6, 10**6, 10**6, 1, 1, 9, 9)
    yield "apng frame outside", png(apng[0], (b"acTL", animated[b"acTL"]), outside, *rest, end), ANY
    control = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 64, 48, 0, 0, 1, 1, 0, 0))
    yield (
        "apng of frame controls",
        png(apng[0], (b"acTL", animated[b"acTL"]), control * 20_000, *rest, end),
        ANY,
    )

    webp = saved(first, "WEBP", save_all=True, append_images=others, lossless=True)
    canvas, anim, *shown = riff_chunks(webp)
    yield "webp animation of 3,000 frames", riff(canvas, anim, *shown * 750), OK
    yield "webp animation without frames", riff(canvas, anim), BROKEN
    yield "webp animation without its header", riff(canvas, *shown), ANY
    yield "webp animation backwards", riff(canvas, *shown, anim), ANY
    frame = shown[0][1]
    yield "webp frame outside", riff(canvas, anim, (b"ANMF", b"\xff\xff\xff" * 2 + frame[6:])), BROKEN
    yield (
        "webp frame of another size",
        riff(canvas, anim, (b"ANMF", frame[:6] + b"\xff\x3f\0" * 2 + frame[12:])),
        ANY,
    )
    yield "webp frame within a frame", riff(canvas, anim, (b"ANMF", frame[:16] + frame)), ANY
    yield "webp without its flag", riff((b"VP8X", bytes(4) + canvas[1][4:]), anim, *shown), ANY
    yield "webp with a short canvas", riff((b"VP8X", b"\2"), anim, *shown), ANY
    yield "webp that says it is shorter", webp[:4] + struct.pack("<I", 40) + webp[8:], ANY
    yield "webp that says it is longer", webp[:4] + struct.pack("<I", 2**32 - 1) + webp[8:], ANY
    yield "webp of nothing", riff(), BROKEN


def polyglots() -> Found:
    """Files that are two things at once: what counts is what they begin with."""
    jpeg, picture, webp = good()["baseline.jpg"], good()["rgb.png"], good()["lossy.webp"]
    script = b"<script>alert(1)</script><?php system($_GET[0]); ?>"
    yield "jpeg and zip", jpeg + b"PK\3\4" + bytes(500) + b"PK\5\6" + bytes(18), OK
    yield "jpeg and html", in_header(jpeg, segment(0xFE, b"--><html>" + script)), OK
    yield "jpeg and png", jpeg + picture, OK
    yield "jpeg and a video", jpeg + b"\0\0\0\x18ftypmp42" + random.Random(5).randbytes(FLOOD), OK
    yield "jpeg and many scans behind it", jpeg + segment(0xDA, bytes(10)) * 50_000, OK
    yield "png and jpeg", picture + jpeg, OK
    yield "png and html", png(*chunks(picture)[:-1], (b"tEXt", b"c\0" + script), (b"IEND", b"")), OK
    yield "png and a video", picture + random.Random(6).randbytes(FLOOD), OK
    yield "webp and jpeg", webp + jpeg, OK
    yield "webp and html", riff(*riff_chunks(webp), (b"XMP ", script)), ANY
    yield "html and jpeg", b"<html>" + jpeg, OTHER
    yield "gif and jpeg", b"GIF89a" + jpeg, OTHER
    yield "pdf and jpeg", b"%PDF-1.7\n" + jpeg, OTHER
    yield "tiff and jpeg", b"II*\0\x08\0\0\0" + jpeg, OTHER
    yield "bytes of a jpeg before a png", b"\xff\xd8\xff" + picture, BROKEN
    yield "png signature before a jpeg", b"\x89PNG\r\n\x1a\n" + jpeg, BROKEN
    yield "webp head before a png", b"RIFF\xff\xff\0\0WEBP" + picture, BROKEN
    yield "utf-8 mark before a jpeg", b"\xef\xbb\xbf" + jpeg, OTHER
    yield "newline before a jpeg", b"\n" + jpeg, OTHER
