"""Measure this project and plain transformers in turn, and write tables and a plot.

Examples:
  python -m benchmarks
  python -m benchmarks encode --on sam-tiny vit-b --turns 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sam_endpoint.scoring.process import configure_process

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    configure_process()

    from benchmarks import batch, endpoint, measure, model, processes
    from benchmarks.subjects import EMBEDDED, RANDOM

    cases = {**model.CASES, **processes.CASES, **batch.CASES, **endpoint.CASES}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"any of {', '.join(cases)} (default: all)")
    parser.add_argument("--on", nargs="+", choices=(*EMBEDDED, *RANDOM), help="checkpoints (default: the case's own)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each way (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the tables (default: %(default)s)")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in cases]
    if unknown:
        parser.error(f"there is no case '{unknown[0]}'; there are {', '.join(cases)}")
    for name in options.cases or cases:
        case, subjects = cases[name]
        for subject in options.on or subjects:
            for result in case(subject, options.turns):
                print(measure.table([result]).split("\n", 2)[2], result.note, flush=True)
                measure.save([result], options.output)
    print(f"written      {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
