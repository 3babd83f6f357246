"""Measure this project and plain transformers alternately, and write a table and a plot.

Examples:
  python -m benchmarks
  python -m benchmarks encode --on sam-tiny vit-b --turns 5

Four commands have options of their own. `stages` measures stage times, `sizing` computes replicas and costs from them,
and `replicas` compares the predictions with two replicas behind nginx (docs/sizing.md). `starting` measures the time
from the start of Python to the first answer.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from sam_endpoint.scoring.process import configure_process

COMMANDS = ("stages", "sizing", "replicas", "starting")  # modules of this package with a `main` of their own
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the command and return its exit code."""
    configure_process()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return int(importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:]))

    from benchmarks import batch, concepts, endpoint, gpu, load, measure, model, processes, tools, track
    from benchmarks.subjects import EMBEDDED, RANDOM, SAM2_SIZES

    cases = {
        **model.CASES,
        **processes.CASES,
        **batch.CASES,
        **endpoint.CASES,
        **load.CASES,
        **tools.CASES,
        **track.CASES,
        **concepts.CASES,
    }
    names = ", ".join((*cases, *gpu.cases("cuda")))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help=f"cases to measure: {names} (default: all but gpu-...)")
    parser.add_argument(
        "--on",
        nargs="+",
        choices=sorted({*EMBEDDED, *RANDOM, *SAM2_SIZES, *track.SHAPES, *concepts.SUBJECTS}),
        help="models to measure (default: those of the case)",
    )
    parser.add_argument("--turns", type=int, default=5, help="measurements per implementation (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="folder for results.json, table.md and ratios.png (default: %(default)s)",
    )
    parser.add_argument("--device", default="cuda", help="torch device of the cases gpu-... (default: %(default)s)")
    options = parser.parse_args()
    default = tuple(cases)
    cases |= gpu.cases(options.device)
    unknown = [name for name in options.cases if name not in cases]
    if unknown:
        parser.error(f"unknown case '{unknown[0]}'; the cases are {names}")
    for name in options.cases or default:
        case, subjects = cases[name]
        for subject in options.on or subjects:
            for result in case(subject, options.turns):
                print(measure.table([result]).split("\n", 2)[2], result.note, flush=True)
                measure.save([result], options.output)
    print(f"written      {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
