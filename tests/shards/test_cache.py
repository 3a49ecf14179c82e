"""Laws of the node's cache: whole files, made once, within the bound, whoever dies."""

import errno
import os
import random
import signal
import time
from multiprocessing import get_context
from threading import Event, Thread

import pytest

from mivolo_lite.errors import UserError
from mivolo_lite.shards.cache import CacheConfig, NodeCache
from tests.open_files import open_files_under

PAGE = 4096
FORK = get_context("fork")


def fill(name):
    """Writes what a file of that name holds."""

    def write(file):
        with open(file, "wb", closefd=False) as out:
            out.write(content(name))

    return write


def content(name):
    number = int(name.partition(".")[0])
    return random.Random(number).randbytes(1000 + 7919 * number % 15_000)


def read(cache, name):
    with cache.open(name, len(content(name)), fill(name)) as file:
        return os.pread(file, 10**6, 0)


def on_disk(cache):
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in cache.folder.iterdir())


def blocks(cache):
    return sorted(path.name for path in cache.folder.iterdir() if path.name != "lock")


def three_blocks(tmp_path):
    """A cache with room for three files of a page, and no more."""
    return NodeCache(tmp_path / "cache", 4 * PAGE)


def put(cache, name):
    cache.make(name, PAGE, lambda file: os.pwrite(file, name.encode(), 0))


def test_what_was_used_longest_ago_makes_way(tmp_path):
    cache = three_blocks(tmp_path)
    for name in ("a.block", "b.block", "c.block"):
        put(cache, name)
        time.sleep(0.02)
    with cache.open("a.block", PAGE, fill) as file:
        assert os.pread(file, 1, 0) == b"a"
    put(cache, "d.block")
    assert "a.block" in blocks(cache) and "d.block" in blocks(cache) and "b.block" not in blocks(cache)


@pytest.mark.parametrize("left", [b"", bytes(20), b"12", b"-0000000000000000005"])
def test_a_count_that_a_crash_left_damaged_is_made_anew(tmp_path, left):
    cache = three_blocks(tmp_path)
    put(cache, "a.block")
    (cache.folder / "lock").write_bytes(left)
    three_blocks(tmp_path)
    assert int((cache.folder / "lock").read_bytes()) == on_disk(cache) == 2 * PAGE


def test_a_lower_bound_holds_at_once(tmp_path):
    cache = NodeCache(tmp_path / "cache", 40 * PAGE)
    for number in range(20):
        put(cache, f"{number}.block")
    assert on_disk(cache) == 21 * PAGE
    assert on_disk(three_blocks(tmp_path)) <= 4 * PAGE


def test_an_open_file_stays_whole_when_it_is_evicted_and_comes_back_when_asked_for_again(tmp_path):
    cache = three_blocks(tmp_path)
    put(cache, "0.block")
    with cache.open("0.block", PAGE, fill) as file:
        for name in ("1.block", "2.block", "3.block", "4.block"):
            put(cache, name)
            time.sleep(0.01)
        assert not cache.has("0.block") and os.pread(file, 1, 0) == b"0"
    with cache.open("0.block", PAGE, lambda file: os.pwrite(file, b"again", 0)) as file:
        assert os.pread(file, 5, 0) == b"again"


def test_an_index_is_never_evicted_and_what_cannot_have_room_is_named(tmp_path):
    cache = three_blocks(tmp_path)
    put(cache, "index.safetensors")
    for number in range(5):
        put(cache, f"{number}.block")
    assert "index.safetensors" in blocks(cache) and on_disk(cache) <= cache.bound
    with pytest.raises(UserError, match="data.cache.gb 1.6384e-05: .* no room for 1.23e-05 GB beside the 8.19e-06 GB"):
        cache.make("big.block", 3 * PAGE, fill)
    put(cache, "5.block")  # resumes working


def test_a_file_that_could_not_be_made_leaves_nothing_and_gives_its_room_back(tmp_path):
    cache = three_blocks(tmp_path)

    def fail(file):
        os.pwrite(file, b"half", 0)
        raise UserError("no such thing")

    for _ in range(20):
        with pytest.raises(UserError, match="no such thing"):
            cache.make("x.block", 3 * PAGE, fail)
    assert blocks(cache) == []
    cache.make("x.block", 3 * PAGE, lambda file: None)


def test_a_full_disk_and_an_impossible_folder_are_named(tmp_path):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(UserError, match="data.cache.folder .*cache: No space left on device; choose another folder"):
        three_blocks(tmp_path).make("x.block", PAGE, full)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="data.cache.folder .*file/cache: Not a directory"):
        NodeCache.of(CacheConfig(folder=str(tmp_path / "file" / "cache")))


def test_what_cannot_be_read_is_named(tmp_path):
    cache = three_blocks(tmp_path)
    (cache.folder / "7.block").mkdir()
    with pytest.raises(UserError, match="data.cache.folder .*7.block: Is a directory; choose another folder"):
        read(cache, "7.block")


