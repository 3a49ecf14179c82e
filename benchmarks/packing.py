"""Speed of packing, and memory of a million rows of labels.

    python benchmarks/packing.py [--chips 20000] [--photos 600] [--rows 1000000]

Measures chips that are stored byte for byte, photos of a megapixel with crops of a face and a body, and reading a CSV.
The images are smooth shapes with noise, whose JPEGs have the size of real ones, which determines the decoding time.
"""

import argparse
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from timing import in_a_process, machine, write_result

from mivolo_lite.packing.pack import pack
from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.sources.utkface import UTKFaceSource

RESULTS = Path(__file__).parent / "results" / "packing.md"
WORKERS = 2
DIFFERENT = 200  # images that are synthesised; the others are copies with other bytes at the end
CHIP = {"quality": 75, "noise": 3}
"""5.0 KB at 200 px; UTKFace's have 4.8 to 4.9 KB on average."""
PHOTO = {"quality": 90, "noise": 6}
"""230 KB a megapixel; FairFace's images of 448 px have 204 KB a megapixel."""

TEMPLATE = """\
# Speed and memory of packing

`python benchmarks/packing.py` on {machine} at the start, no GPU, {workers} worker processes.
The machine is busy, so CPU seconds are more informative than wall time.

| | images | seconds | images a second | CPU seconds | images a second on 2 idle CPUs |
| --- | ---: | ---: | ---: | ---: | ---: |
{speeds}

The last column is computed from the CPU seconds, for two CPUs without other load. They cover everything: reading,
checking, cutting, writing the tars, and the index.

Until 27 November 2026 this benchmark had chips of 19 KB and photos of 380 KB in full colour resolution, four and two
times as large as real ones. A chip then took 204 microseconds to read, verify and hash.

| CSV of {rows:,} rows | |
| --- | ---: |
| file | {file:.0f} MB |
| memory before | {before:.0f} MB |
| peak memory while it is read and its items are listed | {peak:.0f} MB |
| CPU seconds | {seconds:.0f} |
"""


@dataclass(frozen=True)
class Speed:
    """Cost of packing: images, seconds of wall time, and CPU seconds of all processes."""

    images: int
    seconds: float
    cpu: float

    def row(self, name: str) -> str:
        rate, cpu_rate = self.images / self.seconds, WORKERS * self.images / self.cpu
        return f"| {name} | {self.images:,} | {self.seconds:.1f} | {rate:,.0f} | {self.cpu:.1f} | {cpu_rate:,.0f} |"


def scene(rng: np.random.Generator, width: int, height: int, quality: int, noise: float) -> bytes:
    """A JPEG of smooth shapes with noise of this standard deviation, and 4:2:0 chroma as in photos."""
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(x * rng.uniform(2, 20) + y * rng.uniform(2, 20) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = 127 + 90 * np.stack(waves, axis=2) + rng.normal(0, noise, (height, width, 3))
    return simplejpeg.encode_jpeg(np.clip(pixels, 0, 255).astype(np.uint8), quality, colorsubsampling="420")


def write_images(folder: Path, names: list[str], width: int, height: int, kind: dict[str, int]) -> None:
    """Write images with these names, each with different bytes."""
    rng = np.random.default_rng(0)
    scenes = [scene(rng, width, height, **kind) for _ in range(min(DIFFERENT, len(names)))]
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(scenes[number % len(scenes)] + number.to_bytes(8, "big"))


def chips(folder: Path, count: int) -> Source:
    """Face chips of 200 px, like UTKFace's."""
    write_images(folder / "chips", [f"{n % 90}_{n % 2}_{n % 5}_{n:017d}.jpg" for n in range(count)], 200, 200, CHIP)
    return UTKFaceSource(folder / "chips")


def photos(folder: Path, count: int) -> Source:
    """Photos of a megapixel with one person each."""
    names = [f"{number:06d}.jpg" for number in range(count)]
    write_images(folder / "photos", names, 1155, 866, PHOTO)
    header = "img_name,age,gender,face_x0,face_y0,face_x1,face_y1,person_x0,person_y0,person_x1,person_y1"
    rows = [f"{name},{n % 90},{'MF'[n % 2]},500,150,620,290,380,80,760,860" for n, name in enumerate(names)]
    (folder / "photos.csv").write_text("\n".join([header, *rows]))
    return AnnotationSource(folder / "photos", folder / "photos.csv", crop_size=256)


def cpu_seconds() -> float:
    """CPU seconds of this process and of its ended child processes."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(source: Source, out: Path) -> Speed:
    cpu, start = cpu_seconds(), time.perf_counter()
    packed = pack(source, out, {"train": 1.0}, workers=WORKERS)
    return Speed(len(packed.splits["train"]), time.perf_counter() - start, cpu_seconds() - cpu)


def write_rows(path: Path, count: int) -> None:
    with open(path, "w") as file:
        file.write("path,age,gender,identity,score\n")
        for n in range(count):
            file.write(
                f"{n % 1000:03d}/person{n // 20:06d}_{n:08d}.jpg,{n % 90},{'MF'[n % 2]},p{n // 20:06d},0.{n % 97}\n"
            )


def peak_memory() -> float:
    """Peak memory of this process in MB. ``getrusage`` would include its parent's."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def read_rows(folder: Path) -> tuple[float, float, float, int]:
    """The memory before and the peak memory in MB, the CPU seconds, and the number of items."""
    before, start = peak_memory(), time.process_time()
    items = CsvSource(folder, folder / "rows.csv").items()
    return before, peak_memory(), time.process_time() - start, len(items)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chips", type=int, default=20_000)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    where = machine()  # before the benchmark loads it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speeds = {
            "chips of 200 px, byte for byte": timed(chips(folder, options.chips), folder / "out-chips"),
            "photos of 1 megapixel, face and body cut": timed(photos(folder, options.photos), folder / "out-photos"),
        }
        write_rows(folder / "rows.csv", options.rows)
        before, peak, seconds, count = in_a_process(read_rows, folder)
        assert count == options.rows
        text = TEMPLATE.format(
            machine=where, workers=WORKERS, rows=options.rows,
            speeds="\n".join(speed.row(name) for name, speed in speeds.items()),
            file=(folder / "rows.csv").stat().st_size / 1e6, before=before, peak=peak, seconds=seconds,
        )  # fmt: skip
    write_result(RESULTS, text)


if __name__ == "__main__":
    main()
