"""Videos: people followed over frames, averaged, and annotated."""

import csv
import json
import os
import re
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mivolo_lite.cli import main
from mivolo_lite.inference.detect import FaceDetector
from mivolo_lite.inference.frames import UnusableVideo, VideoWriter, open_video
from mivolo_lite.inference.people import Person
from mivolo_lite.inference.predictor import Predictor
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.tracks import Tracker
from mivolo_lite.inference.video import predict_video
from mivolo_lite.inference.work import PredictOptions
from tests.inference.interrupting import interrupting
from tests.inference.scenes import RedSquares, photo, rows, tiny_estimator
from tests.shards.servers import RangeServer, serving

pytestmark = pytest.mark.usefixtures("red_faces")


def write_video(path: Path, frames) -> Path:
    writer = VideoWriter(path, Fraction(25))
    for frame in frames:
        writer.write(frame)
    writer.close()
    return path


def moving(count: int):
    """One face that moves right, another that comes at frame 5 and leaves at frame 15."""
    for number in range(count):
        second = [(220, 150, 60)] if 5 <= number < 15 else []
        yield photo((10 + 4 * number, 20, 80), *second)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "walk.mp4", moving(20))


def test_without_pyav_nothing_is_begun(video, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(video), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and 'pip install "mivolo-lite[video]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_pyav_photos_beside_a_video_are_estimated(video, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    Image.fromarray(photo((100, 90, 90))).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    main(["predict", str(tmp_path / "photo.png"), str(video), "--checkpoint", checkpoint, "--out", str(out)])
    (row,), (rejected,) = rows(out), map(json.loads, (out / "rejected.jsonl").read_text().splitlines())
    assert row["source"].endswith("photo.png") and 0 <= row["age"] <= 100
    assert rejected["image"] == str(video) and "pip install" in rejected["reason"]


def test_a_video_gives_a_row_a_track_and_frame_and_a_video_with_ages(video, checkpoint, tmp_path):
    out = tmp_path / "out"
    main(["predict", str(video), "--checkpoint", checkpoint, "--out", str(out), "--draw"])
    found, tracks = rows(out, "predictions"), rows(out, "tracks")
    assert [row["frame"] for row in found if row["track"] == 1] == list(range(20))
    assert [row["frame"] for row in found if row["track"] == 2] == list(range(5, 15)) and len(found) == 30
    assert found[3]["seconds"] == pytest.approx(3 / 25, abs=1e-3)
    assert [(row["first_frame"], row["last_frame"], row["frames"]) for row in tracks] == [(0, 19, 20), (5, 14, 10)]
    first = [row for row in found if row["track"] == 1]
    weights = np.array([1 / max(row["age_spread"], 1) ** 2 for row in first])
    means = np.cumsum(weights * [row["age"] for row in first]) / np.cumsum(weights)
    assert [row["track_age"] for row in first] == pytest.approx(means, abs=1e-3)
    assert tracks[0]["age"] == pytest.approx(means[-1], abs=1e-3)
    with open(out / "tracks.csv", newline="") as file:
        assert [row["track"] for row in csv.DictReader(file)] == ["1", "2"]
    with open_video(str(out / "annotated" / "000000-walk.mp4")) as (rate, frames):
        annotated = list(frames)
    assert rate == 25 and len(annotated) == 20 and annotated[0].image.shape == (240, 320, 3)


def test_ctrl_c_within_a_video_leaves_its_first_frames_and_the_same_command_begins_it_again(
    video, checkpoint, tmp_path, monkeypatch, capsys
):
    words = ["predict", str(video), "--checkpoint", checkpoint, "--draw", "--out"]
    with monkeypatch.context() as ending:
        ending.setattr(Predictor, "estimate", interrupting(2))
        with pytest.raises(SystemExit):
            main([*words, str(tmp_path / "out")])
    assert len(rows(tmp_path / "out")) == 26 and "interrupted; 0 of 1 item are done" in capsys.readouterr().err
    for out in ("out", "whole"):
        main([*words, str(tmp_path / out)])
    assert rows(tmp_path / "out") == rows(tmp_path / "whole") and "resumes:" not in capsys.readouterr().err
    assert (tmp_path / "out" / "annotated" / "000000-walk.mp4").stat().st_size > 1000


def test_the_last_result_of_a_video_comes_when_its_annotated_video_is_there(video, tmp_path):
    results = predict_video(Predictor(tiny_estimator(), FaceDetector(RedSquares())), 7, Item("video", str(video)),
                            PredictOptions(annotated=tmp_path))  # fmt: skip
    assert [result.more for result in results if result.more or (tmp_path / "000007-walk.mp4").exists()] == [
        True, True, False,
    ]  # fmt: skip


def test_without_a_folder_a_video_is_a_line_a_track(video, checkpoint, capsys):
    main(["predict", str(video), "--checkpoint", checkpoint])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and re.fullmatch(f"{video} track 2, frames 5 to 14: \\d+ years, [MF] \\d+%.*", lines[1])


def test_a_stride_leaves_frames_out(video, checkpoint, tmp_path):
    main(["predict", str(video), "--checkpoint", checkpoint, "--out", f"{tmp_path}/out", "--stride", "7"])
    assert [row["frame"] for row in rows(tmp_path / "out", "predictions")] == [0, 7, 7, 14, 14]


def test_a_video_with_nobody_has_a_row_that_says_so(checkpoint, tmp_path):
    write_video(tmp_path / "empty.mp4", [photo(), photo()])
    main(["predict", str(tmp_path / "empty.mp4"), "--checkpoint", checkpoint, "--out", str(tmp_path / "out")])
    assert rows(tmp_path / "out") == [{"source": str(tmp_path / "empty.mp4"), "flags": ["nobody found"]}]


def test_seconds_count_from_the_beginning_as_players_count(tmp_path):
    """A transport stream's clock runs before its first frame."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "late.ts"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = 50 + number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_video(str(tmp_path / "late.ts")) as (_, frames):
        assert [round(frame.seconds, 3) for frame in frames] == [0, 0.1, 0.2]


QUARTERS = np.array([[(200, 120, 90), (60, 140, 200)], [(230, 180, 150), (90, 60, 50)]], dtype=np.uint8)


def raw_video(path: Path, width: int, height: int, matrix: str, **settings) -> Path:
    """Two frames of four colours by a matrix, which the file does not name."""
    av = pytest.importorskip("av")
    image = QUARTERS.repeat(height // 2, axis=0).repeat(width // 2, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, bit_rate=20_000_000)
        stream.width, stream.height = width, height
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame.reformat(width, height, "yuv420p", dst_colorspace=matrix)))
        container.mux(stream.encode())
    return path


def first_frame(path: Path) -> np.ndarray:
    with open_video(str(path)) as (_, frames):
        return next(frames).image


def quarters_of(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return image[height // 4 :: height // 2, width // 4 :: width // 2].astype(int)


@pytest.mark.parametrize("width, height, matrix", [(640, 480, "ITU601"), (720, 576, "ITU601"), (1280, 720, "ITU709")])
def test_colours_without_a_name_are_those_that_players_show(width, height, matrix, tmp_path):
    found = first_frame(raw_video(tmp_path / "a.mp4", width, height, matrix))
    assert np.abs(quarters_of(found) - QUARTERS).max() <= 4
    own = write_video(tmp_path / "b.mp4", [found])
    assert np.abs(quarters_of(first_frame(own)) - QUARTERS).max() <= 5


def test_frames_have_the_width_that_players_show(tmp_path):
    """The pixels of a DVD's are no squares; those of a phone's are, and turned."""
    path = raw_video(tmp_path / "a.mp4", 144, 96, "ITU601", sample_aspect_ratio=Fraction(4, 3))
    image = first_frame(path)
    assert image.shape == (96, 192, 3) and np.abs(quarters_of(image) - QUARTERS).max() <= 6


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_frames_are_turned_upright(turns, tmp_path):
    path = raw_video(tmp_path / "a.mp4", 96, 64, "ITU601")
    data, (cosine, sine) = path.read_bytes(), {1: (0, -1), 2: (-1, 0), 3: (0, 1)}[turns]
    matrix = data.index(b"tkhd") + 44
    rows = (cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:matrix] + struct.pack(">9i", *rows) + data[matrix + 36 :])
    image = first_frame(path)
    assert image.shape == ((96, 64, 3) if turns % 2 else (64, 96, 3))
    assert np.abs(quarters_of(image) - np.rot90(QUARTERS.astype(int), turns)).max() <= 6


def test_a_damaged_video_is_read_as_far_as_it_goes(video, checkpoint, tmp_path):
    whole = video.read_bytes()
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    names = ["text.mp4", "walk.mp4", "empty.mp4", "cut.mp4"]
    main(["predict", *(f"{tmp_path}/{name}" for name in names), "--checkpoint", checkpoint, "--out", f"{tmp_path}/out"])
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [Path(one["image"]).name for one in rejected] == ["text.mp4", "empty.mp4", "cut.mp4"]
    assert all("video" in one["reason"] for one in rejected) and len(rows(tmp_path / "out", "predictions")) == 30


def test_a_file_without_pictures_is_no_video(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UnusableVideo, match="holds no video"), open_video(str(tmp_path / "sound.mp4")):
        pass


def encoded(path: Path, codec: str) -> bytes:
    """The bytes of a video of four seconds, which is written to ``path``."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=320, height=240, pix_fmt="yuv420p")
        for image in moving(100):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def middle_of_a_frame(path: Path) -> int:
    """Where to cut a video of 100 frames: x264 writes other bytes on another number of CPUs, and an end between two
    frames of a transport stream looks like that of a whole video."""
    with pytest.importorskip("av").open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size][30:70]
        largest = max(packets, key=lambda packet: packet.size)
        return largest.pos + largest.size // 2


