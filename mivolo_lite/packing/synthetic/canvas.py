"""Smooth, anti-aliased shapes in local coordinates."""

from collections.abc import Iterable, Sequence
from functools import cache
from math import cos, degrees, sin

import cv2
import numpy as np

_SHIFT = 4  # OpenCV takes fixed-point coordinates: sixteenths of a pixel
_PARTS = 5  # straight segments of a smooth curve between two given points

Colour = tuple[float, float, float]
Point = tuple[float, float]
Points = Sequence[Point] | np.ndarray


def mix(start: Iterable[float], end: Iterable[float], share: float) -> Colour:
    """The colour ``share`` of the way from ``start`` to ``end``."""
    red, green, blue = (a + (b - a) * share for a, b in zip(start, end, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (``factor`` below 1) or lighter, clipped to a byte."""
    red, green, blue = (min(255.0, channel * factor) for channel in colour)
    return red, green, blue


class Canvas:
    """Draws on a photo in local coordinates: shifted, scaled and rotated.

    Args:
        image: (H, W, 3) uint8, painted on in place.
        origin: position of (0, 0) in pixels.
        scale: length of a unit in pixels.
        angle: rotation in radians, clockwise on the screen.
    """

    def __init__(self, image: np.ndarray, origin: Point, scale: float, angle: float = 0.0):
        self.image = image
        self.origin = origin
        self.scale = scale
        self.angle = angle
        self._cos, self._sin = scale * cos(angle), scale * sin(angle)
        unit = 1 << _SHIFT
        self._turn = unit * np.array([[self._cos, self._sin], [-self._sin, self._cos]])
        self._start = unit * np.array(origin) + 0.5  # astype truncates, so this rounds

    def place(self, x: float, y: float) -> Point:
        """A point in pixels."""
        return self.origin[0] + x * self._cos - y * self._sin, self.origin[1] + x * self._sin + y * self._cos

    def child(self, origin: Point, scale: float, angle: float = 0.0) -> "Canvas":
        """A canvas in coordinates relative to this one's."""
        return Canvas(self.image, self.place(*origin), self.scale * scale, self.angle + angle)

    def fill(self, points: Points, colour: Colour) -> None:
        """A polygon."""
        cv2.fillPoly(self.image, [self._fixed(points)], colour, cv2.LINE_AA, _SHIFT)

    def blob(self, points: Points, colour: Colour) -> None:
        """A closed smooth curve through the points, filled."""
        self.fill(curve(points, closed=True), colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        unit = 1 << _SHIFT
        centre = [round(unit * place) for place in self.place(x, y)]
        axes = (round(unit * self.scale * rx), round(unit * self.scale * ry))
        cv2.ellipse(self.image, centre, axes, degrees(self.angle), 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def line(self, points: Points, width: float, colour: Colour) -> None:
        """Straight pieces with round ends; never thinner than a pixel."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.image, [self._fixed(points)], False, colour, thickness, cv2.LINE_AA, _SHIFT)

    def stroke(self, points: Points, width: float, colour: Colour) -> None:
        """A smooth curve through the points."""
        self.line(curve(points, closed=False), width, colour)

    def _fixed(self, points: Points) -> np.ndarray:
        return (np.asarray(points) @ self._turn + self._start).astype(np.int32)


def curve(points: Points, closed: bool) -> np.ndarray:
    """Points along the Catmull-Rom spline through the given ones, (n, 2)."""
    return _spline(len(points), closed) @ np.asarray(points)


@cache
def _spline(points: int, closed: bool) -> np.ndarray:
    """The weights (n, points) that turn given points into points along the curve through them."""
    t = np.linspace(0, 1, _PARTS, endpoint=False)
    weights = 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1
    )
    pieces = points if closed else points - 1
    spline = np.zeros((pieces, _PARTS, points))
    for piece in range(pieces):
        for neighbour in range(4):
            point = piece + neighbour - 1
            spline[piece, :, point % points if closed else min(max(point, 0), points - 1)] += weights[:, neighbour]
    rows = spline.reshape(-1, points)
    return rows if closed else np.concatenate([rows, np.eye(points)[-1:]])
