"""Pictures: decided by their bytes, refused when they are damaged or too large, thumbnails without metadata."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from reos.errors import FileTooLargeError, InvalidFileTypeError
from reos.integrations.images import THUMBNAIL_SIDE, ImageInfo, inspect_image, make_thumbnail

pytestmark = pytest.mark.unit

ORIENTATION = 0x0112
DESCRIPTION = 0x010E


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width: int = 640, height: int = 480) -> Image.Image:
    """A picture that compresses badly, so that a part of its file is really a part."""
    return Image.effect_noise((width, height), 60).convert("RGB")


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
async def test_the_bytes_say_what_a_picture_is(format: str) -> None:
    info = await inspect_image(encode(picture(), format))
    assert info == ImageInfo(format, f"image/{format.lower()}", 640, 480)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
async def test_a_part_of_a_file_is_no_picture(format: str, kept: float) -> None:
    data = encode(picture(), format)
    part = data[: int(len(data) * kept)]
    for read in (inspect_image, make_thumbnail):
        with pytest.raises(InvalidFileTypeError):
            await read(part)


async def test_a_png_without_its_last_chunk_is_no_picture() -> None:
    with pytest.raises(InvalidFileTypeError):
        await inspect_image(encode(picture(), "PNG")[:-12])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>",
        b"BM" + b"\0" * 100,
        encode(Image.new("RGB", (8, 8)), "TIFF"),
        encode(Image.new("RGB", (8, 8)), "BMP"),
    ],
)
async def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFileTypeError):
        await inspect_image(data)


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(10_000, 5_001), (10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
async def test_more_than_fifty_megapixels_are_refused_before_they_are_decoded(size: tuple[int, int]) -> None:
    for read in (inspect_image, make_thumbnail):
        with pytest.raises(FileTooLargeError):
            await read(png_of(*size))


async def test_fifty_megapixels_are_welcome() -> None:
    data = encode(Image.new("1", (10_000, 5_000)), "PNG")
    assert (await inspect_image(data)).width == 10_000
    thumbnail, _ = await make_thumbnail(data)
    assert opened(thumbnail).size == (400, 200)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_pictures_of_every_mode_have_a_thumbnail(mode: str) -> None:
    source = Image.new("I;16", (800, 600), 30_000) if mode == "I;16" else picture(800, 600).convert(mode)
    thumbnail, content_type = await make_thumbnail(encode(source, "PNG"))
    assert opened(thumbnail).size == (THUMBNAIL_SIDE, 300)
    assert content_type == ("image/webp" if mode in ("LA", "RGBA") else "image/jpeg")


async def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    thumbnail, _ = await make_thumbnail(encode(Image.new("I;16", (8, 8), 0x8000), "PNG"))
    assert opened(thumbnail).getpixel((4, 4)) == pytest.approx(0x80, abs=2)


async def test_small_pictures_are_not_enlarged() -> None:
    thumbnail, _ = await make_thumbnail(encode(picture(30, 20), "JPEG"))
    assert opened(thumbnail).size == (30, 20)


async def test_the_thumbnail_of_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (50, 50), colour) for colour in ("red", "green", "blue")]
    for format in ("GIF", "WEBP"):
        thumbnail, _ = await make_thumbnail(encode(frames[0], format, save_all=True, append_images=frames[1:]))
        red, green, blue = opened(thumbnail).convert("RGB").getpixel((25, 25))  # type: ignore[misc]
        assert red > 200 > green + blue


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_thumbnails_are_upright_and_without_metadata(orientation: int) -> None:
    upright = Image.new("RGB", (400, 200), "white")
    upright.paste("black", (0, 0, 200, 100))
    # What a camera held otherwise would have stored: the inverse of what the viewer has to do.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[DESCRIPTION] = "where I live"
    data = encode(stored, "JPEG", exif=exif, comment=b"where I live", icc_profile=b"where I live")
    thumbnail, _ = await make_thumbnail(data)
    image = opened(thumbnail).convert("L")
    assert image.size == (400, 200)
    corners = [image.getpixel((x, y)) for x, y in ((20, 20), (380, 20), (20, 180), (380, 180))]
    assert [value > 127 for value in corners] == [False, True, True, True]  # type: ignore[operator]
    assert b"where I live" in data
    assert b"where I live" not in thumbnail
    assert not dict(opened(thumbnail).getexif())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
async def test_a_picture_with_broken_metadata_is_a_picture() -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0"
    data = encode(picture(60, 40), "JPEG", exif=broken)
    thumbnail, _ = await make_thumbnail(data)
    assert opened(thumbnail).size == (60, 40)
