"""A head, in head heights: (0, 0) is its middle, the crown lies at y = -0.5 and the chin at y = 0.5."""

import numpy as np

from mivolo_lite.packing.synthetic.canvas import Canvas, Colour, Point, mix, shade
from mivolo_lite.packing.synthetic.person import Person, at_age

_LIPS = (176.0, 70.0, 76.0)
_DARK = (30.0, 24.0, 26.0)
_EYE_COLOURS = ((70, 46, 30), (88, 62, 36), (70, 96, 120), (82, 100, 70), (50, 36, 28))


class Head:
    """One person's head, with the random choices that do not depend on age.

    Args:
        person: the person.
        rng: of hair style, expression, head pose, glasses and a hat.
    """

    def __init__(self, person: Person, rng: np.random.Generator):
        age = person.face_age
        male = person.masculine
        self.person = person
        self.rng = rng
        self.yaw = float(np.clip(rng.normal(0, 0.5), -1.2, 1.2))
        self.half_width = (
            at_age(age, (0, 3, 10, 18, 60, 90), (0.44, 0.425, 0.395, 0.37, 0.375, 0.36))
            + 0.008 * male
            + rng.normal(0, 0.009)
        )
        self.eye_y = at_age(age, (0, 3, 10, 18, 90), (0.115, 0.085, 0.045, 0.01, 0.0)) + rng.normal(0, 0.008)
        self.jaw = at_age(age, (0, 8, 18, 50, 80), (0.72, 0.68, 0.66, 0.70, 0.75)) + 0.045 * male + rng.normal(0, 0.02)
        self.smile = float(np.clip(rng.normal(0.35, 0.5), -0.6, 1.1))
        self.weathered = float(np.exp(rng.normal(0, 0.22)))

        self.hairline = -0.31 - 0.13 * person.balding + rng.normal(0, 0.012)
        self.fringe = rng.random() < (0.32 if person.gender == "F" else 0.14) * (1 - person.balding)
        self.curly = rng.random() < 0.18
        self.volume = max(0.015, rng.normal(0.045, 0.015)) * (1 - 0.5 * person.balding)
        self.length = self._hair_length()
        self.hat = None if rng.random() > 0.06 else tuple(rng.uniform(40, 220, 3))
        self.glasses = rng.random() < at_age(age, (3, 10, 40, 60, 80), (0.02, 0.12, 0.22, 0.42, 0.5))

    def draw_behind(self, canvas: Canvas) -> None:
        """Hair behind the shoulders; to be painted before the body."""
        if self.length > 0.1:
            width, end = self.half_width + 0.05 + self.volume, 0.1 + self.length
            canvas.blob(
                [(-width * 0.8, -0.3), (0, -0.5), (width * 0.8, -0.3), (width, 0.1), (width * 0.95, end)]
                + [(0, end + 0.03), (-width * 0.95, end), (-width, 0.1)],
                shade(self.person.hair, 0.72),
            )

    def draw(self, canvas: Canvas) -> None:
        """The head itself."""
        features = canvas.child((0.075 * self.yaw, 0), 1)
        self._ears(canvas)
        canvas.blob(self._outline(), self.person.skin)
        self._side_shadow(canvas)
        self._cheeks(features)
        self._spots(features)
        self._wrinkles(features)
        self._beard(canvas, features)
        for side in (-1, 1):
            self._eye(features, side)
        self._nose(features)
        self._mouth(features)
        self._hair(canvas)
        if self.glasses:
            self._glasses(features)
        if self.hat is not None:
            self._hat(canvas, self.hat)

    def _hair_length(self) -> float:
        """How far the hair reaches below the ears, in head heights."""
        age, rng = self.person.age, self.rng
        if age < 2:
            return 0.0
        if self.person.gender == "M":
            return rng.uniform(0.2, 0.5) if rng.random() < 0.08 else 0.0
        short = at_age(age, (2, 5, 20, 50, 75), (0.4, 0.2, 0.15, 0.4, 0.65))
        return 0.0 if rng.random() < short else rng.uniform(0.15, 0.85)

    def _outline(self) -> list[Point]:
        w, jaw = self.half_width, self.jaw
        right = [
            (w * 0.62, -0.44),
            (w * 0.95, -0.26),
            (w, 0.0),
            (w * 0.93, 0.2),
            (w * jaw, 0.39),
            (w * jaw * 0.45, 0.487),
        ]
        return [(0, -0.5)] + right + [(0, 0.5)] + [(-x, y) for x, y in reversed(right)]

    def _line_colour(self, strength: float) -> Colour:
        return mix(self.person.skin, shade(self.person.skin, 0.42), min(1.0, strength))

    def _onset(self, start: float, years: float) -> float:
        """The progress of a sign of age: 0 at the age ``start``, and ``weathered`` after ``years``."""
        return min(max((self.person.face_age - start) / years, 0.0), 1.15) * self.weathered

    def _ears(self, canvas: Canvas) -> None:
        size = at_age(self.person.face_age, (0, 10, 25, 90), (0.085, 0.09, 0.095, 0.135))
        for side in (-1, 1):
            x = side * (self.half_width + 0.012) * (1 - 0.06 * side * self.yaw)
            canvas.ellipse(x, self.eye_y + 0.07, 0.045, size, shade(self.person.skin, 0.93))
            canvas.ellipse(x, self.eye_y + 0.07, 0.022, size * 0.6, shade(self.person.skin, 0.8))

    def _side_shadow(self, canvas: Canvas) -> None:
        """The cheek turned away is darker, and so is what lies under the chin and hollow cheeks."""
        side = -1 if self.yaw > 0 else 1
        w, jaw = self.half_width * side, self.jaw
        edge = [(w * 0.95, -0.26), (w, 0.0), (w * 0.93, 0.2), (w * jaw, 0.39), (w * jaw * 0.45, 0.487)]
        inner = [(w * jaw * 0.35, 0.44), (w * 0.66, 0.2), (w * 0.8, 0.0), (w * 0.82, -0.2)]
        canvas.blob(edge + inner, shade(self.person.skin, 0.9))
        hollow = self._onset(52, 35)
        if hollow > 0:
            for side in (-1, 1):
                canvas.ellipse(
                    side * self.half_width * 0.7,
                    0.22,
                    0.055,
                    0.11,
                    mix(self.person.skin, self._line_colour(0.45), hollow),
                )

    def _cheeks(self, canvas: Canvas) -> None:
        rosy = at_age(self.person.face_age, (0, 6, 16, 40), (0.30, 0.25, 0.12, 0.04)) * self.rng.uniform(0.5, 1.4)
        for side in (-1, 1):
            canvas.ellipse(side * 0.2, self.eye_y + 0.17, 0.085, 0.07, mix(self.person.skin, (214, 96, 90), rosy))

    def _spots(self, canvas: Canvas) -> None:
        age, rng = self.person.face_age, self.rng
        acne = rng.poisson(at_age(age, (11, 14, 18, 24), (0, 3, 3, 0)))
        stains = rng.poisson(at_age(age, (50, 65, 95), (0, 3, 10)))
        for count, colour, size in (
            (acne, mix(self.person.skin, (196, 60, 60), 0.5), 0.011),
            (stains, self._line_colour(0.35), 0.017),
        ):
            for _ in range(count):
                x, y = rng.uniform(-0.27, 0.27), rng.uniform(-0.28, 0.4)
                canvas.ellipse(x, y, size * rng.uniform(0.7, 1.4), size, colour)

    def _wrinkles(self, canvas: Canvas) -> None:
        brow = self.eye_y - 0.11
        forehead = self._onset(30, 50)
        for row in range(3):
            strength = forehead * (0.85 - 0.18 * row)
            if strength > 0.08:
                y, bend = brow - 0.055 - 0.052 * row, self.rng.uniform(-0.008, 0.012)
                reach = self.rng.uniform(0.15, 0.23)
                canvas.stroke(
                    [(-reach, y + bend), (0, y - bend), (reach, y + bend)], 0.011, self._line_colour(strength)
                )
        frown = self._onset(34, 50)
        feet, bags = self._onset(30, 45), self._onset(36, 40)
        smile_line, jowl = self._onset(20, 52) + 0.12 * max(0.0, self.smile), self._onset(50, 38)
        for side in (-1, 1):
            if frown > 0.08:
                line = [(side * 0.028, brow + 0.01), (side * 0.022, brow + 0.065)]
                canvas.line(line, 0.01, self._line_colour(0.7 * frown))
            for rise in (-0.035, 0.0, 0.035):
                if feet > 0.08:
                    corner = (side * 0.262, self.eye_y + 0.012 + rise * 0.5)
                    tip = (side * (0.262 + 0.06 * min(feet, 1)), self.eye_y + 0.012 + rise * 1.7)
                    canvas.line([corner, tip], 0.009, self._line_colour(0.75 * feet))
            if bags > 0.06:
                y = self.eye_y + 0.062
                arc = [(side * 0.09, y - 0.008), (side * 0.155, y + 0.02), (side * 0.22, y - 0.006)]
                canvas.stroke(arc, 0.013, self._line_colour(0.62 * bags))
            if smile_line > 0.05:
                fold = [(side * 0.085, 0.17), (side * 0.135, 0.235), (side * 0.15, 0.30)]
                canvas.stroke(fold, 0.013, self._line_colour(0.75 * smile_line))
            if jowl > 0.05:
                canvas.stroke([(side * 0.125, 0.34), (side * 0.135, 0.41)], 0.013, self._line_colour(0.65 * jowl))
                canvas.stroke(
                    [(side * 0.25, 0.33), (side * 0.215, 0.42), (side * 0.15, 0.45)],
                    0.013,
                    self._line_colour(0.5 * jowl),
                )

    def _beard(self, canvas: Canvas, features: Canvas) -> None:
        person, rng = self.person, self.rng
        lot = rng.random()
        if person.gender == "F" or person.age < 17:
            return
        w, jaw = self.half_width, self.jaw
        if lot < 0.22:
            full = [(w * 0.93, 0.12), (w * 0.95, 0.22), (w * jaw, 0.41), (w * jaw * 0.5, 0.52)]
            inner = [(w * 0.74, 0.16), (0.17, 0.26), (0.08, 0.225)]
            side = [(0, 0.55)] + full[::-1] + inner + [(0, 0.215)]
            canvas.fill(side, person.hair)
            canvas.fill([(-x, y) for x, y in side], person.hair)
        elif lot < 0.36:
            features.blob([(-0.11, 0.245), (0, 0.205), (0.11, 0.245), (0, 0.25)], person.hair)
        elif lot < 0.6:
            shadow = mix(person.skin, person.hair, 0.16)
            features.ellipse(0, 0.37, 0.2, 0.11, shadow)
            features.ellipse(0, 0.235, 0.11, 0.03, shadow)

    def _eye(self, canvas: Canvas, side: int) -> None:
        person, rng = self.person, self.rng
        age = person.face_age
        x, y = side * 0.155, self.eye_y
        rx = at_age(age, (0, 4, 12, 20, 60, 90), (0.092, 0.086, 0.076, 0.070, 0.064, 0.058))
        open_ = rx * at_age(age, (0, 12, 40, 85), (0.74, 0.62, 0.5, 0.36)) * rng.uniform(0.85, 1.1)
        iris = at_age(age, (0, 6, 18), (0.056, 0.048, 0.037))
        canvas.ellipse(x, y, rx, open_, mix((250, 250, 248), (226, 214, 196), self._onset(40, 50)))
        gaze = 0.02 * self.yaw
        canvas.ellipse(x + gaze, y, min(iris, open_ * 1.05), min(iris, open_ * 1.05), self._eye_colour())
        canvas.ellipse(x + gaze, y, iris * 0.45, min(iris * 0.45, open_), (18, 14, 14))
        canvas.ellipse(x + gaze + 0.012, y - 0.4 * open_, 0.009, 0.009, (255, 255, 255))

        droop = self._onset(45, 45) * 0.03
        lashes = 0.022 if person.masculine < -0.4 else 0.012
        lid = [(x - side * rx, y), (x, y - open_ - 0.004), (x + side * rx * 1.04, y + droop)]
        canvas.stroke(lid, lashes, mix(_DARK, person.skin, 0.1))
        if droop > 0.002:
            fold = [(x - side * rx, y - 0.035), (x, y - open_ - 0.022), (x + side * rx * 1.15, y + droop * 0.8)]
            canvas.stroke(fold, 0.014, self._line_colour(0.6 * self._onset(42, 40)))

        thick = (0.016 + 0.009 * max(0.0, person.masculine)) * at_age(age, (0, 10, 20), (0.6, 0.85, 1.1))
        brow_y = y - open_ - at_age(age, (0, 15, 40, 90), (0.075, 0.062, 0.058, 0.048))
        brow = [(x - side * rx, brow_y + 0.012), (x, brow_y - 0.015), (x + side * rx * 1.25, brow_y + 0.012)]
        faint = at_age(person.age, (0, 2, 8), (0.6, 0.3, 0.0))
        canvas.stroke(brow, thick, mix(shade(person.hair, 0.85), person.skin, faint))

    def _eye_colour(self) -> Colour:
        # the hair's darkness selects the colour, so that both eyes are equal without another random number
        return _EYE_COLOURS[int(sum(self.person.skin) + 97 * self.hairline) % len(_EYE_COLOURS)]

    def _nose(self, canvas: Canvas) -> None:
        age, male = self.person.face_age, self.person.masculine
        tip = at_age(age, (0, 4, 12, 20, 90), (0.165, 0.165, 0.17, 0.18, 0.205))
        width = at_age(age, (0, 12, 20, 90), (0.05, 0.056, 0.062, 0.08)) + 0.006 * male
        lean = 0.03 * self.yaw
        canvas.stroke(
            [(0.02 + lean * 0.3, self.eye_y + 0.01), (0.03 + lean, tip - 0.05), (0.012 + lean, tip)],
            0.012,
            self._line_colour(0.25 + 0.25 * at_age(age, (3, 25), (0, 1))),
        )
        canvas.ellipse(lean, tip, width, width * 0.55, shade(self.person.skin, 0.94))
        for side in (-1, 1):
            canvas.ellipse(lean + side * width * 0.5, tip + 0.016, 0.014, 0.009, self._line_colour(0.9))

    def _mouth(self, canvas: Canvas) -> None:
        age, male, rng = self.person.face_age, self.person.masculine, self.rng
        half = at_age(age, (0, 5, 18, 90), (0.075, 0.09, 0.118, 0.112)) * (1 + 0.12 * self.smile)
        full = at_age(age, (0, 15, 30, 85), (0.028, 0.03, 0.028, 0.011)) * (1 - 0.2 * male)
        y, bend = 0.305, 0.035 * self.smile
        colour = mix(self.person.skin, _LIPS, 0.45)
        if self.person.gender == "F" and age > 16 and rng.random() < 0.4:
            colour = mix(colour, (190, 30, 50), rng.uniform(0.3, 0.8))
        canvas.blob(
            [(-half, y - bend), (-half * 0.4, y - full), (0, y - full * 0.7), (half * 0.4, y - full)]
            + [(half, y - bend), (half * 0.45, y + full * 1.2), (0, y + full * 1.4), (-half * 0.45, y + full * 1.2)],
            colour,
        )
        if self.smile > 0.75:
            teeth = mix((250, 248, 244), (222, 204, 160), self._onset(30, 60))
            if not 5.5 < age < 7.5:
                canvas.blob(
                    [
                        (-half * 0.75, y - bend * 0.4),
                        (0, y - full * 0.2),
                        (half * 0.75, y - bend * 0.4),
                        (0, y + 0.028),
                    ],
                    teeth,
                )
        canvas.stroke([(-half, y - bend), (0, y + bend * 0.25), (half, y - bend)], 0.011, shade(colour, 0.55))
        if age < 1.5 and rng.random() < 0.5:
            canvas.ellipse(0, y + 0.01, 0.085, 0.06, tuple(rng.uniform(90, 240, 3)))
            canvas.ellipse(0, y + 0.01, 0.035, 0.03, (245, 245, 245))

    def _hair(self, canvas: Canvas) -> None:
        person, w, v = self.person, self.half_width, self.volume
        colour = person.hair
        if person.age < 2:
            colour = mix(colour, person.skin, at_age(person.face_age, (0, 2), (0.75, 0.25)))
        side_end = 0.16 + min(self.length, 0.25) if self.length else 0.02
        if person.balding > 0.62:  # a ring of hair remains
            for side in (-1, 1):
                canvas.blob(
                    [
                        (side * w * 0.93, -0.2),
                        (side * (w + v * 0.8), -0.06),
                        (side * (w + v * 0.6), 0.08),
                        (side * w * 0.94, 0.06),
                    ],
                    colour,
                )
            return
        temples = -0.16 - 0.16 * person.balding
        line = -0.19 if self.fringe else self.hairline
        outer = [
            (-w * 0.97 - v, side_end),
            (-w - v * 1.2, -0.1),
            (-w * 0.98 - v, -0.28),
            (-w * 0.6 - v * 0.6, -0.46 - v),
        ]
        outer += [(0, -0.505 - v * 1.3)] + [(-x, y) for x, y in reversed(outer)]
        parting = 0.1 * w * np.sign(self.yaw + 1e-3)
        inner = [
            (w * 0.93, side_end),
            (w * 0.9, -0.1),
            (w * 0.78, temples),
            (w * 0.45, line + 0.02 - 0.12 * person.balding),
        ]
        inner += [(parting, line)] + [(-x, y) for x, y in reversed(inner)]
        canvas.blob(outer + inner, colour)
        if self.curly:
            for x, y in outer[1:-1]:
                canvas.ellipse(x, y, 0.075, 0.075, colour)
        strand = shade(colour, 0.8)
        canvas.stroke([(parting, line), (parting * 1.5, -0.47)], 0.012, strand)
        canvas.stroke([(-w * 0.86, -0.14), (-w * 0.7, -0.36), (parting, -0.49)], 0.010, shade(colour, 1.16))
        canvas.stroke([(w * 0.86, -0.14), (w * 0.7, -0.36), (parting, -0.49)], 0.010, strand)

    def _glasses(self, canvas: Canvas) -> None:
        frame, y = tuple(self.rng.uniform(20, 110, 3)), self.eye_y + 0.01
        rx, ry = self.rng.uniform(0.095, 0.12), self.rng.uniform(0.07, 0.1)
        turn = np.linspace(0, 2 * np.pi, 16)
        for side in (-1, 1):
            canvas.line(np.stack([side * 0.155 + rx * np.cos(turn), y + ry * np.sin(turn)], 1), 0.016, frame)
            canvas.line([(side * (0.155 + rx), y - 0.02), (side * self.half_width, y - 0.03)], 0.016, frame)
        canvas.line([(-0.155 + rx, y - 0.01), (0.155 - rx, y - 0.01)], 0.016, frame)

    def _hat(self, canvas: Canvas, colour: Colour) -> None:
        w = self.half_width + self.volume
        canvas.blob(
            [(-w * 1.08, -0.24), (-w * 0.9, -0.46), (0, -0.6), (w * 0.9, -0.46), (w * 1.08, -0.24), (0, -0.28)],
            colour,
        )
        canvas.stroke([(-w * 1.1, -0.235), (0, -0.275), (w * 1.1, -0.235)], 0.05, shade(colour, 0.8))