def test_a_folder_into_which_others_could_put_files_is_refused(tmp_path):
    own = tmp_path / "own"
    own.mkdir(mode=0o755)
    NodeCache(own, 40 * PAGE)
    own.chmod(0o777)
    with pytest.raises(UserError, match="data.cache.folder .*own: can be written to by others"):
        NodeCache(own, 40 * PAGE)
    own.chmod(0o700)
    (tmp_path / "link").symlink_to(own)
    with pytest.raises(UserError, match="data.cache.folder .*link: is a link"):
        NodeCache(tmp_path / "link", 40 * PAGE)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path):
    (tmp_path / "foreign").mkdir(mode=0o700)
    os.chown(tmp_path / "foreign", 65534, 65534)
    with pytest.raises(UserError, match="data.cache.folder .*foreign: belongs to another user"):
        NodeCache(tmp_path / "foreign", 40 * PAGE)


@pytest.mark.parametrize("name", ["0.block.partial", "0.block", "lock"])
def test_no_link_in_it_is_followed(tmp_path, name):
    cache, victim = NodeCache(tmp_path / "cache", 40 * PAGE), tmp_path / "victim"
    victim.write_text("precious")
    (cache.folder / name).unlink(missing_ok=True)
    (cache.folder / name).symlink_to(victim)
    with pytest.raises(UserError, match="data.cache.folder .*: Too many levels of symbolic links"):
        read(cache, "0.block")
    assert victim.read_text() == "precious"


def test_what_is_dropped_gives_its_room_back_and_is_made_anew(tmp_path):
    cache = three_blocks(tmp_path)
    for _ in range(20):
        put(cache, "0.block")
        cache.drop("0.block")
    cache.drop("0.block")  # as where another process was faster
    assert blocks(cache) == []
    cache.make("x.block", 3 * PAGE, lambda file: None)


def test_threads_and_processes_make_each_file_once(tmp_path):
    cache = NodeCache(tmp_path / "cache", 10**9)
    log = tmp_path / "log"

    def work():
        names = [f"{number}.block" for number in range(60)]
        random.shuffle(names)
        for name in names:

            def noted(file, name=name):
                with open(log, "a") as out:
                    out.write(f"{name}\n")
                fill(name)(file)

            cache.make(name, len(content(name)), noted)
            assert read(cache, name) == content(name)

    in_parallel(work, processes=3, threads=3)
    assert sorted(log.read_text().split()) == sorted(f"{number}.block" for number in range(60))


@pytest.mark.slow
def test_many_readers_of_a_small_cache_all_read_what_is_right_within_the_bound(tmp_path):
    cache = NodeCache(tmp_path / "cache", 20 * PAGE)  # a file may take four, nine are wanted at once

    def work():
        for _ in range(60):
            name = f"{random.randrange(40)}.block"
            assert read(cache, name) == content(name)
            with cache._ledger():
                assert on_disk(cache) <= cache.bound

    in_parallel(work, processes=3, threads=3)


def in_parallel(work, processes, threads):
    def several():
        failed = []

        def one():
            try:
                work()
            except BaseException as error:
                failed.append(error)
                raise

        random.seed(os.getpid())
        running = [Thread(target=one) for _ in range(threads)]
        [thread.start() for thread in running]
        [thread.join() for thread in running]
        os._exit(bool(failed))

    running = [FORK.Process(target=several) for _ in range(processes)]
    [process.start() for process in running]
    [process.join(60) for process in running]
    assert [process.exitcode for process in running] == [0] * processes


def test_a_killed_process_leaves_neither_a_lock_nor_half_a_file_nor_lost_room(tmp_path):
    cache = three_blocks(tmp_path)

    def hang(file):
        os.pwrite(file, b"half", 0)
        begun.set()
        time.sleep(60)

    makers = []
    for name in ("0.block", "1.block", "2.block"):
        begun = FORK.Event()
        makers.append(FORK.Process(target=cache.make, args=(name, PAGE, hang)))
        makers[-1].start()
        assert begun.wait(60)
    waiting = Thread(target=put, args=(cache, "0.block"), daemon=True)
    waiting.start()
    time.sleep(0.2)
    assert waiting.is_alive() and not cache.has("0.block")
    for maker in makers:
        os.kill(maker.pid, signal.SIGKILL)
        maker.join()
    waiting.join(60)
    assert cache.has("0.block")
    for name in ("3.block", "4.block", "5.block"):
        put(cache, name)
        time.sleep(0.01)
    assert blocks(cache) == ["3.block", "4.block", "5.block"]


def test_who_does_not_want_to_wait_leaves_a_file_to_whoever_is_at_it(tmp_path):
    cache = three_blocks(tmp_path)
    begun, go_on = Event(), Event()
    maker = Thread(target=cache.make, args=("0.block", 3 * PAGE, lambda file: (begun.set(), go_on.wait(60))))
    maker.start()
    assert begun.wait(60)
    open_files = open_files_under(tmp_path)
    cache.make("0.block", 3 * PAGE, fill, wait=False)
    cache.make("1.block", PAGE, fill, wait=False)  # no room as long as the other is unfinished
    assert open_files_under(tmp_path) == open_files
    assert blocks(cache) == ["0.block.partial"]
    go_on.set()
    maker.join()
    put(cache, "1.block")
    assert blocks(cache) == ["1.block"]
