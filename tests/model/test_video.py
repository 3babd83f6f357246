"""Read videos of all formats as frames, and report broken ones with the number of the frame."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from PIL import Image

from sam_endpoint.model.errors import BadFrame, BadInput
from sam_endpoint.model.video import Video, VideoFrame, VideoLimits, open_video, prefetched
from tests.conftest import run_code
from tests.videos import (
    CLOCKWISE,
    HEIGHT,
    IDENTITY,
    WIDTH,
    break_in_the_middle,
    cut,
    disc_frames,
    write_changing,
    write_video,
)

FRAMES, MASKS = disc_frames(20)
# Frames without likeness, so that each takes about the same number of bytes.
NOISE = np.random.default_rng(0).integers(0, 255, (20, HEIGHT, WIDTH, 3), dtype=np.uint8)


def read_until_error(video: Video) -> tuple[int, BadFrame]:
    """Return the number of frames before an error, and the error."""
    count = 0
    with pytest.raises(BadFrame) as caught:
        for frame in prefetched(video.frames(), video.size):
            assert frame.number == count
            count += 1
    return count, caught.value


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.webm", "clip.gif", "clip.webp", "frames"])
def test_reads_every_frame_in_order(name: str, tmp_path: Path) -> None:
    source = write_video(tmp_path / name, FRAMES)
    video = open_video(source)
    assert (video.size, video.count) == ((HEIGHT, WIDTH), 20) and video.rate == pytest.approx(25)
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(20) / 25, atol=1e-3)
    for frame, pixels, mask in zip(frames, FRAMES, MASKS, strict=True):
        error = np.abs(frame.pixels.astype(int) - pixels)
        assert error.mean() < 5, (name, frame.number)  # lossy codecs with half the resolution in colour
        bright = frame.pixels[..., 0] > 130
        assert (bright ^ mask).sum() < 0.06 * mask.sum(), (name, frame.number)
        if name in ("clip.webp", "frames"):
            assert error.max() == 0
    later = list(video.frames(start=15))
    assert [frame.number for frame in later] == [15, 16, 17, 18, 19]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(later, frames[15:], strict=True))
    if source.is_file():
        assert open_video(source.read_bytes()).identity == video.identity


def test_identity_changes_with_the_content(tmp_path: Path) -> None:
    first, second = (open_video(write_video(tmp_path / f"{n}.gif", FRAMES[n:])) for n in (0, 1))
    assert first.identity != second.identity


def test_a_rotated_video_is_read_upright(tmp_path: Path) -> None:
    """Phones store the pixels as the sensor has them, and write how players have to turn them."""
    file = write_video(tmp_path / "clip.mp4", FRAMES)
    content = bytearray(file.read_bytes())
    place = content.find(IDENTITY, content.find(b"tkhd"))
    content[place : place + len(IDENTITY)] = CLOCKWISE
    video = open_video(bytes(content))
    assert video.size == (WIDTH, HEIGHT)
    stored = next(iter(open_video(file).frames())).pixels
    assert np.array_equal(next(iter(video.frames())).pixels, np.rot90(stored, -1))


def test_frames_of_a_variable_rate_keep_their_times(tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 900]
    video = open_video(write_video(tmp_path / "clip.webm", FRAMES[:5], times))
    assert [round(frame.seconds * 1000) for frame in video.frames()] == times


def test_a_folder_is_read_in_the_order_of_its_numbers_and_upright(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        image = Image.new("RGB", (6, 4), (number, 0, 0))
        exif = Image.Exif()
        exif[274] = 6  # the camera was turned by 90 degrees
        image.save(tmp_path / f"{number}.png", exif=exif)
    (tmp_path / "notes.txt").write_text("not an image")
    video = open_video(tmp_path)
    assert video.size == (6, 4)
    assert [int(frame.pixels[0, 0, 0]) for frame in video.frames()] == [1, 2, 10]


@pytest.mark.parametrize(("ending", "first"), [(".mp4", 5), (".mov", 5), (".webm", 5), (".gif", 5)])
def test_a_video_that_ends_early_gives_its_frames_and_then_an_error(ending: str, first: int, tmp_path: Path) -> None:
    video = open_video(cut(write_video(tmp_path / f"clip{ending}", NOISE)))
    count, error = read_until_error(video)
    assert first <= count < 20 and error.frame == count
    assert f"frame {count}: expected a" in str(error)
    if ending != ".gif":
        assert "its header announces" in str(error) and "got the end of the file" in str(error)


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_a_corrupt_frame_ends_the_video_with_its_number(ending: str, tmp_path: Path) -> None:
    video = open_video(break_in_the_middle(write_video(tmp_path / f"clip{ending}", NOISE)))
    count, error = read_until_error(video)
    assert 0 < count < 20 and error.frame == count and "got corrupt data" in str(error)


def test_a_frame_of_another_size_is_an_error(tmp_path: Path) -> None:
    folder = write_video(tmp_path / "frames", FRAMES[:4])
    Image.new("RGB", (50, 40)).save(folder / "frame2.png")
    count, error = read_until_error(open_video(folder))
    assert count == 2 and error.frame == 2
    assert "expected a frame of 128 x 96 pixels, like the first, got 50 x 40 pixels" in str(error)


@pytest.mark.parametrize("ending", [".mkv", ".mp4"])
def test_a_stream_that_changes_its_size_is_an_error(ending: str, tmp_path: Path) -> None:
    file = write_changing(tmp_path / f"clip{ending}")
    count, error = read_until_error(open_video(file))
    assert count == 10 and error.frame == 10 and "expected a frame of 64 x 64 pixels, like the first" in str(error)


def test_a_video_is_checked_against_limits_before_a_frame_is_decoded(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.webm", "clip.gif", "frames"):
        source = write_video(tmp_path / name, FRAMES)
        with pytest.raises(BadInput, match="expected a video of at most 19 frames, got 20 frames"):
            open_video(source, VideoLimits(max_frames=19))
        with pytest.raises(BadInput, match="at most 12287 pixels"):
            open_video(source, VideoLimits(max_pixels=HEIGHT * WIDTH - 1))
        with pytest.raises(BadInput, match=r"expected a video of at most 100 bytes, got \d+ bytes"):
            open_video(source, VideoLimits(max_bytes=100))
        assert open_video(source, VideoLimits(max_frames=20, max_pixels=HEIGHT * WIDTH)).count == 20


def write_sound(file: Path) -> Path:
    """Write a file with sound and no video stream."""
    with av.open(str(file), "w") as container:
        stream = cast(Any, container.add_stream("pcm_s16le", rate=8000, layout="mono"))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return file


def write_without_frames(file: Path) -> Path:
    """Write a file with a video stream and no frame."""
    with av.open(str(file), "w") as container:
        stream = cast(Any, container.add_stream("mpeg4", rate=25))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    return file


def bad_sources(folder: Path) -> Iterator[tuple[object, str]]:
    """Yield sources that are not videos, and a part of the error message."""
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    empty = folder / "empty"
    empty.mkdir()
    yield write_sound(folder / "sound.mov"), "expected a file with a video stream, got a file without one"
    yield write_without_frames(folder / "none.mkv"), "got 0 frames"
    yield write_video(folder / "old.avi", FRAMES[:2]), "expected a video in one of the codecs h264, "
    yield [], "expected a video with at least 1 frame, got 0 frames"
    yield empty, "expected a folder of image files (.jpg, "
    yield b"", "of another format, incomplete or broken"
    yield b"GIF89a", "expected a GIF or WebP animation, got a broken file (6 bytes)"
    yield playlist, "of another format, incomplete or broken"
    yield b"not a video at all" * 50, "expected an mp4, mov, webm, mkv, avi, GIF or WebP file"
    yield folder / "missing.mp4", "a path that cannot be read: No such file or directory"


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    for source, message in bad_sources(tmp_path):
        with pytest.raises(BadInput) as caught:
            open_video(cast(Any, source))
        assert message in str(caught.value) and "column 'video'" in str(caught.value), source


def test_metadata_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "clip.mov"
    with av.open(str(file), "w") as container:
        container.metadata["title"] = "cafe in summer"
        stream = cast(Any, container.add_stream("mpeg4", rate=25))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(FRAMES[0], format="rgb24")))
        container.mux(stream.encode())
    content = file.read_bytes()
    assert b"cafe in summer" in content
    assert open_video(content.replace(b"cafe in summer", b"caf\xe9 in summer")).count == 1  # Latin-1, not UTF-8


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".webm", ".gif", ".webp"])
def test_changed_bytes_give_frames_or_an_error_with_a_place(ending: str, tmp_path: Path) -> None:
    content = write_video(tmp_path / f"clip{ending}", NOISE[:6]).read_bytes()
    limits, errors = VideoLimits(max_pixels=1_000_000, max_frames=100), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        changed = bytearray(content)
        for place in rng.integers(len(content) if seed % 2 else min(len(content), 1500), size=rng.integers(1, 12)):
            changed[place] = rng.integers(256)
        if seed % 5 == 0:
            del changed[int(rng.integers(len(changed))) :]
        try:
            for frame in open_video(bytes(changed), limits).frames():
                assert frame.pixels.dtype == np.uint8 and frame.pixels.shape[2] == 3
        except BadInput as error:
            assert error.column == "video"
            errors += 1
    assert errors >= 8


def test_without_pyav_the_error_names_the_extra_and_animations_are_read(tmp_path: Path) -> None:
    mp4, gif = write_video(tmp_path / "clip.mp4", FRAMES), write_video(tmp_path / "clip.gif", FRAMES)
    code = """
import sys
sys.modules["av"] = None
from sam_endpoint.model.video import open_video
print(open_video(sys.argv[1]).count)
open_video(sys.argv[2])
"""
    done = run_code(code, gif, mp4)
    assert done.stdout.strip() == "20"
    assert "pip install av (the extra is 'segment-anything-endpoint[video]')" in done.stderr.splitlines()[-1]


def test_the_thread_that_decodes_ahead_stops_with_its_caller() -> None:
    produced = []

    def frames() -> Iterator[VideoFrame]:
        for number in range(10_000):
            produced.append(number)
            yield VideoFrame(number, np.zeros((1000, 1000, 3), np.uint8), 0.0)

    before = threading.active_count()
    reader = prefetched(frames(), (1000, 1000))
    assert [next(reader).number for _ in range(3)] == [0, 1, 2]
    reader.close()
    assert threading.active_count() == before
    assert len(produced) <= 3 + 8 + 2  # what was read, what was ahead, and what was in the hands of the two threads
