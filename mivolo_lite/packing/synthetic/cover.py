"""Objects that hide a face. They are independent of the person."""

import numpy as np

from mivolo_lite.packing.synthetic.canvas import Canvas, Colour, mix, shade


def draw_cover(canvas: Canvas, rng: np.random.Generator, skin: Colour) -> None:
    """Cover the face of a head, in the head's coordinates, with a random object."""
    colour = tuple(rng.uniform(30, 230, 3))
    _COVERS[rng.integers(len(_COVERS))](canvas, rng, colour, skin)


def _board(canvas: Canvas, rng: np.random.Generator, colour: Colour, skin: Colour) -> None:
    """A book held before the face."""
    w, h = rng.uniform(0.46, 0.56), rng.uniform(0.5, 0.58)
    canvas.fill([(-w, -h + 0.1), (w, -h + 0.06), (w, h), (-w, h + 0.04)], colour)
    canvas.fill(
        [(-w * 0.8, -h * 0.4), (w * 0.8, -h * 0.45), (w * 0.8, -h * 0.2), (-w * 0.8, -h * 0.15)], shade(colour, 1.3)
    )
    for side in (-1, 1):
        canvas.ellipse(side * w, h * 0.6, 0.08, 0.13, skin)


def _ball(canvas: Canvas, rng: np.random.Generator, colour: Colour, skin: Colour) -> None:
    """A balloon or ball before the face."""
    radius = rng.uniform(0.5, 0.58)
    canvas.ellipse(0, 0, radius * 0.94, radius, colour)
    canvas.ellipse(-0.2, -0.22, 0.09, 0.12, mix(colour, (255, 255, 255), 0.5))


def _wrap(canvas: Canvas, rng: np.random.Generator, colour: Colour, skin: Colour) -> None:
    """A scarf up to dark glasses, and a cap down to them."""
    canvas.blob([(-0.46, -0.1), (-0.42, -0.4), (0, -0.6), (0.42, -0.4), (0.46, -0.1), (0, -0.14)], shade(colour, 0.75))
    for side in (-1, 1):
        canvas.ellipse(side * 0.17, 0.0, 0.17, 0.13, (24, 24, 28))
    canvas.blob([(-0.46, 0.04), (0, 0.09), (0.46, 0.04), (0.43, 0.4), (0.2, 0.58), (-0.2, 0.58), (-0.43, 0.4)], colour)
    for y in (0.2, 0.32, 0.44):
        canvas.stroke([(-0.4, y), (0, y + 0.06), (0.4, y)], 0.02, shade(colour, 0.8))


def _mask(canvas: Canvas, rng: np.random.Generator, colour: Colour, skin: Colour) -> None:
    """A painted mask with eye holes."""
    canvas.blob(
        [(0, -0.52), (0.36, -0.42), (0.45, 0.0), (0.34, 0.38), (0, 0.55), (-0.34, 0.38), (-0.45, 0.0), (-0.36, -0.42)],
        colour,
    )
    for side in (-1, 1):
        canvas.ellipse(side * 0.17, 0.0, 0.09, 0.05, (16, 14, 16))
    canvas.stroke([(-0.2, 0.28), (0, 0.34), (0.2, 0.28)], 0.05, shade(colour, 0.5))
    canvas.fill([(-0.06, 0.2), (0, -0.05), (0.06, 0.2)], shade(colour, 0.8))


def _hands(canvas: Canvas, rng: np.random.Generator, colour: Colour, skin: Colour) -> None:
    """Gloved hands before the face."""
    for side in (-1, 1):
        canvas.ellipse(side * 0.2, 0.24, 0.24, 0.3, colour)
        for finger in range(4):
            x = side * (0.05 + 0.11 * finger)
            canvas.line(
                [(x, 0.2), (x * 0.95, -0.36 + 0.03 * abs(finger - 1))],
                0.12,
                mix(colour, shade(colour, 0.85), finger % 2),
            )


_COVERS = (_board, _ball, _wrap, _mask, _hands)
