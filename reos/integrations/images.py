"""Uploaded pictures: what they are, decided by their bytes, and their thumbnails.

At 50 megapixels a picture takes up to a second and some 400 MB (PNG) to 800 MB (WebP) to decode, so that a process
decodes one at a time, in a thread of its own, with a bounded number that wait.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from reos.errors import FileTooLargeError, InvalidFileTypeError, OverloadedError

MAX_PIXELS = 50_000_000
THUMBNAIL_SIDE = 400  # pixels, of the longer side
THUMBNAIL_QUALITY = 80
MAX_WAITING = 32
RETRY_SECONDS = 2

CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}

# Pillow does not miss the last chunk of a PNG, all other formats' ends it does.
PNG_END = b"IEND\xaeB`\x82"

_executor = ThreadPoolExecutor(1, thread_name_prefix="images")
_waiting = 0

T = TypeVar("T")

# Pillow's own limit only warns up to twice its value. `_open` has one of ours, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a picture is. Width and height are in pixels, before any rotation that its metadata asks for."""

    format: str  # JPEG, PNG, WEBP or GIF
    content_type: str
    width: int
    height: int


async def inspect_image(data: bytes) -> ImageInfo:
    """What the bytes are, after decoding (of an animation: the first frame), so that a part of a file is no picture.

    Raises InvalidFileTypeError (415), FileTooLargeError (413, more than 50 megapixels), OverloadedError (503).
    """
    return await _run(lambda: _inspect(data))


async def make_thumbnail(data: bytes) -> tuple[bytes, str]:
    """The picture within 400 by 400 pixels, upright and without any metadata, and its content type.

    JPEG, or WebP where there is transparency; of an animation the first frame. Raises as `inspect_image` does.
    """
    return await _run(lambda: _thumbnail(data))


async def _run(work: Callable[[], T]) -> T:
    global _waiting
    if _waiting >= MAX_WAITING:
        raise OverloadedError(headers={"Retry-After": str(RETRY_SECONDS)})
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_executor, work)
    finally:
        _waiting -= 1


def _format_of(data: bytes) -> str:
    """The format by the signature at the beginning of the file. Raises InvalidFileTypeError."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        if PNG_END not in data:
            raise _unreadable()
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise InvalidFileTypeError("A picture has to be JPEG, PNG, WebP or GIF.")


def _open(data: bytes, format: str) -> Image.Image:
    """The picture, read up to its size. Raises InvalidFileTypeError and FileTooLargeError."""
    try:
        image = Image.open(io.BytesIO(data), formats=[format])
    except Exception as error:
        raise _unreadable() from error
    if image.width * image.height > MAX_PIXELS:
        raise FileTooLargeError(f"A picture may have {MAX_PIXELS} pixels.", limit=MAX_PIXELS)
    return image


def _unreadable() -> InvalidFileTypeError:
    # Pillow's decoders raise exceptions of a dozen kinds, all of which mean this.
    return InvalidFileTypeError("The picture is damaged or incomplete.")


def _inspect(data: bytes) -> ImageInfo:
    format = _format_of(data)
    image = _open(data, format)
    info = ImageInfo(format, CONTENT_TYPES[format], image.width, image.height)
    try:
        # A JPEG is read to its end at an eighth of its size already; other formats take no notice. Pillow divides by
        # the sides that are wanted, so none may be 0.
        image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except Exception as error:
        raise _unreadable() from error
    return info


def _thumbnail(data: bytes) -> tuple[bytes, str]:
    image = _open(data, _format_of(data))
    try:
        image.draft(None, (2 * THUMBNAIL_SIDE, 2 * THUMBNAIL_SIDE))
        image.load()
        orientation = _orientation(image)
        small = _in_colours(image)
        small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    except Exception as error:
        raise _unreadable() from error
    if orientation in _ROTATIONS:
        small = small.transpose(_ROTATIONS[orientation])
    # The encoders would take comments, profiles and places over from here.
    small.info.clear()
    written = io.BytesIO()
    format = "WEBP" if small.mode == "RGBA" else "JPEG"
    small.save(written, format, quality=THUMBNAIL_QUALITY)
    return written.getvalue(), CONTENT_TYPES[format]


# What makes a picture upright, by the value of the Exif tag 'Orientation' (CIPA DC-008, 4.6.5).
_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> int:
    """The Exif orientation; 1 (upright) when there is none that can be read, since the picture itself can."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _in_colours(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be scaled and saved: L, RGB, or RGBA where there is transparency."""
    if image.mode.startswith("I"):
        # Greyscale of 16 bits, which a plain conversion would clip to white.
        return image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode in ("LA", "PA") or (image.mode != "RGBA" and "transparency" in image.info):
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "RGBA") else image.convert("L" if image.mode == "1" else "RGB")
