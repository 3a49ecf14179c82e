"""The long form of ``tests/fuzz``: 2,000 damaged and hostile files, and a table of the commands' reactions.

python -m benchmarks.fuzz [--cases 2000] [--seed 1000] [--kind labels] [--at_once 2] [--out results.md]
"""

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.cases import KINDS, make_corpus
from tests.fuzz.harness import GIGABYTES, SECONDS, Outcome, run_cases

SHARES = {"configurations": 400, "labels": 300, "tars": 300, "csvs": 250, "jpegs": 200, "evaluations": 150}
SHARE = 80
"""Cases of each other kind in 2,000."""


def plan(cases: int, seed: int, kind: str | None) -> list[tuple[str, int]]:
    """(kind, seed) of every case, one kind after the other."""
    if kind:
        return [(kind, seed + number) for number in range(cases)]
    shares = {name: SHARES.get(name, SHARE) for name in KINDS}
    counts = {name: round(cases * share / sum(shares.values())) for name, share in shares.items()}
    return [(name, seed + number) for name, count in counts.items() for number in range(count)]


def table(outcomes: list[Outcome]) -> str:
    """A row for each kind."""
    rows = ["| files | cases | accepted | one-line error | faults | longest, s | most memory, GB |", "| --- " * 7 + "|"]
    by_kind = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    for kind, own in [*by_kind.items(), ("all", outcomes)]:
        faults = sum(bool(outcome.fault) for outcome in own)
        codes = Counter(outcome.code for outcome in own if not outcome.fault)
        longest, largest = max(outcome.seconds for outcome in own), max(outcome.gigabytes for outcome in own)
        rows.append(f"| {kind} | {len(own)} | {codes[0]} | {codes[2]} | {faults} | {longest:.1f} | {largest:.2f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--at_once", type=int, default=2)
    parser.add_argument("--lines", action="store_true", help="print the message of each case")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(Path(folder) / "whole")
        outcomes = []
        for outcome in run_cases(plan(options.cases, options.seed, options.kind), corpus, options.at_once):
            outcomes.append(outcome)
            if outcome.fault or options.lines:
                print(f"{outcome.kind} {outcome.seed}: {outcome.fault or outcome.line}", flush=True)
    text = (
        f"{table(outcomes)}\n\n{len(outcomes)} cases from seed {options.seed}, {options.at_once} at once, in "
        f"{(time.monotonic() - start) / 60:.0f} minutes. A fault is a traceback, more than {SECONDS} s or "
        f"{GIGABYTES} GB, a file written elsewhere, or execution of code from the input.\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
