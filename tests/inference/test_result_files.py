"""The files of predictions hold whole results, whatever ends the command."""

import csv
import json

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.inference import result_files
from mivolo_lite.inference.result_files import Incomplete, write_results
from mivolo_lite.inference.work import Result
from tests.inference.small_disk import small_disk

RESULTS = [
    (0, Result([{"source": "é.png", "age": 1.5, "flags": []}, {"source": "é.png", "age": 30.0, "flags": []}])),
    (1, Result(rejected=[{"image": "no.png", "reason": "no photo"}])),
    (2, Result([{"source": "v.mp4", "frame": 0, "age": 7.0, "flags": []}])),
    (
        2,
        Result(
            [{"source": "v.mp4", "frame": 1, "age": 8.0, "flags": []}], [{"source": "v.mp4", "track": 1, "flags": []}]
        ),
    ),
    (3, Result([{"source": "\udce9.png", "flags": ["nobody found"]}])),
]


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_full_disk_leaves_whole_results_alike_in_all_files(tmp_path, monkeypatch):
    counts = write_results(RESULTS, tmp_path, [], 4)
    assert counts == {"rows": 5, "rejected": 1, "tracks": 1}
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    seen = set()
    for room in range(0, sum(map(len, whole.values())), 7):
        out = tmp_path / f"{room}"
        out.mkdir()
        monkeypatch.setattr(result_files, "open", small_disk(room), raising=False)
        with pytest.raises((Incomplete, UserError)) as stopped:
            write_results(RESULTS, out, [], 4)
        if stopped.type is UserError:  # not one fits
            assert list(out.iterdir()) == []
            continue
        counts, written = stopped.value.counts, {path.name: path.read_bytes() for path in out.iterdir()}
        assert all(whole[name].startswith(content) for name, content in written.items())
        lines = [json.loads(line) for line in written["predictions.jsonl"].splitlines()]
        assert len(lines) == len(table(out / "predictions.csv")) == counts["rows"]
        assert written["rejected.jsonl"].count(b"\n") == counts["rejected"]
        assert ("tracks.csv" in written) == ("tracks.jsonl" in written) == ("tracks" in counts)
        assert f"of 4 items, in {counts['rows']} row" in str(stopped.value.reason)
        seen.add(counts["rows"])
    assert seen == {2, 3, 4}  # the last result always ends the disk


@pytest.mark.parametrize(
    "error, kept", [(KeyboardInterrupt(), True), (OSError(5, "EIO"), True), (ZeroDivisionError(), False)]
)
def test_a_bug_alone_leaves_nothing(error, kept, tmp_path):
    def results():
        yield from RESULTS[:2]
        raise error

    with pytest.raises(Incomplete if kept else type(error)):
        write_results(results(), tmp_path, [], 4)
    names = {"predictions.jsonl", "predictions.csv", "rejected.jsonl"} if kept else set()
    assert {path.name for path in tmp_path.iterdir()} == names
