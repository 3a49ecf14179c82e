"""Make docs/images/report.png, the image at the head of README.md: the first screen of the quickstart's evaluation
report.

    make quickstart
    python docs/make_report_image.py

It needs Chromium. The people in it are synthetic, so the image carries nobody's rights.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).parents[1]
REPORT = REPOSITORY / "runs" / "quickstart" / "evaluation" / "report.html"
IMAGE = REPOSITORY / "docs" / "images" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
COLOURS = 128
"""A report has few; with them alone the file is a third as large."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--report", type=Path, default=REPORT)
    parser.add_argument("--out", type=Path, default=IMAGE)
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=1030)
    options = parser.parse_args()
    if not options.report.is_file():
        parser.error(f"{options.report}: no such file; run `make quickstart` first")
    with tempfile.TemporaryDirectory() as folder:
        screenshot = Path(folder) / "screenshot.png"
        take_screenshot(options.report, screenshot, options.width, options.height)
        image = Image.open(screenshot).convert("RGB")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(options.out, optimize=True)
    print(f"{options.out}: {image.width} x {image.height}, {options.out.stat().st_size:,} bytes")


def take_screenshot(page: Path, out: Path, width: int, height: int) -> None:
    """The first screen of a page, as somebody who prefers light pages sees it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"there is no {' or '.join(BROWSERS)} on this machine")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
    profile = f"--user-data-dir={out.parent / 'profile'}"
    command = [browser, *flags, profile, f"--screenshot={out}", page.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
