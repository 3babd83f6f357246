"""Track objects through a video: prompts on any frame, and the mask of each object in every frame.

Examples:
  sam-endpoint track --video clip.mp4 --prompts prompts.json --output out/tracks.parquet --overlay out/overlay.mp4
  sam-endpoint track --video frames/ --prompts prompts.json --output out/tracks.parquet --png-masks out/masks

prompts.json holds a list such as [{"frame": 0, "object": 1, "points": [[120, 80]], "labels": [1]}]. Reading mp4, mov
and webm files needs the extra 'video'. To continue a stopped job, run the same command again. Exit codes: 0 on success;
1 if the video ends with an error, and the output holds the frames before it; 2 if the job cannot run; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sam_endpoint.commands import RESUMABLE, CommandError, check_file, positive, require_extra
from sam_endpoint.scoring.process import configure_process

if TYPE_CHECKING:
    from sam_endpoint.model.tracking import TrackPrompt
    from sam_endpoint.model.video import Video

STOPPED = "stopped; run the same command again to continue"
ENDINGS = {"overlay": (".mp4", ".webm"), "youtube_vis": (".json",), "mot": (".txt",), "mots": (".txt",)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--video", type=Path, required=True, help="video file, GIF or WebP, or folder of frames")
    parser.add_argument("--prompts", type=Path, required=True, help=".json file with the prompts of the objects")
    parser.add_argument("--output", type=Path, required=True, help=".parquet file, one row per frame and object")
    parser.add_argument(
        "--model", default="build/model", help="URI of an MLflow model, or a checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--tracker",
        choices=("auto", "memory", "box"),
        default="auto",
        help="memory: the model's memory of earlier frames; box: prompt each frame with the box of the last mask; "
        "auto: memory if the model has one (default: %(default)s)",
    )
    parser.add_argument(
        "--direction",
        choices=("forward", "backward", "both"),
        default="forward",
        help="forward: from the first prompt of each object to the end; backward: from its last prompt to frame 0; "
        "both: forward, and from its first prompt to frame 0 (default: %(default)s)",
    )
    parser.add_argument("--overlay", type=Path, help="also draw the masks over the video into this .mp4 or .webm file")
    parser.add_argument("--youtube-vis", type=Path, metavar="FILE", help="also write YouTube-VIS annotations (.json)")
    parser.add_argument("--mot", type=Path, metavar="FILE", help="also write boxes as MOTChallenge text (.txt)")
    parser.add_argument("--mots", type=Path, metavar="FILE", help="also write masks as MOTS text (.txt)")
    parser.add_argument("--png-masks", type=Path, metavar="FOLDER", help="also write a palette PNG per frame (DAVIS)")
    parser.add_argument("--max-frames", type=positive, default=200_000, help="limit on frames (default: %(default)s)")
    parser.add_argument("--part-frames", type=positive, default=32, help="frames per saved part (default: %(default)s)")
    parser.add_argument("--device", default="", help="cpu, cuda or cuda:1 (default: cuda if available)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output of another job")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    _check_outputs(options)
    configure_process()

    import pyarrow as pa

    from sam_endpoint.model.tracking.prompt_list import parse_track_prompts
    from sam_endpoint.model.video import VideoLimits, open_video

    start = time.perf_counter()
    try:
        content = options.prompts.read_bytes()
    except OSError as error:
        raise CommandError(f"--prompts '{options.prompts}': {error.strerror}") from None
    video = open_video(options.video, VideoLimits(max_frames=options.max_frames))
    prompts = parse_track_prompts(content, video.size, video.count)
    try:
        problem = _track(options, video, prompts, start)
        _export(options, video, prompts)
    except (OSError, pa.ArrowException) as error:
        raise CommandError(f"{error}; {RESUMABLE}") from error
    if problem:
        print(f"error: {problem}; the output holds the frames before it", file=sys.stderr)
    return 1 if problem else 0


def _check_outputs(options: argparse.Namespace) -> None:
    """Check the output options before the work. Raises CommandError."""
    check_file("--output", options.output, (".parquet",))
    for option, endings in ENDINGS.items():
        if file := getattr(options, option):
            check_file(f"--{option.replace('_', '-')}", file, endings)
    if options.overlay:
        require_extra("video")
    if options.png_masks and options.png_masks.exists() and not options.png_masks.is_dir():
        raise CommandError(f"--png-masks '{options.png_masks}': expected a folder, got an existing file")


def _track(options: argparse.Namespace, video: Video, prompts: list[TrackPrompt], start: float) -> str:
    """Run the job and print its summary. Return why the video could not be tracked to its end, or an empty text."""
    from sam_endpoint.model.tracking.ways import tracker_for
    from sam_endpoint.scoring import runtime
    from sam_endpoint.scoring.batch.parts import Parts
    from sam_endpoint.scoring.video import job
    from sam_endpoint.scoring.video.tracks import read_notes

    model = runtime.open_model(options.model, options.device or None)
    tracker = tracker_for(model.engine.segmenter, options.tracker)
    described = {
        "video": video.identity,
        "prompts": job.describe_prompts(prompts),
        "weights": model.weights,
        "tracker": tracker.way,
        "direction": options.direction,
        "part_frames": options.part_frames,
    }
    parts = Parts(str(options.output), described, options.overwrite)
    if parts.complete:
        print(f"{options.output} is complete; there is nothing to track")
        return str(read_notes(options.output)["error"])
    summary = job.run(tracker, video, prompts, parts, options.part_frames, options.direction)
    seconds = time.perf_counter() - start
    if not summary.frames:
        raise CommandError(f"{summary.error}; no frame was tracked", exit_code=1)
    print(f"frames       {summary.frames} ({summary.earlier} done before) of {video.size[1]} x {video.size[0]} pixels")
    print(f"objects      {summary.objects}, visible in {summary.visible} of their frames")
    print(f"tracker      {tracker.way}, {options.direction}")
    print(f"time         {seconds:.1f} s, {(summary.frames - summary.earlier) / seconds:.2f} frames/s")
    print(f"written      {options.output}")
    return summary.error


def _export(options: argparse.Namespace, video: Video, prompts: list[TrackPrompt]) -> None:
    """Write the exports and the overlay from the finished output."""
    from sam_endpoint.scoring.video.exports import EXPORTS

    for name, write in EXPORTS.items():
        if output := getattr(options, name):
            write(options.output, output)
            print(f"written      {output}")
    if options.overlay:
        from sam_endpoint.scoring.video.overlay import write_overlay

        write_overlay(video, prompts, options.output, options.overlay)
        print(f"written      {options.overlay}")
