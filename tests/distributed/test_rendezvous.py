"""Ranks that meet, and one that does not come."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mivolo_lite.distributed import rendezvous
from mivolo_lite.distributed.rendezvous import wait_for_ranks
from mivolo_lite.errors import MachineError, UserError
from tests.ports import free_ports


@pytest.fixture
def ranks(monkeypatch):
    """The environments of three ranks, which wait a second."""
    monkeypatch.setattr(rendezvous, "_REPORT_INTERVAL", 0.3)
    (port,) = free_ports(1)
    place = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [place | {"RANK": str(rank), "MIVOLO_RENDEZVOUS_TIMEOUT": "1"} for rank in range(3)]


def outcomes(environments, **options):
    def outcome(environment):
        try:
            return wait_for_ranks(environment, **options)
        except MachineError as error:
            return str(error)

    with ThreadPoolExecutor(len(environments)) as threads:
        return list(threads.map(outcome, environments))


def test_all_ranks_share_a_store(ranks):
    first, *others = outcomes(ranks)
    first.set("word", "given")
    assert all(store.get("word") == b"given" for store in others)


def test_a_node_that_comes_back_meets_those_that_restarted_more_often(ranks):
    stores = outcomes([ranks[rank] | {"TORCHELASTIC_RESTART_COUNT": str(2 - rank)} for rank in range(3)])
    assert not any(isinstance(store, str) for store in stores), stores


@pytest.mark.slow
def test_who_is_missing_is_said_while_waiting_and_at_the_end(ranks, capfd):
    first, second = outcomes(ranks[:2])
    assert "rank 0: rank 2 of 3 did not come within 1 seconds" in first and "MIVOLO_RENDEZVOUS_TIMEOUT" in first
    assert "the other ranks did not come" in second or "rank 0, where the ranks meet, is gone" in second
    assert "of 1 seconds waiting for rank 2 of 3" in capfd.readouterr().err


@pytest.mark.slow
def test_without_rank_0_the_place_is_named(ranks):
    (line,) = outcomes(ranks[1:2])
    assert f"rank 1: rank 0 at 127.0.0.1:{ranks[0]['MASTER_PORT']} did not come" in line


@pytest.mark.timeout(30)
def test_a_place_that_is_not_rank_0s_own_is_named_in_time(ranks):
    (line,) = outcomes([ranks[0] | {"MASTER_ADDR": "nowhere.invalid"}])
    assert "an answer of its own at MASTER_ADDR nowhere.invalid" in line and "the node of rank 0" in line


def test_a_warning_ends_the_waiting(ranks):
    (line,) = outcomes(ranks[:1], should_stop=lambda: True)
    assert "told to end while it waited for ranks 1, 2 of 3" in line


def test_one_process_waits_for_nobody():
    assert (
        wait_for_ranks({}) is None
        and wait_for_ranks({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere"}) is None
    )


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "nan"])
def test_a_time_that_is_none_is_an_error(ranks, text):
    with pytest.raises(UserError, match="MIVOLO_RENDEZVOUS_TIMEOUT"):
        wait_for_ranks(ranks[0] | {"MIVOLO_RENDEZVOUS_TIMEOUT": text})
