"""A body below the head, in heights of the upright figure: (0, 0) is the ground between the feet, y = -1 the crown."""

import colorsys

import numpy as np

from mivolo_lite.packing.synthetic.canvas import Canvas, Colour, Point, curve, mix, shade
from mivolo_lite.packing.synthetic.person import Person, at_age


class Body:
    """One person's body, with the random choices that do not depend on age.

    Args:
        person: the person.
        rng: of pose, build and clothes.

    Attributes:
        head_height: from chin to crown, in heights of the figure.
        head: centre of the head.
        head_angle: angle of the head in radians.
    """

    def __init__(self, person: Person, rng: np.random.Generator):
        age, male = person.body_age, person.masculine
        self.person = person
        self.rng = rng
        heads = at_age(age, (0, 1, 3, 6, 10, 14, 18, 25, 90), (3.3, 3.5, 3.9, 4.4, 4.9, 5.3, 5.6, 5.7, 5.6))
        self.head_height = 1 / (heads * float(np.exp(rng.normal(0, 0.025))))
        self.hip_y = -at_age(age, (0, 2, 6, 12, 18), (0.28, 0.32, 0.38, 0.43, 0.455))
        self.build = float(np.exp(rng.normal(0, 0.12)))
        grown = at_age(age, (10, 18), (0, 1))
        self.shoulder = at_age(age, (0, 4, 12, 18, 60, 90), (0.125, 0.118, 0.115, 0.122, 0.122, 0.11))
        self.shoulder += 0.014 * male * grown
        self.hip = at_age(age, (0, 4, 12, 18, 60), (0.11, 0.098, 0.09, 0.093, 0.103)) - 0.006 * male * grown
        spread = at_age(age, (0, 2, 8, 22, 45, 65, 90), (0.125, 0.112, 0.088, 0.08, 0.1, 0.115, 0.108))
        self.waist = spread * self.build + 0.006 * male * grown
        self.bent = float(np.clip((age - 52) / 38, 0, 1.2)) * rng.uniform(0.35, 1.15)
        self.facing = 1 if rng.random() < 0.5 else -1

        self.neck_y = -(1 - self.head_height) + 0.05 * self.bent
        lean = self.facing * 0.085 * self.bent
        self.neck = (lean + rng.normal(0, 0.006), self.neck_y)
        self.head_angle = rng.normal(0, 0.07) + 0.12 * self.facing * self.bent
        self.head = (
            self.neck[0] + self.facing * 0.045 * self.bent + 0.45 * self.head_height * np.sin(self.head_angle),
            self.neck_y - 0.47 * self.head_height + 0.02 * self.bent,
        )
        self._dress()

    def _dress(self) -> None:
        """Random clothes; their style depends a little on age, and colours fade with it."""
        rng, age = self.rng, self.person.body_age
        vivid = at_age(age, (3, 20, 50, 85), (0.62, 0.5, 0.42, 0.26))
        self.top = _cloth(rng, vivid)
        self.bottom = _cloth(rng, vivid * 0.6)
        self.shoes = shade(_cloth(rng, 0.25), 0.6)
        woman = self.person.gender == "F"
        self.skirt = rng.random() < (0.42 if woman else 0.02)
        self.skirt_end = self.hip_y * rng.uniform(0.3, 0.75)
        self.shorts = rng.random() < at_age(age, (1, 10, 20, 60), (0.5, 0.4, 0.22, 0.06))
        self.long_sleeves = rng.random() < at_age(age, (2, 20, 70), (0.4, 0.45, 0.72))
        self.pattern = rng.choice(("plain", "stripes", "print", "jacket", "cardigan"), p=_pattern_odds(age))

    def draw(self, canvas: Canvas) -> None:
        """Everything but the head."""
        self._legs(canvas)
        arms = [self._arm_pose(-1), self._arm_pose(1)]
        self._arm(canvas, arms[0])
        self._neck(canvas)
        self._torso(canvas)
        self._arm(canvas, arms[1])
        self._stick(canvas, arms[1 if self.facing > 0 else 0][2])

    def _spine(self, y: float) -> float:
        """Forward displacement of the trunk at a height."""
        up = min(max((self.hip_y - y) / (self.hip_y - self.neck_y), 0.0), 1.0)
        return self.neck[0] * up**1.6

    def _shoulder_y(self) -> float:
        return self.neck_y + 0.045 + 0.012 * self.bent

    def _legs(self, canvas: Canvas) -> None:
        rng = self.rng
        thick = at_age(self.person.body_age, (0, 3, 10, 25, 60, 90), (0.088, 0.08, 0.068, 0.072, 0.07, 0.055))
        thick *= 0.5 + 0.5 * self.build
        stance = rng.uniform(0.035, 0.08)
        cover = self.person.skin if self.skirt else self.bottom
        for side in (-1, 1):
            hip = (side * self.hip * 0.48, self.hip_y)
            knee = (side * (stance + 0.005) + self.facing * 0.05 * self.bent, self.hip_y * 0.52)
            foot = (side * stance + rng.normal(0, 0.008), -0.02)
            shin = self.person.skin if self.skirt or self.shorts else self.bottom
            canvas.line([knee, foot], thick * 0.72, shin)
            canvas.line([hip, knee], thick, cover)
            canvas.ellipse(foot[0] + side * 0.012, -0.012, 0.042, 0.02, self.shoes)

    def _neck(self, canvas: Canvas) -> None:
        skin, wide = shade(self.person.skin, 0.86), self.head_height * (0.2 + 0.025 * self.person.masculine)
        x, y = self.neck
        hx = self.head[0]
        canvas.fill(
            [(hx - wide, y - 0.04), (hx + wide, y - 0.04), (x + wide * 1.3, y + 0.04), (x - wide * 1.3, y + 0.04)], skin
        )
        folds = float(np.clip((self.person.face_age - 42) / 40, 0, 1))
        for row in range(2):
            if folds > 0.1:
                height = y - 0.002 + 0.012 * row
                canvas.stroke(
                    [(x - wide * 0.8, height), (x, height + 0.005), (x + wide * 0.8, height)],
                    0.003,
                    mix(skin, shade(skin, 0.5), folds),
                )

    def _sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The trunk's right and left edge from the neck down, as smooth curves (n, 2)."""
        top, sh = self._shoulder_y(), self.shoulder
        middle = (top + self.hip_y) / 2
        profile = [
            (sh * 0.42, top - 0.04),
            (sh * 0.94, top - 0.008),
            (sh, top + 0.035),
            (max(self.waist, sh * 0.72), middle),
            (self.waist * 1.02, middle + 0.55 * (self.hip_y - middle)),
            (max(self.hip, self.waist * 0.92), self.hip_y + 0.02),
        ]
        right = curve([(x + self._spine(y), y) for x, y in profile], closed=False)
        left = curve([(-x + self._spine(y), y) for x, y in profile], closed=False)
        return right, left

    def _torso(self, canvas: Canvas) -> None:
        right, left = self._sides()
        if self.skirt:
            flare = self.hip * self.rng.uniform(1.1, 1.7)
            canvas.fill(
                [
                    (self.hip * 0.95, self.hip_y),
                    (flare, self.skirt_end),
                    (-flare, self.skirt_end),
                    (-self.hip * 0.95, self.hip_y),
                ],
                self.bottom,
            )
        else:
            canvas.fill(
                [right[-1], (self.hip, self.hip_y + 0.05), (-self.hip, self.hip_y + 0.05), left[-1]], self.bottom
            )
        canvas.fill(np.concatenate([right, left[::-1]]), self.top)
        self._decorate(canvas, right, left)
        # the side opposite to the facing direction is in the shade
        edge = right if self.facing < 0 else left
        inner = edge[5:] * (0.72, 1) + (0.28 * np.array([self._spine(y) for y in edge[5:, 1]])[:, None] * (1, 0))
        canvas.fill(np.concatenate([edge[5:], inner[::-1]]), shade(self.top, 0.86))

    def _decorate(self, canvas: Canvas, right: np.ndarray, left: np.ndarray) -> None:
        rng, accent = self.rng, _cloth(self.rng, 0.4)
        collar, hem = right[4], right[-1]
        if self.pattern == "stripes":
            for start in range(6, len(right) - 2, 4):
                band = np.concatenate([right[start : start + 3], left[start : start + 3][::-1]])
                canvas.fill(band, accent)
        elif self.pattern == "print":
            y = (self._shoulder_y() + self.hip_y) / 2 - 0.03
            canvas.ellipse(self._spine(y), y, rng.uniform(0.03, 0.05), rng.uniform(0.03, 0.05), accent)
        elif self.pattern in ("jacket", "cardigan"):
            top, x = collar[1], self._spine(collar[1])
            gap = 0.035 if self.pattern == "jacket" else 0.018
            low = self.hip_y - (0.1 if self.pattern == "jacket" else 0.0)
            canvas.fill([(x - gap, top - 0.03), (x + gap, top - 0.03), (self._spine(low), low)], accent)
            canvas.line([(self._spine(low), low), (self._spine(hem[1]), hem[1])], 0.004, shade(self.top, 0.6))
            if self.pattern == "cardigan":
                for step in (0.35, 0.55, 0.75, 0.92):
                    y = top + step * (hem[1] - top)
                    canvas.ellipse(self._spine(y) + 0.012, y, 0.006, 0.006, shade(self.top, 0.55))
        # the neckline
        x, y = self.neck
        canvas.ellipse(
            x, y + 0.035, self.head_height * 0.27, 0.018 + 0.012 * rng.random(), shade(self.person.skin, 0.86)
        )

    def _arm_pose(self, side: int) -> tuple[Point, Point, Point]:
        """Shoulder, elbow and hand of one arm."""
        rng, age = self.rng, self.person.body_age
        shoulder_y = self._shoulder_y() + 0.02
        shoulder = (side * self.shoulder * 0.92 + self._spine(shoulder_y), shoulder_y)
        length = at_age(age, (0, 6, 18), (0.125, 0.15, 0.175))
        raised = rng.random() < at_age(age, (1, 8, 20, 60), (0.3, 0.22, 0.12, 0.05))
        upper = rng.uniform(0.7, 2.2) if raised else rng.uniform(0.08, 0.4)
        fore = upper + (rng.uniform(0.2, 1.0) if raised else -rng.uniform(0.1, 0.75))
        elbow = (shoulder[0] + side * length * np.sin(upper), shoulder[1] + length * np.cos(upper))
        hand = (elbow[0] + side * length * np.sin(fore), elbow[1] + length * np.cos(fore))
        return shoulder, elbow, hand

    def _arm(self, canvas: Canvas, pose: tuple[Point, Point, Point]) -> None:
        shoulder, elbow, hand = pose
        thick = at_age(self.person.body_age, (0, 3, 12, 25, 60, 90), (0.06, 0.052, 0.042, 0.048, 0.05, 0.04))
        thick *= (0.6 + 0.4 * self.build) * (1 + 0.08 * self.person.masculine)
        sleeve = shade(self.top, 0.93)
        canvas.ellipse(*hand, 0.024, 0.026, self.person.skin)
        if self.long_sleeves:
            canvas.line([shoulder, elbow, hand], thick, sleeve)
            canvas.ellipse(hand[0], hand[1] + 0.012, 0.02, 0.022, self.person.skin)
        else:
            canvas.line([shoulder, elbow, hand], thick * 0.78, self.person.skin)
            middle = tuple(np.asarray(shoulder) * 0.4 + np.asarray(elbow) * 0.6)
            canvas.line([shoulder, middle], thick, sleeve)

    def _stick(self, canvas: Canvas, hand: Point) -> None:
        if self.rng.random() < at_age(self.person.body_age, (60, 72, 92), (0, 0.22, 0.65)):
            canvas.line([(hand[0], hand[1] - 0.01), (hand[0] + self.facing * 0.03, -0.005)], 0.014, (92, 62, 40))


def _pattern_odds(age: float) -> np.ndarray:
    """Odds of plain, stripes, print, jacket and cardigan."""
    ages = (0, 14, 30, 55, 85)
    odds = (
        (0.3, 0.36, 0.36, 0.36, 0.3),
        (0.32, 0.22, 0.18, 0.14, 0.1),
        (0.32, 0.24, 0.12, 0.06, 0.04),
        (0.0, 0.08, 0.24, 0.28, 0.22),
        (0.06, 0.1, 0.1, 0.16, 0.34),
    )
    weights = np.array([at_age(age, ages, line) for line in odds])
    return weights / weights.sum()


def _cloth(rng: np.random.Generator, vivid: float) -> Colour:
    """A colour of clothes; ``vivid`` is its usual saturation."""
    saturation = float(np.clip(rng.normal(vivid, 0.16), 0.03, 0.9))
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.25, 0.92))
    return 255 * red, 255 * green, 255 * blue
