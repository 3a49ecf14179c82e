"""The people of a video: found frame by frame, followed, and averaged."""

from collections.abc import Generator, Iterator, Sequence
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

_PATIENCE = 1.0  # seconds that a track is kept while nobody is seen there
_FRAMES = 16  # held at once


def predict_video(predictor: Predictor, number: int, item: Item, options: PredictOptions) -> Iterator[Result]:
    """The rows of a few frames at a time, then those of the tracks that are left, and what could not be read.

    Args:
        predictor: estimates.
        number: of the item, for the name of the annotated video.
        item: the video.
        options: ``stride`` leaves frames out; ``annotated`` is where the annotated video goes.
    """
    try:
        with open_video(item.address) as (rate, frames):
            seen = islice(frames, 0, None, options.stride)
            if options.annotated is None:
                last = yield from _results(predictor, item, seen, rate, options, None)
            else:
                path = options.annotated / item.annotated_name(number, ".mp4")
                with written_aside(path) as partial:
                    writer = VideoWriter(partial, rate / options.stride)
                    last = yield from _results(predictor, item, seen, rate, options, writer)
                    partial.touch()  # of a video without a frame
    except UnusableVideo as reason:
        last = Result(rejected=[{"image": item.name, "reason": str(reason)}])
    yield last  # when the annotated video has its name: what has its last result is not done again


def _results(
    predictor: Predictor,
    item: Item,
    frames: Iterator[Frame],
    rate: Fraction,
    options: PredictOptions,
    writer: VideoWriter | None,
) -> Generator[Result, None, Result]:
    """The results of the frames; returns the last one of the video."""
    tracker = Tracker(patience=max(round(rate * _PATIENCE), options.stride))
    rejected, has_people = [], False
    try:
        while True:
            chunk, reason = _take(frames)
            if chunk:
                result = _of_frames(predictor, item, chunk, tracker, options, writer)
                has_people = has_people or bool(result.rows)
                yield result
            if reason:
                rejected = [{"image": item.name, "reason": reason}]
            if reason or not chunk:
                break
    finally:
        if writer is not None:
            writer.close()
    nobody = [] if has_people or rejected else [row_of(None, item.name)]
    return Result(nobody, [track_row(track, item.name) for track in tracker.end()], rejected)


def _take(frames: Iterator[Frame]) -> tuple[list[Frame], str | None]:
    """The next few frames; and why there are no more where the video is damaged, so that those before still count."""
    taken: list[Frame] = []
    try:
        for frame in islice(frames, _FRAMES):
            taken.append(frame)
    except UnusableVideo as reason:
        return taken, str(reason)
    return taken, None


def _of_frames(
    predictor: Predictor,
    item: Item,
    frames: Sequence[Frame],
    tracker: Tracker,
    options: PredictOptions,
    writer: VideoWriter | None,
) -> Result:
    images = [frame.image for frame in frames]
    if options.boxes is None:
        located = [predictor.locate(image) for image in images]
    else:
        located = [options.boxes(item.address, frame.number) for frame in frames]
    result = Result(frame=frames[-1].number, more=True)
    for frame, people in zip(frames, predictor.estimate(images, located), strict=True):
        tracks, ended = tracker(people, frame.number)
        result.tracks += [track_row(track, item.name) for track in ended]
        of_frame = {"frame": frame.number, "seconds": round(frame.seconds, 3)}
        result.rows += [
            row_of(person, item.name, **of_frame, **_of_track(track))
            for person, track in zip(people, tracks, strict=True)
        ]
        if writer is not None:
            writer.write(draw(frame.image, people, [_label(track) for track in tracks]))
    return result


def _of_track(track: Track | None) -> dict[str, float | int | None]:
    if track is None:
        return {}
    return {"track": track.number, "track_age": None if track.mean_age is None else round(track.mean_age, 4)}


def _label(track: Track | None) -> str:
    """``#2 34 F``: the track, and its age and gender so far."""
    if track is None or track.mean_age is None:
        return "?"
    return f"#{track.number} {track.mean_age:.0f} {track.gender[0] or ''}".strip()
