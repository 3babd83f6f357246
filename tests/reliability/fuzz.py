"""Decode broken images: `python -m tests.reliability.fuzz --images 10000`.

The program damages images of every supported format and mode at random: it changes bits, bytes and numbers, removes,
repeats and cuts off pieces, and inserts pieces of other files. Each file must decode to an image or raise BadInput
within some seconds. The images are decoded in a separate process, so that the program survives and reports a crash or a
hang. The number of an image is enough to create it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import subprocess
import sys
import tempfile
import time
from collections import Counter

import numpy as np
from PIL import Image

from benchmarks import memory
from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.images.decoding import FORMATS
from sam_endpoint.scoring.batch.progress import Progress
from tests import pictures

LIMITS = ImageLimits(max_pixels=4_000_000, urls=False)
SECONDS = 10  # limit for one image; the slowest images have taken half a second
LARGEST_GROWTH = 64_000_000  # limit of the growth of resident memory after the first thousand images, in bytes
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Return a small intact image of every supported format and mode."""
    colour = Image.fromarray(pictures.clutter(37, 53))
    modes: dict[str, Image.Image] = {
        mode: colour.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
    }
    modes["I;16"] = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    modes["I"], modes["F"] = colour.convert("I"), colour.convert("F")
    files = []
    for name in FORMATS:
        options: list[dict[str, object]] = [{}]
        if name == "JPEG":
            options.append({"progressive": True})
        elif name == "TIFF":
            options += [{"compression": "tiff_lzw"}, {"compression": "jpeg"}]
        elif name in ("GIF", "WEBP", "PNG"):
            options.append({"save_all": True, "append_images": [colour.rotate(90)]})
        for image in modes.values():
            for option in options:
                try:
                    files.append(pictures.to_bytes(image, name, **option))
                except (OSError, ValueError, TypeError):
                    continue  # the format does not support the mode
    return files


def broken_image(sources: list[bytes], number: int) -> bytes:
    """Return the broken image with a given number."""
    rng = np.random.default_rng(number)
    data = bytearray(sources[rng.integers(len(sources))])
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        # Half of the damage is in the head of the file, which contains sizes, depths and lengths.
        at = int(rng.integers(min(len(data), 64 if rng.random() < 0.5 else len(data))))
        length = int(rng.integers(1, 1 + min(256, len(data) - at)))
        damage = rng.integers(7)
        if damage == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif damage == 1:
            data[at] = int(rng.integers(256))
        elif damage == 2:
            width = int(rng.choice([1, 2, 4]))
            value = int(rng.choice(NUMBERS)) & (256**width - 1)
            data[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
        elif damage == 3:
            del data[at : at + length]
        elif damage == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 4))
        elif damage == 5:
            other_file = sources[rng.integers(len(sources))]
            data[at : at + length] = other_file[at : at + length]
        else:
            del data[at:]
    return bytes(data)


def decode(first: int, last: int) -> None:
    """Decode the broken images with numbers from `first` to below `last`.

    Prints a line per image: its number, the peak memory of the process in bytes, and the outcome.
    """
    sources, reader = seeds(), ImageReader(LIMITS)
    for number in range(first, last):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            image = reader.open(reader.reference(broken_image(sources, number))).pixels()
            outcome = "image" if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 else "WRONG"
        except BadInput as error:
            outcome = error.got.split(" (")[0] if error.got.startswith("a broken") else "refused"
        except Exception as error:
            outcome = f"ESCAPED {type(error).__name__}"
        faulthandler.cancel_dump_traceback_later()
        print(number, memory.peak(), outcome, flush=True)


def run(count: int, start: int = 0) -> tuple[Counter[str], list[str], int]:
    """Decode broken images in separate processes.

    Args:
        count: number of images.
        start: number of the first image.

    Returns:
        The number of images per outcome, a description of each failure, and the growth of the process after its first
        thousand images, in bytes.
    """
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    next_number, peaks = start, []
    with Progress("decoding", "image", count) as progress:
        while next_number < start + count:
            command = [sys.executable, "-m", "tests.reliability.fuzz", "--decode", str(next_number), str(start + count)]
            with (
                tempfile.TemporaryFile("w+") as errors,  # the process would block on a pipe that is not read
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
            ):
                assert process.stdout
                for line in process.stdout:
                    number, peak, outcome = line.strip().split(" ", 2)
                    next_number = int(number) + 1
                    peaks.append(int(peak))
                    outcomes[outcome] += 1
                    if outcome.isupper() or outcome.startswith("ESCAPED"):
                        failures.append(f"image {number}: {outcome}")
                    progress.add()
                process.wait()
                errors.seek(0)
                stderr = errors.read()[-400:]
            if process.returncode:
                failures.append(f"image {next_number}: the process ended with {process.returncode}: {stderr}")
                next_number += 1
    return outcomes, failures, peaks[-1] - peaks[min(1000, len(peaks) // 2)]


def main() -> int:
    """Run the program, and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first image")
    parser.add_argument("--decode", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode(*options.decode)
        return 0
    start = time.monotonic()
    outcomes, failures, growth = run(options.images, options.start)
    for outcome, times in outcomes.most_common():
        print(f"{times:7d}  {outcome}")
    print(f"{options.images} images in {time.monotonic() - start:.0f} s, grown by {growth / 1e6:.1f} MB")
    for line in failures:
        print(line)
    return 1 if failures or growth > LARGEST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
