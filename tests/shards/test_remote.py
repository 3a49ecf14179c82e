"""Shards at a URL are those in the folder, whatever happens on the way."""

import fcntl
import json
import pickle
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from threading import Event, Thread

import fsspec
import numpy as np
import pytest

from mivolo_lite.distributed.batch_plan import BatchPlan
from mivolo_lite.errors import UserError
from mivolo_lite.loading.config import DataConfig
from mivolo_lite.loading.dataset import ShardDataset
from mivolo_lite.loading.readers import IndexReader
from mivolo_lite.loading.workers import eval_loader
from mivolo_lite.shards import remote
from mivolo_lite.shards.cache import CacheConfig
from mivolo_lite.shards.index import ShardIndex
from mivolo_lite.shards.sample_ref import SampleRef
from tests.shards.servers import FlakyApplication, HostileServer, HubServer, Mishaps, RangeServer, serving
from tests.shards.tiny_shards import make_shards, of_before_the_crcs

SIZES = [37, 11, 50, 23, 8]
INPUTS = ("face", "body")
STEPS = 22  # two epochs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def http(folder):
    with serving(RangeServer(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def s3(folder):
    """A flaky application in front of moto's S3, and the URL of the folder's copy in it."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app  # slow to import
    from werkzeug.serving import make_server

    application = FlakyApplication(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    with serving(server), pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("bucket")
        for path in folder.iterdir():
            files.pipe_file(f"bucket/people/train/{path.name}", path.read_bytes())
        application.url = "s3://bucket/people/train"
        yield application


@pytest.fixture(params=["http", "s3"])
def server(request):
    server = request.getfixturevalue(request.param)
    yield server
    server.mishaps = Mishaps()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.002)


def cache(path, **options):
    return CacheConfig(folder=str(path / "cache"), **options)


def reader(address, cache=None, workers=0):
    config = DataConfig(train=str(address), image_size=16, workers=workers, block_samples=8, window_blocks=3)
    return IndexReader(replace(config, cache=cache or CacheConfig()), seed=5)


def batches(address, cache=None, workers=0, world_size=2, samples_seen=0, steps=STEPS):
    """Everything in the batches of all ranks, in their order."""
    data, plan = reader(address, cache, workers), BatchPlan.resolve(12, 3, world_size)
    return [content(b) for rank in range(world_size) for b in data.batches(INPUTS, plan, rank, samples_seen, steps)]


def content(batch):
    tensors = (batch.sample, *batch.face, *batch.body, batch.gender, batch.gender_known)
    ages = (batch.age.lo, batch.age.hi, batch.age.known)
    return [tensor.numpy().tobytes() for tensor in (*tensors, *ages)], batch.broken


@pytest.fixture(scope="module")
def from_disk(folder):
    return batches(folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_as_from_disk(server, from_disk, tmp_path, workers):
    assert batches(server.url, cache(tmp_path), workers) == from_disk


@pytest.mark.slow
def test_the_same_batches_from_the_hugging_face_hub(folder, from_disk, tmp_path, monkeypatch):
    with serving(HubServer(folder)) as hub:
        files = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)  # HF_ENDPOINT, where it is read in time
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        assert batches(hub.url, cache(tmp_path)) == from_disk
        assert all(
            last - first < (folder / name).stat().st_size - 1 for name, first, last in hub.asked if "part" in name
        )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_batches_though_requests_fail_and_a_connection_is_cut(server, from_disk, tmp_path, workers):
    server.mishaps = Mishaps(share=0.05, cut_at=11)
    assert batches(server.url, cache(tmp_path, gb=3.2e-4), workers) == from_disk
    assert server.mishaps.failed > 0 and server.mishaps.cut == 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_cache_is_never_over_its_bound_though_more_is_read(http, from_disk, tmp_path, workers):
    http.asked.clear()
    small = cache(tmp_path, gb=3.2e-4, readahead_blocks=2)
    with watched(tmp_path / "cache") as sizes:
        assert batches(http.url, small, workers) == from_disk
    assert 100_000 < max(sizes) <= 320_000 and len(sizes) > 20
    assert sum(last + 1 - first for _, first, last in http.asked.elements()) > 700_000


class watched:
    """Notes a cache folder's bytes on disk over and over. Its lock is held meanwhile, or files come and go at it."""

    def __init__(self, folder):
        self.folder, self.sizes, self.over = folder, [], Event()
        self.thread = Thread(target=self.watch)

    def watch(self):
        while not self.over.wait(0.001):
            if (self.folder / "lock").exists():
                with open(self.folder / "lock", "rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_SH)
                    files = [path.stat() for path in self.folder.iterdir()]
                    self.sizes.append(sum(max(file.st_size, 512 * file.st_blocks) for file in files))
                    fcntl.flock(lock, fcntl.LOCK_UN)  # a worker forked meanwhile has a copy

    def __enter__(self):
        self.thread.start()
        return self.sizes

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@pytest.mark.slow
def test_processes_that_share_a_cache_fetch_each_block_once(http, from_disk, tmp_path):
    http.asked.clear()
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        both = [pool.submit(batches, http.url, cache(tmp_path), workers=2) for _ in range(2)]
        assert all(each.result() == from_disk for each in both)
    times = {asked: n for asked, n in http.asked.items() if asked[0] != "dataset.json"}
    assert set(times.values()) == {1}
    assert len(times) == 1 + sum(-(-size // 8) for size in SIZES)  # the index and every block


def test_a_run_goes_on_in_the_middle_with_an_empty_cache(http, tmp_path, folder):
    for seen, world_size in ((84, 1), (96, 2)):
        assert batches(http.url, cache(tmp_path / str(seen)), 0, world_size, seen, 7) == batches(
            folder, None, 0, world_size, seen, 7
        )


def test_a_run_on_the_same_node_finds_the_blocks_of_the_one_before(http, from_disk, tmp_path):
    assert batches(http.url, cache(tmp_path)) == from_disk
    http.asked.clear()
    assert batches(http.url, cache(tmp_path)) == from_disk
    assert {name for name, *_ in http.asked} == {"dataset.json"}


def test_evaluation_reads_the_same(http, folder, tmp_path):
    index = ShardIndex.load(http.url, cache(tmp_path))
    loaded = [content(batch) for batch in eval_loader(index, INPUTS, 16, 10)]
    assert loaded == [content(batch) for batch in eval_loader(ShardIndex.load(folder), INPUTS, 16, 10)]


def test_blocks_are_fetched_before_they_are_needed(http, tmp_path):
    data = reader(http.url, cache(tmp_path, readahead_blocks=6))
    http.asked.clear()
    next(iter(data.batches(INPUTS, BatchPlan.resolve(2, None, 1), 0, 0, 50)))  # two samples of one or two blocks
    deadline = time.monotonic() + 30
    while len(http.asked) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(http.asked) >= 6


@pytest.mark.parametrize("readahead", [0, 1, 5])
def test_every_block_is_announced_once_and_in_time(http, tmp_path, readahead):
    shards = ShardDataset(ShardIndex.load(http.url, cache(tmp_path, readahead_blocks=readahead)), INPUTS, 16, None, 8)
    refs = [[SampleRef(0, n) for n in range(first, first + 3)] for first in range(0, 129, 3)]
    announced = set()
    for number, (batch, ahead) in enumerate(shards.shards.schedule(refs)):
        assert batch == refs[number] and not announced & set(ahead)
        announced |= set(ahead)
        needed = [shards.shards.blocks_of(np.array([d.sample for d in b])) for b in refs[: number + 1]]
        to_come = announced - {block for blocks in needed for block in blocks}
        assert announced >= set().union(*needed)
        assert len(to_come) >= readahead or len(announced) == sum(-(-size // 8) for size in SIZES)
    assert number == len(refs) - 1


def test_the_schedule_does_not_run_away_where_all_blocks_are_known(http, tmp_path, monkeypatch):
    monkeypatch.setattr("mivolo_lite.shards.prefetch._SAMPLES_AHEAD", 100)
    shards = ShardDataset(ShardIndex.load(http.url, cache(tmp_path)), INPUTS, 16).shards
    taken = []
    endless = (taken.append(n) or [SampleRef(0, n % 20) for n in range(10)] for n in range(10**9))
    schedule = shards.schedule(endless)
    for _ in range(5):
        next(schedule)
    assert len(taken) <= 5 + 11


def test_a_cache_that_would_fetch_everything_again_and_again_is_named(http, tmp_path):
    with pytest.raises(
        UserError, match="data.cache.gb 0.0001: the index and two windows of blocks take 0.000[0-9]+ GB"
    ):
        reader(http.url, cache(tmp_path, gb=1e-4))


@pytest.fixture
def copy(folder, tmp_path):
    """Another server, of files that a test may change."""
    shutil.copytree(folder, tmp_path / "copy")
    with serving(RangeServer(tmp_path / "copy")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_was_changed_is_found_out(copy, tmp_path, workers):
    """One bit of one image, which would decode all the same."""
    index = ShardIndex.load(copy.folder)
    sample = 40
    path = copy.folder / index.shard_name(int(index.columns["shard"][sample]))
    data = bytearray(path.read_bytes())
    place = int(index.columns["body_offset"][sample] + index.columns["body_size"][sample] // 2)
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        UserError, match="part-0001.tar: sample sample00040: its body is not what was indexed; .*index"
    ) as error:
        batches(copy.url, cache(tmp_path), workers)
    assert "\n" not in str(error.value)


def test_an_index_that_is_not_the_shards_is_found_out(copy, tmp_path):
    path = copy.folder / "index.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="index.safetensors and dataset.json were not written together"):
        ShardIndex.load(copy.url, cache(tmp_path))
    info = json.loads((copy.folder / "dataset.json").read_text())
    del info["index"]
    (copy.folder / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="indexed by an older version.*mivolo-lite index"):
        ShardIndex.load(copy.url, cache(tmp_path))


@pytest.mark.slow
def test_shards_that_were_replaced_are_read_anew(copy, tmp_path):
    """Under the same URL and beside a cache of the old ones."""
    before = batches(copy.url, cache(tmp_path))
    make_shards(copy.folder, list(reversed(SIZES)))
    after = batches(copy.url, cache(tmp_path))
    assert after == batches(copy.folder) and after != before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_what_stays_impossible_is_one_clear_line(copy, tmp_path, workers):
    (copy.folder / "part-0002.tar").unlink()
    with pytest.raises(UserError, match="part-0002.tar: not there; upload the whole folder"):
        batches(copy.url, cache(tmp_path), workers)
    data = reader(copy.url, cache(tmp_path / "other"), workers)
    copy.mishaps = Mishaps(share=1)
    with pytest.raises(UserError, match=r"part-000\d.tar: cannot be read: .*500.*tried 9 times") as error:
        list(data.batches(INPUTS, BatchPlan.resolve(12, None, 1), 0, 0, 2))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["endless", "slow", "silent", "short"])
@pytest.mark.parametrize("ranged", [False, True])
def test_a_server_that_never_ends_takes_neither_memory_nor_time(kind, ranged, monkeypatch):
    for name, value in {"_SILENCE": 0.3, "PATIENCE": 0.5, "_UNKNOWN": 6e4, "_LARGEST": 2**22}.items():
        monkeypatch.setattr(remote, name, value)
    with serving(HostileServer(kind)) as server:
        folder, begun = remote.RemoteFolder(server.url), time.monotonic()
        with pytest.raises(UserError, match="more than 4 MB|ignores ranges|cannot be read") as error:
            folder.read("dataset.json", *((0, 10**6) if ranged and kind == "short" else (0, 1000) if ranged else ()))
        assert "\n" not in str(error.value) and time.monotonic() - begun < 60
    assert server.sent < 100e6


@pytest.mark.slow
def test_passwords_and_tokens_of_urls_are_used_and_never_shown(copy, tmp_path, from_disk):
    host = copy.url.removeprefix("http://")
    for url in (f"http://me:s3cret@{host}/", f"http://{host}/?token=s3cret&X-Amz-Signature=s3cret"):
        assert batches(url, cache(tmp_path)) == from_disk
        index = ShardIndex.load(url, cache(tmp_path))
        assert "s3cret" not in str(index.folder) and len(pickle.loads(pickle.dumps(index))) == len(index)
        with pytest.raises(UserError, match="not there") as error:
            ShardIndex.load(url.replace(f"{host}/", f"{host}/nothing"), cache(tmp_path))
        assert "s3cret" not in str(error.value) and host in str(error.value)


@pytest.mark.slow
def test_what_the_nodes_disk_changes_is_fetched_anew(http, tmp_path, from_disk):
    assert batches(http.url, cache(tmp_path)) == from_disk
    for path in (tmp_path / "cache").glob("*.*"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
        path.write_bytes(data)
    assert batches(http.url, cache(tmp_path)) == from_disk


def test_the_environments_proxy_is_used(http, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", http.url)
    assert ShardIndex.load("http://data.invalid", cache(tmp_path)).digest == ShardIndex.load(folder).digest


def test_a_server_without_ranges_is_named(copy, tmp_path):
    copy.ranges = False
    index = ShardIndex.load(copy.url, cache(tmp_path))  # the whole of which was asked for
    with pytest.raises(UserError, match="ignores ranges"):
        next(iter(eval_loader(index, INPUTS, 16, 10)))


def test_addresses_that_lead_nowhere_are_named(http, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="ftp://x: no such kind of address; there are folders, s3://"):
        ShardIndex.load("ftp://x", cache(tmp_path))
    with pytest.raises(UserError, match="/nothing/dataset.json: not there; upload"):
        ShardIndex.load(f"{http.url}/nothing", cache(tmp_path))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r'gs://bucket/x: needs a package .*pip install "mivolo-lite\[gs\]"'):
        ShardIndex.load("gs://bucket/x", cache(tmp_path))


def test_an_index_of_before_the_checks_still_reads_from_disk(folder, tmp_path, from_disk):
    shutil.copytree(folder, tmp_path / "old")
    index = of_before_the_crcs(ShardIndex.load(tmp_path / "old"))
    index.save()
    info = json.loads((tmp_path / "old" / "dataset.json").read_text())
    del info["index"]
    (tmp_path / "old" / "dataset.json").write_text(json.dumps(info))
    assert batches(tmp_path / "old") == from_disk


def test_a_process_that_is_not_forked_finds_its_own_way(http, tmp_path):
    dataset = ShardDataset(ShardIndex.load(http.url, cache(tmp_path)), INPUTS, 16)
    sent = pickle.dumps(dataset)
    assert len(sent) < 10_000
    assert content(pickle.loads(sent).read([SampleRef(0, 5)])) == content(dataset.read([SampleRef(0, 5)]))