def read(path: Path, seen: list) -> None:
    """Append the frames of a video."""
    with open_video(str(path)) as (_, frames):
        seen += frames


@pytest.mark.parametrize(
    "ending, codec, reason",
    [
        ("mkv", "libx264", r"cut off after \d\.\d of 4\.0 seconds"),
        ("ts", "libx264", r"damaged frames: \d+ of \d\d; the file is damaged or cut off"),
        ("flv", "flv", r"damaged frames: 1 of \d\d; the file is damaged or cut off"),
    ],
)
def test_a_video_that_ends_before_its_length_is_said(ending, codec, reason, tmp_path):
    whole, seen = encoded(tmp_path / f"walk.{ending}", codec), []
    (tmp_path / f"cut.{ending}").write_bytes(whole[: middle_of_a_frame(tmp_path / f"walk.{ending}")])
    with pytest.raises(UnusableVideo, match=reason):
        read(tmp_path / f"cut.{ending}", seen)
    assert 20 < len(seen) < 80
    read(tmp_path / f"walk.{ending}", whole_video := [])
    assert len(whole_video) == 100


def test_a_codec_without_a_decoder_is_a_reason(video):
    video.write_bytes(video.read_bytes().replace(b"avc1", b"none").replace(b"mp4v", b"none"))
    with pytest.raises(UnusableVideo, match="of a codec that this PyAV has no decoder for"):
        read(video, [])


