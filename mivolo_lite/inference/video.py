"""The people of a video: detected frame by frame, tracked, and averaged."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import islice

from mivolo_lite.files import written_aside
from mivolo_lite.inference.draw import draw
from mivolo_lite.inference.frames import Frame, UnusableVideo, VideoWriter, open_video
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.rows import row_of, track_row
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.tracks import Track, Tracker
from mivolo_lite.inference.work import PredictOptions, Result

_PATIENCE = 1.0  # seconds that a track is kept without its person
_FRAMES = 16  # in memory at once


def predict_video(predictor: Predictor, number: int, item: Item, options: PredictOptions) -> Iterator[Result]:
    """The rows of a few frames at a time, then those of the remaining tracks, and the error if a part is unreadable.

    Args:
        predictor: estimates people.
        number: of the item, for the name of the annotated video.
        item: the video.
        options: ``stride`` skips frames; ``annotated`` is the folder of the annotated video.
    """
    try:
        with open_video(item.address) as (rate, frames), _annotated(number, item, options, rate) as writer:
            video = _Video(predictor, item, options, rate, writer)
            last = yield from video.results(islice(frames, 0, None, options.stride))
    except UnusableVideo as reason:
        last = Result(rejected=[{"image": item.name, "reason": str(reason)}])
    yield last  # after the annotated video was renamed: an item with its last result is not repeated


@contextmanager
def _annotated(number: int, item: Item, options: PredictOptions, rate: Fraction) -> Iterator[VideoWriter | None]:
    """The writer of an annotated video, which is renamed when it is complete; None if none is drawn."""
    if options.annotated is None:
        yield None
        return
    with written_aside(options.annotated / item.annotated_name(number, ".mp4")) as partial:
        with closing(VideoWriter(partial, rate / options.stride)) as writer:
            yield writer
        partial.touch()  # for a video without a frame


class _Video:
    """The people of one video, tracked from frame to frame.

    Args:
        predictor, item, options: as for ``predict_video``.
        rate: frames per second.
        writer: gets the annotated frames; None draws none.
    """

    def __init__(
        self,
        predictor: Predictor,
        item: Item,
        options: PredictOptions,
        rate: Fraction,
        writer: VideoWriter | None,
    ) -> None:
        self.predictor, self.item, self.options, self.writer = predictor, item, options, writer
        self.tracker = Tracker(patience=max(round(rate * _PATIENCE), options.stride))

    def results(self, frames: Iterator[Frame]) -> Generator[Result, None, Result]:
        """The results of the frames, a few at a time; returns the last one of the video."""
        has_people = False
        while True:
            chunk, reason = _take(frames)
            if chunk:
                result = self._result(chunk)
                has_people = has_people or bool(result.rows)
                yield result
            if reason or not chunk:
                break
        rejected = [{"image": self.item.name, "reason": reason}] if reason else []
        nobody = [] if has_people or rejected else [row_of(None, self.item.name)]
        return Result(nobody, [track_row(track, self.item.name) for track in self.tracker.end()], rejected)

    def _result(self, frames: Sequence[Frame]) -> Result:
        images, name = [frame.image for frame in frames], self.item.name
        if self.options.boxes is None:
            located = [self.predictor.locate(image) for image in images]
        else:
            located = [self.options.boxes(self.item.address, frame.number) for frame in frames]
        result = Result(frame=frames[-1].number, more=True)
        for frame, people in zip(frames, self.predictor.estimate(images, located), strict=True):
            tracks, ended = self.tracker(people, frame.number)
            result.tracks += [track_row(track, name) for track in ended]
            of_frame = {"frame": frame.number, "seconds": round(frame.seconds, 3)}
            result.rows += [
                row_of(person, name, **of_frame, **_of_track(track))
                for person, track in zip(people, tracks, strict=True)
            ]
            if self.writer is not None:
                self.writer.write(draw(frame.image, people, [_label(track) for track in tracks]))
        return result


def _take(frames: Iterator[Frame]) -> tuple[list[Frame], str | None]:
    """The next few frames; and the error if the video is damaged after them, so that they still count."""
    taken: list[Frame] = []
    try:
        for frame in islice(frames, _FRAMES):
            taken.append(frame)
    except UnusableVideo as reason:
        return taken, str(reason)
    return taken, None


def _of_track(track: Track | None) -> dict[str, float | int | None]:
    if track is None:
        return {}
    return {"track": track.number, "track_age": None if track.mean_age is None else round(track.mean_age, 4)}


def _label(track: Track | None) -> str:
    """``#2 34 F``: the track, and its age and gender so far."""
    if track is None or track.mean_age is None:
        return "?"
    return f"#{track.number} {track.mean_age:.0f} {track.gender[0] or ''}".strip()
