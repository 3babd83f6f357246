"""Draw frames and write them as video files of all formats that the project reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 96, 128
# Options that write every frame as its own packet, so that a test can break or cut a known frame.
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    ".mp4": ("libx264", {"crf": "18"}),
    ".mov": ("mpeg4", {"b": "4000000"}),
    ".avi": ("msmpeg4", {}),
    ".webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b:v": "0"}),
}
IDENTITY = bytes.fromhex("00010000" + "00" * 12 + "00010000" + "00" * 12 + "40000000")  # matrix of an mp4 track
CLOCKWISE = bytes.fromhex("00000000" + "00010000" + "00000000" + "ffff0000" + "00" * 16 + "40000000")


def disc_frames(count: int, step: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draw a bright disc that moves to the right over a dark background, `step` pixels per frame.

    Returns:
        (count, HEIGHT, WIDTH, 3) uint8 frames, and (count, HEIGHT, WIDTH) bool masks of the disc.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.stack([(x - 30 - step * i) ** 2 + (y - 48) ** 2 < 18**2 for i in range(count)])
    return np.where(masks[..., None], np.array([230, 200, 60], np.uint8), np.array([40, 60, 90], np.uint8)), masks


def write_video(
    file: Path, frames: Sequence[np.ndarray] | np.ndarray, milliseconds: Sequence[int] | None = None
) -> Path:
    """Write frames to an .mp4, .mov, .webm, .gif or .webp file, or as PNG files to a folder.

    Args:
        file: the file; the ending selects the format. A name without an ending is a folder.
        frames: (height, width, 3) uint8 frames.
        milliseconds: time of each frame; by default one frame every 40 ms. Only for .webm.

    Returns:
        `file`.
    """
    images = [Image.fromarray(frame) for frame in frames]
    if not file.suffix:
        file.mkdir()
        for number, image in enumerate(images):
            image.save(file / f"frame{number}.png")  # without leading zeros, as many tools write them
    elif file.suffix in (".gif", ".webp"):
        images[0].save(file, save_all=True, append_images=images[1:], duration=40, lossless=True)
    else:
        codec, options = CODECS[file.suffix]
        faststart = {"movflags": "faststart"} if file.suffix != ".webm" else {}
        with av.open(str(file), "w", options=faststart) as container:
            stream = cast(Any, container.add_stream(codec, rate=25, options=options))
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            if milliseconds:
                stream.codec_context.time_base = Fraction(1, 1000)
            for number, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                if milliseconds:
                    picture.pts, picture.time_base = milliseconds[number], Fraction(1, 1000)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return file


def break_in_the_middle(file: Path) -> Path:
    """Overwrite a part of the middle of a file, and return the path of the copy."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    broken = file.with_name(f"broken{file.suffix}")
    broken.write_bytes(content)
    return broken


def cut(file: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file, and return the path of the copy."""
    content = file.read_bytes()
    part = file.with_name(f"cut{file.suffix}")
    part.write_bytes(content[: int(len(content) * share)])
    return part


def write_changing(file: Path) -> Path:
    """Write a video of ten frames of 64 x 64 pixels, then ten of 96 x 96, as a camera writes it after a switch."""
    streams = b""
    for side in (64, 96):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="h264") as container:
            stream = cast(Any, container.add_stream("libx264", rate=25))
            stream.width = stream.height = side
            stream.pix_fmt = "yuv420p"
            for value in range(10):
                pixels = np.full((side, side, 3), value * 9, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        streams += buffer.getvalue()
    with av.open(io.BytesIO(streams), "r", format="h264") as source, av.open(str(file), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream = copied
            packet.pts = packet.dts = number * 40
            target.mux(packet)
    return file
