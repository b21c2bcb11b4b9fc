"""Simple drawn pictures of buildings and floor plans, so that the demo data needs nothing from elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from reos.integrations.images import THUMBNAIL_QUALITY, THUMBNAIL_SIDE

WIDTH, HEIGHT = 640, 480  # pixels
QUALITY = 82
GROUND = 370  # where buildings stand, in pixels from the top

_FINER = 2  # drawn so much larger and then reduced, which smooths the edges

Colour = tuple[int, int, int]

_SKIES: list[tuple[Colour, Colour]] = [
    ((120, 178, 226), (222, 238, 248)),
    ((92, 150, 210), (250, 226, 196)),
    ((150, 190, 215), (236, 240, 240)),
]
_GRASS: list[Colour] = [(118, 160, 84), (136, 168, 92), (104, 148, 92)]
_WALLS: list[Colour] = [
    (236, 226, 206), (202, 112, 86), (176, 196, 206), (240, 238, 232),
    (214, 190, 150), (150, 164, 148), (196, 178, 190),
]  # fmt: skip
_ROOFS: list[Colour] = [(92, 70, 62), (120, 62, 52), (72, 80, 90), (104, 96, 84)]
_DOORS: list[Colour] = [(150, 50, 44), (44, 78, 104), (60, 92, 66), (112, 76, 44)]
_LEAVES: list[Colour] = [(74, 118, 60), (92, 134, 66), (60, 104, 68)]
_GLASS: Colour = (162, 202, 222)
_LIT: Colour = (250, 222, 150)
_FRAME: Colour = (250, 250, 248)
_STREET: Colour = (120, 122, 126)
_TRUNK: Colour = (104, 78, 56)
_INK: Colour = (70, 74, 80)


class _Canvas:
    """A drawing in the pixels of the finished picture."""

    def __init__(self, background: Colour = (255, 255, 255)):
        self.image = Image.new("RGB", (WIDTH * _FINER, HEIGHT * _FINER), background)
        self._draw = ImageDraw.Draw(self.image)

    def box(self, x: float, y: float, width: float, height: float, fill: Colour, line: Colour | None = None) -> None:
        corners = (x * _FINER, y * _FINER, (x + width) * _FINER, (y + height) * _FINER)
        self._draw.rectangle(corners, fill, line, width=3 * _FINER if line else 1)

    def shape(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self._draw.polygon([(x * _FINER, y * _FINER) for x, y in points], fill)

    def round(self, x: float, y: float, radius: float, fill: Colour) -> None:
        self._draw.ellipse([c * _FINER for c in (x - radius, y - radius, x + radius, y + radius)], fill)

    def finish(self) -> Image.Image:
        return self.image.reduce(_FINER)


def draw_outside(property_type: str, rng: Random) -> Image.Image:
    """What a building of this type may look like from the street; for land a field."""
    canvas = _Canvas()
    _draw_surroundings(canvas, rng, has_street=property_type != "land")
    _DRAWERS[property_type](canvas, rng)
    return canvas.finish()


def draw_plan(bedrooms: int, rng: Random) -> Image.Image:
    """A floor plan: a wide room, and rooms on either side of a corridor."""
    canvas = _Canvas((246, 244, 238))
    left, top, width, height = 70, 60, 500, 360
    canvas.box(left, top, width, height, (255, 255, 255), _INK)
    living = width * rng.uniform(0.34, 0.44)
    canvas.box(left, top, living, height, (240, 232, 214), _INK)
    rooms = min(bedrooms, 5) + 2  # with bath and kitchen
    above = (rooms + 1) // 2
    corridor = 44
    depth = (height - corridor) / 2
    for row, number, y in ((0, above, top), (1, rooms - above, top + depth + corridor)):
        room_width = (width - living) / number
        for index in range(number):
            x = left + living + index * room_width
            fill = (222, 234, 240) if row == 1 and index == 0 else (250, 248, 242)
            canvas.box(x, y, room_width, depth, fill, _INK)
            door_y = y + depth if row == 0 else y
            canvas.box(x + room_width / 2 - 14, door_y - 2, 28, 6, (255, 255, 255))
    for index in range(3):
        canvas.box(left - 3, top + 50 + index * 110, 8, 60, _GLASS)
    return canvas.finish()


def to_jpeg(image: Image.Image) -> tuple[bytes, bytes]:
    """The picture, and its thumbnail as an upload would get it."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), reducing_gap=None)
    return _encode(image, QUALITY), _encode(small, THUMBNAIL_QUALITY)


def _encode(image: Image.Image, quality: int) -> bytes:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return written.getvalue()


