"""A photo of one synthetic person: a pure function of a seed and a number."""

from dataclasses import dataclass

import numpy as np

from mivolo_lite.packing.crops import Box
from mivolo_lite.packing.synthetic.body import Body
from mivolo_lite.packing.synthetic.canvas import Canvas
from mivolo_lite.packing.synthetic.cover import draw_cover
from mivolo_lite.packing.synthetic.head import Head
from mivolo_lite.packing.synthetic.person import Ages, Person, at_age
from mivolo_lite.packing.synthetic.scene import background, expose

WIDTH, HEIGHT = 432, 576


@dataclass(frozen=True)
class SyntheticPhoto:
    """A photo and its contents.

    Attributes:
        image: (576, 432, 3) uint8 RGB.
        person: the one person in it.
        face: box around the face, in pixels.
        body: box around the whole figure, in pixels.
        covered: whether the face is covered.
    """

    image: np.ndarray
    person: Person
    face: Box
    body: Box
    covered: bool


def render_photo(seed: int, number: int, covered: float = 0.0, ages: Ages = "population") -> SyntheticPhoto:
    """Render photo ``number`` of the series ``seed``.

    Args:
        seed: of the series.
        number: of the photo.
        covered: share of the photos with a covered face. It does not change anything else in the photos.
        ages: distribution of the ages.
    """
    rng = np.random.default_rng([seed, number])
    cover_rng = np.random.default_rng([seed, number, 1])
    person = Person.at_random(rng, ages)
    head, body = Head(person, rng), Body(person, rng)

    # children are closer to the camera, so that height in the photo is not informative
    tall = at_age(person.body_age, (0, 6, 18), (0.72, 0.84, 1.0)) * rng.uniform(0.84, 1.0) * 0.9 * HEIGHT
    ground = (rng.uniform(0.4, 0.6) * WIDTH, rng.uniform(0.955, 0.985) * HEIGHT)
    image = background(WIDTH, HEIGHT, int(ground[1] - rng.uniform(0.06, 0.25) * HEIGHT), rng)
    canvas = Canvas(image, ground, tall, rng.normal(0, 0.025))
    head_pen = canvas.child(body.head, body.head_height, body.head_angle)

    canvas.ellipse(0.02, -0.005, 0.17, 0.022, image[-1, WIDTH // 2].astype(float) * 0.6)
    head.draw_behind(head_pen)
    body.draw(canvas)
    head.draw(head_pen)
    is_covered = bool(cover_rng.random() < covered)
    if is_covered:
        draw_cover(head_pen, cover_rng, person.skin)
    face_box, body_box = _face_box(head_pen, head, rng), _body_box(canvas, rng)
    return SyntheticPhoto(expose(image, rng), person, face_box, body_box, is_covered)


def _face_box(canvas: Canvas, head: Head, rng: np.random.Generator) -> Box:
    """A nearly square box from the hair to the chin and from ear to ear, with a detector's random error."""
    x, y = canvas.place(0.03 * head.yaw, 0.0)
    half = canvas.scale * rng.normal(0.53, 0.015)
    return _box(x - 0.94 * half, y - half, x + 0.94 * half, y + half, rng, 0.02 * canvas.scale)


def _body_box(canvas: Canvas, rng: np.random.Generator) -> Box:
    """A box around the whole figure with arms by its sides."""
    x, y = canvas.origin
    return _box(
        x - 0.24 * canvas.scale,
        y - 1.04 * canvas.scale,
        x + 0.24 * canvas.scale,
        y + 0.02 * canvas.scale,
        rng,
        0.012 * canvas.scale,
    )


def _box(x0: float, y0: float, x1: float, y1: float, rng: np.random.Generator, error: float) -> Box:
    corners = np.rint(np.array([x0, y0, x1, y1]) + rng.normal(0, error, 4))
    return tuple(np.clip(corners, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)).astype(int).tolist())
