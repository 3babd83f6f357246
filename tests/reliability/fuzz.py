"""Broken images through the decoder: `python -m tests.reliability.fuzz --images 10000`.

Pictures of every format and mode that is read are broken at random: bits, bytes and numbers changed, pieces cut out,
doubled, swapped and put in from other files. Each must end as an image or as a BadInput within some seconds. They are
decoded in a process of its own, so that a crash or a hang is seen and named: the number of an image makes it again.
"""

from __future__ import annotations

import argparse
import faulthandler
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter

import numpy as np
from PIL import Image
from tqdm import tqdm

from sam_endpoint.model.errors import BadInput
from sam_endpoint.model.images import ImageLimits, ImageReader
from sam_endpoint.model.images.decoding import FORMATS
from tests import pictures

LIMITS = ImageLimits(max_pixels=4_000_000, urls=False)
SECONDS = 10  # for one image; the slowest seen take a twentieth of that
LARGEST_GROWTH = 64_000_000  # bytes of resident memory, from the first thousand images to the last
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """A small picture of every format and mode that is read."""
    colour = Image.fromarray(pictures.clutter(37, 53))
    modes: dict[str, Image.Image] = {
        mode: colour.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
    }
    modes["I;16"] = Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 257)
    modes["I"], modes["F"] = colour.convert("I"), colour.convert("F")
    found = []
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
                    found.append(pictures.to_bytes(image, name, **option))
                except (OSError, ValueError, TypeError):
                    continue  # a mode that the format does not know
    return found


def broken(sources: list[bytes], number: int) -> bytes:
    """The `number`th broken image."""
    rng = np.random.default_rng(number)
    data = bytearray(sources[rng.integers(len(sources))])
    for _ in range(int(rng.integers(1, 6))):
        if not data:
            break
        # Heads are where sizes, depths and lengths stand.
        at = int(rng.integers(min(len(data), 64 if rng.random() < 0.5 else len(data))))
        length = int(rng.integers(1, 1 + min(256, len(data) - at)))
        way = rng.integers(7)
        if way == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 1:
            data[at] = int(rng.integers(256))
        elif way == 2:
            width = int(rng.choice([1, 2, 4]))
            value = int(rng.choice(NUMBERS)) & (256**width - 1)
            data[at : at + width] = value.to_bytes(width, "big" if rng.random() < 0.5 else "little")
        elif way == 3:
            del data[at : at + length]
        elif way == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 4))
        elif way == 5:
            other = sources[rng.integers(len(sources))]
            data[at : at + length] = other[at : at + length]
        else:
            del data[at:]
    return bytes(data)


def decode(first: int, last: int) -> None:
    """Decodes the broken images of these numbers; prints each number, and how it ended."""
    sources, reader = seeds(), ImageReader(LIMITS)
    for number in range(first, last):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            image = reader.open(reader.reference(broken(sources, number))).pixels()
            ended = "image" if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 else "WRONG"
        except BadInput as error:
            ended = error.got.split(" (")[0] if error.got.startswith("a broken") else "refused"
        except Exception as error:
            ended = f"ESCAPED {type(error).__name__}"
        faulthandler.cancel_dump_traceback_later()
        print(number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, ended, flush=True)


def run(count: int, start: int = 0) -> tuple[Counter[str], list[str], int]:
    """How `count` images ended, what went wrong, and by how many bytes the process grew after its first thousand."""
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    next_number, peaks = start, []
    with tqdm(total=count, unit="image", disable=None) as bar:
        while next_number < start + count:
            command = [sys.executable, "-m", "tests.reliability.fuzz", "--decode", str(next_number), str(start + count)]
            with (
                tempfile.TemporaryFile("w+") as errors,  # a pipe that nobody empties would hold the process up
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
            ):
                assert process.stdout
                for line in process.stdout:
                    number, peak, ended = line.strip().split(" ", 2)
                    next_number = int(number) + 1
                    peaks.append(int(peak) * 1024)
                    ends[ended] += 1
                    if ended.isupper() or ended.startswith("ESCAPED"):
                        wrong.append(f"image {number}: {ended}")
                    bar.update()
                process.wait()
                errors.seek(0)
                said = errors.read()[-400:]
            if process.returncode:
                wrong.append(f"image {next_number}: the process ended with {process.returncode}: {said}")
                next_number += 1
    return ends, wrong, peaks[-1] - peaks[min(1000, len(peaks) // 2)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--decode", nargs=2, type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.decode:
        decode(*chosen.decode)
        return 0
    began = time.monotonic()
    ends, wrong, growth = run(chosen.images, chosen.start)
    for ended, times in ends.most_common():
        print(f"{times:7d}  {ended}")
    print(f"{chosen.images} images in {time.monotonic() - began:.0f} s, grown by {growth / 1e6:.1f} MB")
    for line in wrong:
        print(line)
    return 1 if wrong or growth > LARGEST_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