def _draw_surroundings(canvas: _Canvas, rng: Random, *, has_street: bool) -> None:
    high, low = rng.choice(_SKIES)
    bands = 60
    for band in range(bands):
        part = band / (bands - 1)
        red, green, blue = (round(a + (b - a) * part) for a, b in zip(high, low, strict=True))
        canvas.box(0, band * GROUND / bands, WIDTH, GROUND / bands + 1, (red, green, blue))
    if rng.random() < 0.6:
        canvas.round(rng.randrange(60, 580), rng.randrange(50, 120), 26, (252, 240, 206))
    for _ in range(3):
        x, y = rng.randrange(0, WIDTH), rng.randrange(40, 150)
        for offset, radius in ((-30, 14), (0, 22), (28, 16)):
            canvas.round(x + offset, y, radius, (250, 250, 250))
    canvas.box(0, GROUND, WIDTH, HEIGHT - GROUND, rng.choice(_GRASS))
    if has_street:
        canvas.box(0, 446, WIDTH, 34, _STREET)
        canvas.box(0, 440, WIDTH, 6, (206, 204, 198))
    for x in (rng.randrange(24, 110), rng.randrange(530, 616)):
        _draw_tree(canvas, rng, x, GROUND + 12)


def _draw_tree(canvas: _Canvas, rng: Random, x: float, y: float) -> None:
    height = rng.randrange(110, 190)
    leaves = rng.choice(_LEAVES)
    canvas.box(x - 6, y - height / 2, 12, height / 2, _TRUNK)
    for dx, dy, radius in ((-24, 0, 30), (24, 4, 30), (0, -26, 36)):
        canvas.round(x + dx, y - height * 0.66 + dy, radius, leaves)


def _draw_window(canvas: _Canvas, rng: Random, x: float, y: float, width: float, height: float) -> None:
    canvas.box(x - 3, y - 3, width + 6, height + 6, _FRAME)
    canvas.box(x, y, width, height, _LIT if rng.random() < 0.15 else _GLASS)
    canvas.box(x + width / 2 - 1, y, 2, height, _FRAME)


def _draw_windows(
    canvas: _Canvas, rng: Random, x: float, y: float, width: float, height: float, columns: int, rows: int
) -> None:
    """A grid of windows on a wall."""
    across, down = width / columns, height / rows
    for row in range(rows):
        for column in range(columns):
            _draw_window(
                canvas,
                rng,
                x + column * across + across * 0.26,
                y + row * down + down * 0.24,
                across * 0.48,
                down * 0.52,
            )


def _draw_gable(canvas: _Canvas, x: float, y: float, width: float, height: float, fill: Colour) -> None:
    canvas.shape([(x - 18, y), (x + width / 2, y - height), (x + width + 18, y)], fill)


def _draw_house(canvas: _Canvas, rng: Random) -> None:
    width, height = rng.randrange(230, 290), rng.randrange(124, 156)
    x, y = rng.randrange(150, 210), GROUND - height
    wall, roof, door = rng.choice(_WALLS), rng.choice(_ROOFS), rng.choice(_DOORS)
    if rng.random() < 0.7:
        canvas.box(x + width, GROUND - 96, 112, 96, wall)
        canvas.shape(
            [(x + width - 6, GROUND - 96), (x + width + 20, GROUND - 130), (x + width + 124, GROUND - 96)], roof
        )
        canvas.box(x + width + 18, GROUND - 70, 78, 70, _FRAME)
        for line in range(1, 4):
            canvas.box(x + width + 18, GROUND - 70 + line * 17, 78, 2, (208, 206, 200))
    canvas.box(x + width * 0.72, y - 96, 26, 70, roof)
    canvas.box(x, y, width, height, wall)
    _draw_gable(canvas, x, y, width, rng.randrange(84, 116), roof)
    canvas.round(x + width / 2, y - 36, 15, _FRAME)
    canvas.round(x + width / 2, y - 36, 11, _GLASS)
    for part in (0.12, 0.66):
        _draw_window(canvas, rng, x + width * part, y + 36, width * 0.22, 52)
    canvas.box(x + width / 2 - 21, GROUND - 82, 42, 82, door)
    canvas.round(x + width / 2 + 13, GROUND - 38, 3, _LIT)
    canvas.shape(
        [
            (x + width / 2 - 22, GROUND),
            (x + width / 2 + 22, GROUND),
            (x + width / 2 + 44, 440),
            (x + width / 2 - 44, 440),
        ],
        (204, 196, 182),
    )


def _draw_row(canvas: _Canvas, rng: Random) -> None:
    width, height = 118, 226
    roof = rng.choice(_ROOFS)
    for index, wall in enumerate(rng.sample(_WALLS, 3)):
        x, y = 142 + index * width, GROUND - height
        canvas.box(x, y, width, height, wall)
        canvas.shape([(x, y), (x + width / 2, y - 52), (x + width, y)], roof)
        _draw_windows(canvas, rng, x, y + 4, width, height * 0.62, 2, 2)
        canvas.box(x + 16, GROUND - 72, 34, 72, rng.choice(_DOORS))
        _draw_window(canvas, rng, x + 66, GROUND - 64, 34, 42)


