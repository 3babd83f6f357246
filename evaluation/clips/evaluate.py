"""Evaluate how well models track objects: on drawn clips, or on a folder in the layout of DAVIS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow

from sam_endpoint.evaluation import runs
from sam_endpoint.evaluation.clips import report
from sam_endpoint.evaluation.clips.clip import HELD_OUT_SEED, Clip, draw_clip
from sam_endpoint.evaluation.clips.davis_folder import read_davis
from sam_endpoint.evaluation.clips.protocol import ClipResult, measure_clip, methods_of, object_table, track_clip
from sam_endpoint.evaluation.options import CLIPS, DEFAULT_CLIPS, EvaluationOptions
from sam_endpoint.model.errors import BadData
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.scoring.batch.progress import tracked

DRAWN = 6  # clips on the sheet


def evaluate_clips(segmenter: Segmenter, clips: Iterator[tuple[str, Clip]]) -> list[ClipResult]:
    """Track the objects of clips with each method of a model, and measure the masks.

    Args:
        segmenter: the model.
        clips: name and content of each clip.

    Returns:
        The results of the clips that have an object. The first DRAWN results keep their masks.
    """
    methods = methods_of(segmenter)
    results: list[ClipResult] = []
    for name, clip in clips:
        if clip.objects():
            masks = track_clip(segmenter, clip, methods)
            results.append(measure_clip(name, clip, masks, keep=len(results) < DRAWN))
    return results


def run(options: EvaluationOptions, models: Mapping[str, Segmenter]) -> int:
    """Evaluate models on clips, then print, write and log the results.

    Args:
        options: The options of the command. `data` is CLIPS or a folder in the layout of DAVIS.
        models: The segmenters by the name of the model.

    Returns:
        The exit code.

    Raises:
        BadData: The folder cannot be read, or no clip has an object.
        OSError: A result cannot be written.
    """
    settings: dict[str, Any] = {"data": options.data}
    if options.data == CLIPS:
        settings |= {"clips": options.count or DEFAULT_CLIPS, "seed": HELD_OUT_SEED}
    reports = []
    for number, (name, segmenter) in enumerate(models.items(), 1):
        results = evaluate_clips(segmenter, _open_clips(options))
        if not results:
            raise BadData(f"{options.data} has no clip with an object in its first frame")
        table = object_table(results)
        summary = report.summarize(table)
        reports.append({"model": name, **settings, "methods": summary})
        objects = sum(len(result.hidden) for result in results)
        print(f"{name} on {options.data}: {len(results)} clips, {objects} objects, one click each in the first frame\n")
        print(report.format_summary(summary), end="\n\n")
        pictures = {"frames": report.draw_curves(results), "clips": report.draw_sheet(results)}
        suffix = "" if len(models) == 1 else f"-{number}"
        if options.sheet and number == 1:
            options.sheet.parent.mkdir(parents=True, exist_ok=True)
            pictures["clips"].save(options.sheet)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            for title, picture in pictures.items():
                picture.save(options.pictures / f"{title}{suffix}.png")
        if options.log:
            metrics = {
                f"{method}/{metric.replace('&', '')}": value
                for method, means in summary.items()
                for metric, value in means.items()
            }
            params = {"model_uri": options.models[number - 1], **settings}
            run_id = runs.log_run(name, params, reports[-1], {"objects": table}, pictures, {}, metrics)
            print(f"logged      run {run_id}  (tracking: {mlflow.get_tracking_uri()})")
    if options.output:
        report.write_json(options.output, reports[0] if len(reports) == 1 else {"models": reports})
    return 0


def _open_clips(options: EvaluationOptions) -> Iterator[tuple[str, Clip]]:
    """Yield the name and the content of each clip, and show the progress."""
    if options.data == CLIPS:
        for index in tracked(range(options.count or DEFAULT_CLIPS), "evaluating", "clip"):
            yield f"clip {index}", draw_clip(HELD_OUT_SEED, index)
    else:
        yield from read_davis(Path(options.data), options.count)
