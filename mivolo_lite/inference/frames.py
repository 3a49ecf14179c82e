"""Reads and writes videos frame by frame, in constant memory, through PyAV."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mivolo_lite.credentials import without_credentials
from mivolo_lite.errors import UserError, one_line
from mivolo_lite.images.jpeg import MAX_MEGAPIXELS, BrokenJpeg, check_size
from mivolo_lite.paths import is_url, proxy_options

_CODECS = "libx264", "mpeg4"
"""For annotated videos: the first one in this PyAV is used."""

_CLOCK = re.compile(r"(\d+):(\d+):(\d+\.?\d*)")
_UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED


class Frame(NamedTuple):
    """A frame: its number from 0, its time in seconds, and (H, W, 3) uint8 RGB, upright."""

    number: int
    seconds: float
    image: np.ndarray


class UnusableVideo(Exception):
    """A video or its rest cannot be read; the message is the reason."""


def import_av() -> Any:
    """PyAV. Raises UserError if it is not installed."""
    try:
        import av
    except ImportError:
        raise UserError('videos need PyAV: pip install "mivolo-lite[video]"') from None
    return av


@contextmanager
def open_video(address: str) -> Iterator[tuple[Fraction, Iterator[Frame]]]:
    """The frames per second of a file or a URL, and its frames, decoded lazily.

    Raises:
        UnusableVideo: no video, or damaged, also later from the frames; or PyAV is not installed.
    """
    try:
        av = import_av()
    except UserError as missing:
        raise UnusableVideo(str(missing)) from None
    with _opened(address) as file, _reading(av, file) as container:
        stream = container.streams.best("video")  # not a cover image, if there are other streams
        if stream is None:
            raise UnusableVideo("holds no video")
        if stream.codec_context is None:
            raise UnusableVideo("unreadable video: damaged, or of a codec that this PyAV has no decoder for")
        stream.thread_type = "AUTO"
        try:
            check_size(_shown_width(stream.width or 1, stream), stream.height or 1, MAX_MEGAPIXELS)
        except BrokenJpeg as error:
            raise UnusableVideo(str(error)) from None
        yield stream.average_rate or Fraction(25), _frames(av, container, stream)


@contextmanager
def _opened(address: str) -> Iterator[Any]:
    """The input of PyAV: a path, or a URL's file, read in blocks."""
    if not is_url(address):
        if os.path.exists(address) and not os.path.isfile(address):  # a named pipe would block
            raise UnusableVideo("is a folder, a pipe or a device, not a file")
        yield address
        return
    import fsspec

    try:
        # fsspec.open would read the ? of a signed URL as a pattern.
        storage, path = fsspec.url_to_fs(address, **proxy_options(address))
        file = storage.open(path, "rb")
    except Exception as error:  # each storage has its own exceptions
        raise UnusableVideo(f"cannot be read: {_reason(error)}") from None
    with file:
        yield file


def _reading(av: Any, file: Any) -> Any:
    try:
        return av.open(file)
    except Exception as error:  # of FFmpeg or of the storage
        raise UnusableVideo(f"unreadable video: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:  # HTTP's has only the address
        error = error.__cause__  # type: ignore[assignment]
    text = getattr(error, "strerror", None) or one_line(error)
    return without_credentials(text)[:200]


def _frames(av: Any, container: Any, stream: Any) -> Iterator[Frame]:
    rate, start = float(stream.average_rate or 25), (container.start_time or 0) / av.time_base
    latest, end, longest, damaged = 0.0, 0.0, 0.5, 0
    try:
        for number, frame in enumerate(container.decode(stream)):
            damaged += frame.is_corrupt
            seconds = number / rate if frame.time is None else frame.time - start  # as in players
            longest, latest = max(longest, seconds - latest), seconds
            end = seconds + float((frame.duration or 0) * frame.time_base)
            yield Frame(number, seconds, _upright(av, frame, stream))
    except Exception as error:  # of FFmpeg or of the storage
        raise UnusableVideo(f"damaged: {_reason(error)}") from None
    duration = _duration(stream)
    if duration - end > 2 * longest:  # for some cut-off files, FFmpeg reports the end of the video
        raise UnusableVideo(f"cut off after {end:.1f} of {duration:.1f} seconds")
    if damaged:
        raise UnusableVideo(f"damaged frames: {damaged} of {number + 1}; the file is damaged or cut off")


def _upright(av: Any, frame: Any, stream: Any) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a frame, as players show it."""
    width, matrix = _shown_width(frame.width, stream), _matrix_of(av, frame)
    image = frame.to_ndarray(width=width, format="rgb24", src_colorspace=matrix)
    turns = round((frame.rotation or 0) / 90) % 4  # anticlockwise, as in a phone's display matrix
    return np.ascontiguousarray(np.rot90(image, turns))


def _duration(stream: Any) -> float:
    """The duration of a video in seconds, as recorded in its file; 0 if it is not."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    clock = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))  # Matroska's
    return sum(float(value) * unit for value, unit in zip(clock.groups(), (3600, 60, 1), strict=True)) if clock else 0.0


def _shown_width(width: int, stream: Any) -> int:
    """The width at which players show a frame: some videos have non-square pixels, which make faces narrower."""
    return max(1, round(width * (stream.sample_aspect_ratio or 1)))


def _matrix_of(av: Any, frame: Any) -> Any:
    """The colour matrix for a frame that does not specify it, as in players; None if it does."""
    return _usual_matrix(av, frame.width, frame.height) if frame.colorspace == _UNSPECIFIED else None


def _usual_matrix(av: Any, width: int, height: int) -> Any:
    """BT.709 for high definition, BT.601 below."""
    matrices = av.video.reformatter.Colorspace
    return matrices.ITU709 if width >= 1280 or height > 576 else matrices.ITU601


class VideoWriter:
    """Writes frames as an MP4 without sound.

    Args:
        path: of the file.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av, self._path, self._rate = import_av(), path, rate
        self._container: Any = None

    def write(self, image: np.ndarray) -> None:
        """Append (H, W, 3) uint8 RGB. Frames of another size than the first are scaled to it."""
        if self._container is None:
            self._open(image.shape[1], image.shape[0])
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        width, height = self._stream.width, self._stream.height
        matrix = _usual_matrix(self._av, width, height)
        self._container.mux(self._stream.encode(frame.reformat(width, height, "yuv420p", dst_colorspace=matrix)))

    def close(self) -> None:
        """Finish the file, if there was any frame."""
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()

    def _open(self, width: int, height: int) -> None:
        self._container = self._av.open(str(self._path), "w", format="mp4")
        codec = next(name for name in _CODECS if name in self._av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=self._rate.limit_denominator(65535))
        self._stream.width, self._stream.height = width // 2 * 2 or 2, height // 2 * 2 or 2  # halved chroma
        self._stream.pix_fmt = "yuv420p"