def _draw_tower(canvas: _Canvas, rng: Random) -> None:
    width, height = rng.randrange(180, 240), rng.randrange(270, 320)
    x, y = (WIDTH - width) / 2, GROUND - height
    wall = rng.choice(_WALLS)
    floors, columns = height // 42, rng.choice((3, 4))
    canvas.box(x, y, width, height, wall)
    canvas.box(x - 6, y - 10, width + 12, 12, rng.choice(_ROOFS))
    _draw_windows(canvas, rng, x, y + 4, width, height - 50, columns, floors - 1)
    for floor in range(1, floors):
        canvas.box(x - 16, y + floor * (height - 46) / (floors - 1) - 6, 34, 4, _INK)
    canvas.box(x + width / 2 - 34, GROUND - 44, 68, 44, _GLASS)
    canvas.box(x + width / 2 - 44, GROUND - 50, 88, 7, _INK)


def _draw_block(canvas: _Canvas, rng: Random) -> None:
    width, height = 390, rng.randrange(196, 232)
    x, y = (WIDTH - width) / 2, GROUND - height
    canvas.box(x, y, width, height, rng.choice(_WALLS))
    canvas.box(x - 8, y - 12, width + 16, 14, rng.choice(_ROOFS))
    _draw_windows(canvas, rng, x, y, width, height * 0.7, 6, 2)
    for part in (0.2, 0.72):
        canvas.box(x + width * part, GROUND - 62, 34, 62, rng.choice(_DOORS))
        _draw_window(canvas, rng, x + width * part + 58, GROUND - 54, 36, 34)


def _draw_shop(canvas: _Canvas, rng: Random, floors: int = 0) -> None:
    width, height = 360, 130 + floors * 78
    x, y = (WIDTH - width) / 2, GROUND - height
    colour = rng.choice(_DOORS)
    canvas.box(x, y, width, height, rng.choice(_WALLS))
    canvas.box(x - 6, y - 12, width + 12, 16, rng.choice(_ROOFS))
    if floors:
        _draw_windows(canvas, rng, x, y, width, floors * 78, 5, floors)
    canvas.box(x + 24, GROUND - 122, width - 48, 22, _INK)
    for part in range(2):
        canvas.box(x + 24 + part * (width / 2 + 10), GROUND - 76, width / 2 - 58, 66, _GLASS, _FRAME)
    canvas.box(x + width / 2 - 24, GROUND - 80, 48, 80, colour)
    stripes = 12
    for stripe in range(stripes):
        left = x + 14 + stripe * (width - 28) / stripes
        fill = colour if stripe % 2 else _FRAME
        step = (width - 28) / stripes
        canvas.shape(
            [(left, GROUND - 98), (left + step, GROUND - 98), (left + step - 3, GROUND - 78), (left - 3, GROUND - 78)],
            fill,
        )


def _draw_mixed(canvas: _Canvas, rng: Random) -> None:
    _draw_shop(canvas, rng, floors=2)


def _draw_hall(canvas: _Canvas, rng: Random) -> None:
    x, y, width = 96, GROUND - 130, 450
    wall, roof = rng.choice(_WALLS), rng.choice(_ROOFS)
    teeth = 5
    step = width / teeth
    for tooth in range(teeth):
        left = x + tooth * step
        canvas.shape([(left, y), (left, y - 46), (left + step, y)], roof)
        canvas.shape([(left + 6, y - 6), (left + 6, y - 32), (left + 44, y - 6)], _GLASS)
    canvas.box(x, y, width, 130, wall)
    for dock in range(4):
        canvas.box(x + 26 + dock * 106, GROUND - 78, 74, 78, (214, 214, 210), _INK)
        for line in range(1, 5):
            canvas.box(x + 29 + dock * 106, GROUND - 78 + line * 15, 68, 2, (186, 186, 182))


def _draw_field(canvas: _Canvas, rng: Random) -> None:
    hill = rng.choice(_LEAVES)
    canvas.shape([(0, GROUND), (0, 320), (180, 286), (360, 330), (520, 296), (WIDTH, 326), (WIDTH, GROUND)], hill)
    for furrow in range(7):
        top = WIDTH / 2 + (furrow - 3) * 40
        bottom = WIDTH / 2 + (furrow - 3) * 130
        canvas.shape([(top, GROUND), (top + 6, GROUND), (bottom + 16, HEIGHT), (bottom, HEIGHT)], (150, 140, 96))
    for post in range(14):
        canvas.box(10 + post * 48, GROUND - 26, 6, 40, _TRUNK)
    for rail in (GROUND - 18, GROUND - 4):
        canvas.box(0, rail, WIDTH, 4, _TRUNK)


_DRAWERS: dict[str, Callable[[_Canvas, Random], None]] = {
    "single_family": _draw_house,
    "townhouse": _draw_row,
    "condo": _draw_tower,
    "multi_family": _draw_block,
    "commercial": _draw_shop,
    "industrial": _draw_hall,
    "mixed_use": _draw_mixed,
    "land": _draw_field,
}
