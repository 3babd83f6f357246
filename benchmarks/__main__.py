"""Measures this project beside plain transformers, in turn, and writes tables and a plot.

python -m benchmarks
python -m benchmarks encode --on sam-tiny vit-b --turns 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks import batch, endpoint, measure, model
from benchmarks.subjects import DRAWN, EMBEDDED

CASES = {**model.CASES, **batch.CASES, **endpoint.CASES}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"some of {', '.join(CASES)} (default: all)")
    parser.add_argument("--on", nargs="+", choices=(*EMBEDDED, *DRAWN), help="checkpoints (default: each case's own)")
    parser.add_argument("--turns", type=int, default=5, help="turns that each way takes (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the tables (default: %(default)s)")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case '{unknown[0]}'; there are {', '.join(CASES)}")
    for name in chosen.cases or CASES:
        case, subjects = CASES[name]
        for result in case(list(chosen.on or subjects), chosen.turns):
            print(measure.table([result]).split("\n", 2)[2], result.note, flush=True)
            measure.save([result], chosen.output)
    print(f"written      {chosen.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