def test_a_signed_url_is_read_and_its_signature_not_told(video):
    with serving(RangeServer(video.parent)) as server:
        with open_video(f"{server.url}/walk.mp4?token=secret&x=1") as (_, frames):
            assert len(list(frames)) == 20
        with pytest.raises(UnusableVideo, match="404") as error, open_video(f"{server.url}/none.mp4?token=secret"):
            pass
    assert "secret" not in str(error.value)


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UnusableVideo, match="a pipe"), open_video(str(tmp_path / "pipe.mp4")):
        pass


def person(left: float, age: float = 30.0, spread: float | None = 4.0, gender: str = "F", **other) -> Person:
    box = (left, 0.0, left + 50, 50.0)
    return Person(box, age=age, age_spread=spread, gender=gender, gender_probability=0.9, **other)


def test_people_who_pass_each_other_keep_their_tracks():
    tracker = Tracker(patience=5)
    for frame in range(30):
        walkers = [person(10.0 * frame), person(300.0 - 10 * frame + 1)]
        order = walkers if frame % 2 else walkers[::-1]
        found, ended = tracker([one for one in order], frame)
        assert not ended
    assert sorted(track.number for track in found) == [1, 2] and all(track.frames == 30 for track in found)


def test_a_track_outlives_a_short_gap_and_no_long_one():
    tracker = Tracker(patience=5)
    (first,), _ = tracker([person(0)], 0)
    assert tracker([], 3) == ([], [])
    (again,), _ = tracker([person(4)], 5)
    assert again is first
    (new,), ended = tracker([person(4)], 11)
    assert ended == [first] and new.number == 2 and tracker.end() == [new]


def test_a_track_continues_while_the_face_is_turned_away():
    tracker, body = Tracker(patience=5), (0.0, 0.0, 100.0, 300.0)
    (first,), _ = tracker([Person((25.0, 0.0, 75.0, 60.0), body)], 0)
    (away,), _ = tracker([Person(None, body)], 1)
    (back,), ended = tracker([Person((25.0, 0.0, 75.0, 60.0), body)], 2)
    assert first is away is back and first.frames == 3 and not ended


def test_ages_weigh_by_the_models_certainty_and_genders_by_their_odds():
    tracker = Tracker(patience=5)
    tracker([person(0, 20.0, 2.0)], 0)
    (track,), _ = tracker([person(0, 40.0, 4.0, "M", flags=("blurred",))], 1)
    assert track.mean_age == pytest.approx((20 / 4 + 40 / 16) / (1 / 4 + 1 / 16))
    assert track.gender[1] == pytest.approx(0.5) and track.flags == {"blurred": 1}
    (track,), _ = tracker([person(0, 40.0, None)], 2)
    assert track.gender[0] == "F" and track.gender[1] == pytest.approx(1 / (1 + 9 ** (-1 / 3)))
    (track,), _ = tracker([Person((0.0, 0.0, 50.0, 50.0))], 3)
    assert track.frames == 4


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_video(tmp_path, checkpoint):
    """Ten times the frames take no more memory."""
    peaks = []
    for count in (30, 300):
        video = write_video(tmp_path / f"{count}.mp4", (photo((20 + number % 90, 30, 80)) for number in range(count)))
        script = (
            "import resource, sys; from mivolo_lite.cli import main; from mivolo_lite.inference import predictor\n"
            "from mivolo_lite.inference.detect import FaceDetector; from tests.inference.scenes import RedSquares\n"
            "predictor.open_detector = lambda *_: FaceDetector(RedSquares())\n"
            f"main(['predict', {str(video)!r}, '--checkpoint', {checkpoint!r}, '--out', {str(tmp_path / 'out')!r}])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 30, peaks
