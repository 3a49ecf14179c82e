"""Finds faces in photos, offline: by YuNet, whose weights come with the package, or another model in a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import cv2
import numpy as np

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import read_file
from mivolo_lite.inference.defaults import FORMER_NAMES, MIN_SCORE, YUNET
from mivolo_lite.inference.windows import Detection, merge, to_photo, windows
from mivolo_lite.package_files import package_folder

_COARSE, _FINE, _OVERLAP = 640, 1280, 240
_LARGEST_SHRINK = 3.2  # of a photo's parts: most faces of 32 pixels, which are large enough to trust, are found
_SMALLEST = 96  # pixels of a photo's longer side, below which it is enlarged: faces of a few pixels are not found
_LOW_SCORE, _OVERLAPS, _MOST = 0.5, 0.4, 5000


class Network(Protocol):
    """A face detector for images of a limited size.

    Attributes:
        name: in reports.
        side: largest side of an image in pixels.
    """

    name: str
    side: int

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All faces of an image (H, W, 3) uint8 RGB with a score over ``_LOW_SCORE``. It is thread-safe."""


class YuNet:
    """YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023) through OpenCV, with five landmarks.

    Args:
        path: an ONNX file for ``cv2.FaceDetectorYN``; None for the package's own.

    Raises:
        UserError: no such file, or OpenCV cannot read it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, Lock()  # the network keeps its buffers between calls
        # OpenCV's model zoo has a file of fixed image size, which OpenCV 5 requires: all images are padded to it.
        self.name, self.side = (YUNET, 960) if path is None else (path.name, 640)
        file = package_folder("weights") / "yunet.onnx" if path is None else path
        if not file.is_file():
            raise UserError(f"--detector {file}: no such file; give {YUNET} or an ONNX file of YuNet")
        # Read as bytes, since on Windows OpenCV opens no path with letters outside the system's code page.
        model, none = np.frombuffer(read_file(file), np.uint8), np.empty(0, np.uint8)
        size = self.side, self.side
        try:
            with _quiet():
                self._network = cv2.FaceDetectorYN.create("onnx", model, none, size, _LOW_SCORE, _OVERLAPS, _MOST)
        except cv2.error as error:
            raise UserError(f"--detector {file}: OpenCV reads no YuNet in it: {_reason(error)}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return YuNet, (self._path,)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        height, width = image.shape[:2] if self._path is None else (self.side, self.side)
        bgr = np.zeros((height, width, 3), np.uint8)
        bgr[: image.shape[0], : image.shape[1]] = image[..., ::-1]
        try:
            with self._lock:
                self._network.setInputSize((width, height))
                _, rows = self._network.detect(bgr)
        except cv2.error as error:
            raise UserError(f"--detector {self._path}: OpenCV runs no YuNet in it: {_reason(error)}") from None
        faces = np.empty((0, 15)) if rows is None else rows.astype(float)
        if self._path is None:
            # Like libfacedetection, so that crops are those on which the package's checkpoint was measured. Fractions
            # of pixels change little on average: an MAE of 2.71 instead of 2.73 years on the FairFace sample.
            faces[:, :4] = np.trunc(faces[:, :4])
        return [_detection(face) for face in faces]


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without OpenCV 5's warning that it has no targets, which is irrelevant here."""
    logging = vars(cv2.utils).get("logging")  # OpenCV 4.10 has neither the warning nor this module
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _detection(face: np.ndarray) -> Detection:
    x, y, w, h = face[:4].tolist()
    return Detection((x, y, x + w, y + h), float(face[14]), face[4:14].reshape(5, 2))


def _reason(error: cv2.error) -> str:
    return first_line(error).rpartition("error: ")[2] or "unknown error"


class FaceDetector:
    """Finds the faces of photos of any size.

    Args:
        network: detects faces in images of a limited size.
        min_score: detections with a lower score are dropped.

    Raises:
        UserError: ``min_score`` is not a number from 0 to 1.
    """

    def __init__(self, network: Network, min_score: float = MIN_SCORE) -> None:
        if not isinstance(min_score, int | float) or not 0 <= min_score <= 1:
            raise UserError(f"min_score {min_score!r}: give a number from 0 to 1")
        self.network, self.min_score = network, min_score

    @property
    def name(self) -> str:
        return self.network.name

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """The faces of a photo (H, W, 3) uint8 RGB, highest score first.

        Boxes are rounded to tenths of its pixels, as in tables, so that a table's boxes give the same crops.
        """
        enlarged, scale = _enlarged(image)
        fine = max(_FINE, round(max(image.shape[:2]) / _LARGEST_SHRINK))
        detections = [
            detection
            for window in windows(enlarged, _COARSE, fine, self.network.side, _OVERLAP)
            for detection in to_photo(window, self.network(window.pixels))
            if detection.score >= self.min_score
        ]
        return merge([_scaled(detection, 1 / scale) for detection in detections])


def _enlarged(image: np.ndarray) -> tuple[np.ndarray, float]:
    scale = _SMALLEST / max(image.shape[:2])
    if scale <= 1:
        return image, 1.0
    return cv2.resize(image, None, fx=scale, fy=scale), scale


def _scaled(detection: Detection, factor: float) -> Detection:
    x0, y0, x1, y1 = (round(edge * factor, 1) for edge in detection.box)
    landmarks = None if detection.landmarks is None else detection.landmarks * factor
    return Detection((x0, y0, x1, y1), detection.score, landmarks)


def open_detector(name: str = YUNET, min_score: float = MIN_SCORE) -> FaceDetector:
    """The detector for ``--detector``.

    Args:
        name: ``yunet``, or an ONNX file of another YuNet.
        min_score: detections with a lower score are dropped.

    Raises:
        UserError: there is no such file or no network in it, or ``min_score`` is not from 0 to 1.
    """
    return FaceDetector(YuNet(None if current_name(name) == YUNET else Path(name)), min_score)


def current_name(name: str) -> str:
    """A detector's current name, for the name in an older card or command."""
    return YUNET if name in FORMER_NAMES else name
