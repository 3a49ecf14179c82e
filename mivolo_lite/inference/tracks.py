"""Tracks people from frame to frame: boxes matched by their overlap, as in SORT (Bewley et al., 2016), without its
motion model. Memory is constant, since ended tracks are dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mivolo_lite.inference.people import Person, likelier_gender
from mivolo_lite.packing.crops import Box, box_iou

_LEAST_OVERLAP = 0.25
_LEAST_SPREAD = 1.0  # years; limits the weight of a frame with a small spread


@dataclass
class Track:
    """A person over frames.

    Attributes:
        number: from 1, in the order of appearance.
        face, body: boxes in the last frame with the person; None if it did not show one.
        first, last: frames.
        frames: number of frames with the person.
        weight, age: the sum of the frames' weights, and the weighted sum of their ages in years.
        female, genders: the sum of the log odds of ``F``, and the number of frames in it.
        flags: number of frames with each flag.
    """

    number: int
    face: Box | None
    body: Box | None
    first: int
    last: int
    frames: int = 0
    weight: float = 0.0
    age: float = 0.0
    female: float = 0.0
    genders: int = 0
    flags: dict[str, int] = field(default_factory=dict)

    def overlap(self, person: Person) -> float:
        """The IoU of the faces, or of the bodies if one of the faces is missing."""
        pairs = (self.face, person.face), (self.body, person.body)
        return next((box_iou(last, now) for last, now in pairs if last and now), 0.0)

    def add(self, person: Person, frame: int) -> None:
        """Update the track with a frame. Frames are weighted by the inverse variance of the model's distribution."""
        self.face, self.body, self.last, self.frames = person.face, person.body, frame, self.frames + 1
        for flag in person.flags:
            self.flags[flag] = self.flags.get(flag, 0) + 1
        if person.age is None:
            return
        weight = 1.0 if person.age_spread is None else 1 / max(person.age_spread, _LEAST_SPREAD) ** 2
        self.weight, self.age = self.weight + weight, self.age + weight * person.age
        if person.gender is not None and person.gender_probability is not None:
            odds = np.log(person.gender_probability) - np.log1p(-min(person.gender_probability, 1 - 1e-9))
            self.female, self.genders = self.female + float(odds if person.gender == "F" else -odds), self.genders + 1

    @property
    def mean_age(self) -> float | None:
        """The weighted mean of the ages so far, in years."""
        return self.age / self.weight if self.weight else None

    @property
    def gender(self) -> tuple[str | None, float | None]:
        """The more probable gender by the mean log odds so far, and its probability."""
        return likelier_gender(self.female / self.genders if self.genders else None)


class Tracker:
    """Assigns the people of each frame to tracks.

    Args:
        patience: frames that a track is kept without its person.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self._next = patience, 1
        self.tracks: list[Track] = []

    def __call__(self, people: Sequence[Person], frame: int) -> tuple[list[Track | None], list[Track]]:
        """Match the people of a frame to tracks, by the assignment with the largest sum of IoUs.

        Args:
            people: of the frame. Somebody without any box has no track.
            frame: its number, rising.

        Returns:
            each person's track, updated with the frame; and the tracks that ended before it.
        """
        ended = [track for track in self.tracks if frame - track.last > self.patience]
        self.tracks = [track for track in self.tracks if frame - track.last <= self.patience]
        matches = self._match(people)
        assigned: list[Track | None] = []
        for index, person in enumerate(people):
            track = matches.get(index) or self._begin(person, frame) if person.face or person.body else None
            if track is not None:
                track.add(person, frame)
            assigned.append(track)
        return assigned, ended

    def end(self) -> list[Track]:
        """The remaining tracks after the last frame."""
        ended, self.tracks = self.tracks, []
        return ended

    def _match(self, people: Sequence[Person]) -> dict[int, Track]:
        overlap = np.array([track.overlap(person) for person in people for track in self.tracks])
        overlap = overlap.reshape(len(people), len(self.tracks))
        pairs = zip(*linear_sum_assignment(overlap, maximize=True), strict=True)
        return {int(person): self.tracks[track] for person, track in pairs if overlap[person, track] >= _LEAST_OVERLAP}

    def _begin(self, person: Person, frame: int) -> Track:
        self.tracks.append(Track(self._next, person.face, person.body, frame, frame))
        self._next += 1
        return self.tracks[-1]
