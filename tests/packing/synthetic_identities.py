"""A folder per person of synthetic faces: of one person the head is always the same; pose, light and place are not."""

from pathlib import Path

import numpy as np

from mivolo_lite.packing.crops import CropRules, cut_face, encode
from mivolo_lite.packing.synthetic.canvas import Canvas
from mivolo_lite.packing.synthetic.head import Head
from mivolo_lite.packing.synthetic.person import Person
from mivolo_lite.packing.synthetic.scene import background, expose

SIDE = 96


def draw_identities(folder: Path, people: int, images: int, side: int = SIDE) -> None:
    """``folder/person-0007/3.jpg``, each ``side`` pixels."""
    for number in range(people):
        (folder / f"person-{number:04d}").mkdir(parents=True)
        for shot in range(images):
            face = draw_face(number, shot)
            (folder / f"person-{number:04d}" / f"{shot}.jpg").write_bytes(encode(face, side))


def draw_face(number: int, shot: int) -> np.ndarray:
    """(H, W, 3) uint8: one image of person ``number``."""
    who, how = np.random.default_rng([1, number]), np.random.default_rng([2, number, shot])
    person = Person.at_random(who)
    head = Head(person, who)
    head.rng = np.random.default_rng([3, number])  # beard, spots and glasses stay
    head.yaw, head.smile = float(np.clip(how.normal(0, 0.4), -1, 1)), float(np.clip(how.normal(0.35, 0.4), -0.6, 1))
    image = background(240, 240, 225, how)
    canvas = Canvas(image, tuple(122 + how.normal(0, 3, 2)), 165 * how.uniform(0.92, 1.08), how.normal(0, 0.05))
    head.draw_behind(canvas)
    head.draw(canvas)
    return cut_face(expose(image, how), (28, 28, 212, 212), CropRules())
