"""``python -m penstock.tests.storm --seeds 200``: storms, one line each; ``--seed N`` runs one of them again."""

from __future__ import annotations

import argparse
import sys
import time

from penstock.tests.storm.whole import storm


def main() -> int:
    """Returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m penstock.tests.storm", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many storms (10)")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first seed (1)")
    parser.add_argument("--seed", type=int, metavar="N", help="this one only, with its log")
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.seeds) if asked.seed is None else [asked.seed]
    failed: list[int] = []
    faults = runs = 0
    for number in numbers:
        began = time.monotonic()
        found = storm(number)
        faults, runs = faults + found.faults, runs + found.runs
        verdict = f"{len(found.wrong)} WRONG" if found.wrong else "right"
        seconds = time.monotonic() - began
        print(f"seed {number}: {verdict}, {found.runs} runs, {found.faults} faults, {seconds:.1f} s", flush=True)
        if found.wrong:
            failed.append(number)
        if found.wrong or asked.seed is not None:
            print(found, flush=True)
    print(f"{len(numbers)} storms, {runs} runs, {faults} faults: " + (f"wrong: {failed}" if failed else "all right"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
