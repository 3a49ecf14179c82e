"""Runs ``predict`` and ``find-faces`` over a list of items so that the same command resumes after any interruption."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from mivolo_lite.errors import UserError, in_one_line
from mivolo_lite.inference.partial_results import PartialResults
from mivolo_lite.inference.sources import Item
from mivolo_lite.inference.work import Result
from mivolo_lite.output import complain
from mivolo_lite.wording import count_of

Written = TypeVar("Written")


class Processes(NamedTuple):
    """This process among those that share the items: each does every ``world_size``-th; ``wait`` is a barrier."""

    rank: int = 0
    world_size: int = 1
    wait: Callable[[], None] = lambda: None


class Unfinished(Exception):
    """Ctrl-C or an error of one line ended a command; the same call resumes.

    Attributes:
        reason: what ended it.
        progress: how many items are done.
        written: the call's usual result; None if no tables could be written.
    """

    def __init__(self, reason: BaseException, partial_results: PartialResults, written: Any) -> None:
        super().__init__(str(reason))
        self.reason, self.written = reason, written
        self.progress = f"{len(partial_results.done())} of {count_of(len(partial_results.items), 'item')} are done"

    def explained(self, resumes: bool = True) -> BaseException:
        """The reason, with the progress and, unless ``resumes`` is False, a note that the same command resumes."""
        self.reason.args = (f"{self.reason}; {self.progress}" + ", and the same command resumes" * resumes,)
        return self.reason


def run_resumably(
    partial_results: PartialResults,
    settings: Mapping[str, Any],
    run: Callable[[list[tuple[int, Item]]], Iterator[tuple[int, Result]]],
    write_tables: Callable[[Iterator[tuple[int, Result]]], Written],
    processes: Processes,
) -> Written | None:
    """Do the items that an earlier call with the same settings has not done, then write the tables of all.

    Rejected items are tried again: a network or a permission that was missing may be there now.

    Args:
        partial_results: of all processes.
        settings: everything that results depend on, for ``json``.
        run: gives the results of numbered items, with their numbers.
        write_tables: writes all results, which come with the numbers of their items.
        processes: this one, and those that share the items with it.

    Returns:
        the result of ``write_tables``; None from all processes but the first.

    Raises:
        UserError: the partial results cannot be written, or another command writes them.
        Unfinished: after Ctrl-C or an error of one line in a single process, or if the tables cannot be written.
    """
    rank, world_size, wait = processes
    if rank == 0 and (note := partial_results.begin(settings)):
        complain(f"note: {note}")
    wait()
    done, items = partial_results.done(), partial_results.items
    if rank == 0 and done:
        rejected = sum(done.values())
        again = f"; those that were rejected, {rejected}, are tried again" if rejected else ""
        complain(f"note: resumes: {len(done)} of {count_of(len(items), 'item')} were done before{again}")
    kept = {number for number, is_rejected in done.items() if not is_rejected}
    share = [(number, items[number]) for number in range(rank, len(items), world_size) if number not in kept]
    ended = _write(partial_results, run(share), rank)
    if ended is not None and (world_size > 1 or not any(partial_results.results())):
        raise ended
    wait()
    if rank != 0:
        return None
    try:
        written = write_tables(partial_results.results())
    except UserError as error:
        raise Unfinished(ended or error, partial_results, None) from None
    if ended is not None:
        raise Unfinished(ended, partial_results, written)
    partial_results.remove()
    return written


def _write(partial_results: PartialResults, results: Iterator[tuple[int, Result]], rank: int) -> BaseException | None:
    """Write results as they come; returns the Ctrl-C or the error of one line that ended it."""
    try:
        partial_results.write(results, rank)
    except KeyboardInterrupt:
        return KeyboardInterrupt("interrupted")
    except Exception as error:
        if explained := in_one_line(error):
            return explained
        raise
    return None
