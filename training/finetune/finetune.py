"""Fine-tune a model from start to end: data, training, gate, MLflow run, registry."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sam_endpoint.evaluation import runs
from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model import families
from sam_endpoint.model.errors import BadData, BadModel
from sam_endpoint.model.families.family import Family
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.precision import EXACT
from sam_endpoint.model.version import VERSION
from sam_endpoint.scoring.runtime import OpenedModel, open_model
from sam_endpoint.training.finetune import data, gate, records
from sam_endpoint.training.finetune.data import DataSplit
from sam_endpoint.training.finetune.encoder import merge_adapters
from sam_endpoint.training.finetune.features import FeatureSource, Sample, read_samples
from sam_endpoint.training.finetune.options import DEFAULT_STEPS, FinetuneOptions, Plan
from sam_endpoint.training.finetune.trainer import Finetuner

REFUSED = 3  # exit code if the user set --promote and the gate refused
MIN_WATCHED_FROM = 5  # from this number of training images on, early stopping watches at least one image
MIN_STEPS = 10


@dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
        plan: The plan with its number of steps.
        finetuner: The trained weights and the history.
        problems: The images and masks that were left out of the training.
        images: The number of images trained on.
        watched: The number of images that early stopping watched.
    """

    plan: Plan
    finetuner: Finetuner
    problems: Problems
    images: int
    watched: int


def finetune(options: FinetuneOptions) -> int:
    """Fine-tune a model, compare it with its base, and log the comparison and the model.

    If `promote` is set and the verdict of the gate is better, the function promotes the model.

    Returns:
        0, or REFUSED if `promote` is set and the gate refused.

    Raises:
        BadData: The data cannot be used.
        BadModel: The model cannot be opened, it is in the output folder, or that folder contains files that are not an
            MLflow model.
        MlflowException: The tracking server cannot be reached.
        OSError: A file cannot be written.
    """
    runs.use_default_tracking()  # needed first, because the URI of the model can refer to the registry
    package.check_output(options.output)
    _check_separate(options)
    base = open_model(options.model, options.device or None, precision=EXACT)
    if options.log:
        runs.check_tracking()
    split = data.prepare(options)
    guards = [CocoDataset(file) for file in options.guards]  # a broken file must fail before the training
    training = _train(options, base, split)
    _export(options, base, split, training)
    candidate = open_model(str(options.output), options.device or None, precision=EXACT)
    base = open_model(options.model, options.device or None, precision=EXACT)  # training has changed the first base
    pair = base.engine.segmenter, candidate.engine.segmenter
    seed = options.plan.seed
    held_out = gate.compare(*pair, split.open_held_out(), "held-out", seed)
    compared = [gate.compare(*pair, guard, file.name, seed) for guard, file in zip(guards, options.guards, strict=True)]
    verdict = gate.judge(held_out, compared, options.figure, options.margin, options.tolerance)
    for comparison in (held_out, *compared):
        print(comparison.format_lines(), end="\n\n")
    print(f"{verdict.name:11} {'; '.join(verdict.reasons)}")
    record = records.Record(options, training.plan, base, split, training.problems, training.finetuner.history)
    files = records.write(
        record, held_out, compared, verdict, dict(zip((gate.BASE, gate.CANDIDATE), pair, strict=True))
    )
    if options.log:
        records.log(record, held_out, compared, verdict, files)
    print(f"serve it    mlflow models serve -m {options.output} --env-manager local")
    return REFUSED if options.promote and not verdict.promotes else 0


def _train(options: FinetuneOptions, base: OpenedModel, split: DataSplit) -> Training:
    segmenter, problems = base.engine.segmenter, split.problems
    if not segmenter.family.prompt_maps:
        raise BadModel(f"'{options.model}' takes no points or boxes; fine-tune a checkpoint with SAM 3's tracker")
    torch.set_flush_denormal(True)
    fingerprint = segmenter.family.fingerprint()
    folder = options.work_folder
    source = FeatureSource(segmenter, folder / "embeddings", frozen=options.plan.mode == "decoder")
    dataset = split.open_train()
    started = time.monotonic()

    def tell(sample: Sample, seconds: float) -> None:
        text = f"encoding    {dataset.count} images, about {_duration(seconds * dataset.count)}"
        if options.plan.mode == "decoder" and not options.minutes:
            steps = _steps(options, dataset.count)
            probe = Finetuner(segmenter.family, replace(options.plan, steps=steps), [sample], [], source).probe()
            text += f"; training {steps} steps, about {_duration(probe * steps)}; then the gate"
        print(text, flush=True)

    samples = list(read_samples(dataset, source, problems, tell))
    data.add_problems(problems, dataset.problems)
    if problems.counts:
        print(f"problems of the data:\n{problems.format_lines()}")
    samples, watched = _split_watched(samples, options.plan)
    if not samples:
        raise BadData(f"'{options.data}': no image can be trained on\n{problems.format_lines()}".rstrip())
    print(
        f"data        {len(samples)} images to train on, {len(watched)} watched for early stopping, "
        f"{split.open_held_out().count} held out; {source.encoded} encoded now"
    )
    resolved = folder / f"plan-{_key(options, fingerprint, split.digest)}.json"
    plan = _resolve_plan(options, resolved, segmenter.family, samples, watched, source, time.monotonic() - started)
    finetuner = Finetuner(segmenter.family, plan, samples, watched, source)
    state = resolved.with_suffix(".pt")
    if state.exists():
        finetuner.load(state)
        print(f"resumed     at step {finetuner.step} of {plan.steps}")
    with tqdm(initial=finetuner.step, total=plan.steps, unit="step", desc="training", disable=None) as bar:
        while not finetuner.finished:
            figures = finetuner.advance()
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
            finetuner.save_if_due(state)
    stopped = f" (stopped early at step {finetuner.step})" if finetuner.step < plan.steps else ""
    print(f"trained     {finetuner.step} steps{stopped}; the best weights are those of step {finetuner.best_step}")
    finetuner.use_best()
    if plan.mode == "lora":
        merge_adapters(segmenter.family)
    segmenter.family.model.requires_grad_(False)
    return Training(plan, finetuner, problems, len(samples), len(watched))


def _split_watched(samples: Sequence[Sample], plan: Plan) -> tuple[list[Sample], list[Sample]]:
    """Set a share of the training images aside for early stopping, or none if there are too few images.

    Early stopping does not watch the held-out images. If it did, the gate would overestimate the model on these images.
    """
    keys = sorted({sample.key for sample in samples})
    count = round(plan.stop_share * len(keys))
    if plan.stop_share and len(keys) >= MIN_WATCHED_FROM:
        count = max(1, count)
    order = np.random.default_rng([plan.seed, 4]).permutation(len(keys))
    watched = {keys[i] for i in order[:count]} if len(keys) >= MIN_WATCHED_FROM else set()
    return (
        [sample for sample in samples if sample.key not in watched],
        [sample for sample in samples if sample.key in watched],
    )


def _steps(options: FinetuneOptions, images: int) -> int:
    """Return the number of steps: `--steps`, or the number of steps in `--epochs`, or the default."""
    plan = options.plan
    if options.epochs:
        return max(1, round(options.epochs * images / (plan.images * plan.accumulate)))
    return plan.steps or DEFAULT_STEPS


def _resolve_plan(
    options: FinetuneOptions,
    file: Path,
    family: Family,
    samples: Sequence[Sample],
    watched: Sequence[Sample],
    source: FeatureSource,
    spent: float,
) -> Plan:
    """Return the plan with its number of steps. Write the plan to a file, so that a resumed training has as many steps.

    Args:
        options: The options.
        file: The file of the plan. If the file exists, the number of steps comes from the file.
        family: The base model.
        samples: The training images.
        watched: The images for early stopping.
        source: Source of the images' features.
        spent: Seconds of encoding, which are a part of `options.minutes`.
    """
    if file.exists():
        return replace(options.plan, steps=int(json.loads(file.read_text())["steps"]))
    steps = _steps(options, len(samples))
    if options.minutes:
        finetuner = Finetuner(family, replace(options.plan, steps=steps), samples, watched, source)
        seconds = min(finetuner.probe(), finetuner.probe())  # the first pass may be slower
        started = time.monotonic()
        finetuner.validate()
        seconds += (time.monotonic() - started) / options.plan.validate_every
        if options.plan.mode == "lora":
            merge_adapters(family)
        steps = max(MIN_STEPS, int((60 * options.minutes - spent) / seconds))
        print(f"training    {steps} steps in about {_duration(steps * seconds)}", flush=True)
    plan = replace(options.plan, steps=steps)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(plan.to_dict(), indent=1))
    part.replace(file)
    return plan


def _key(options: FinetuneOptions, fingerprint: str, digest: str) -> str:
    """Return an id of a training within its work folder: a hash of its plan, base model, data and software version."""
    facts = {**options.plan.to_dict(), "epochs": options.epochs, "minutes": options.minutes}
    text = json.dumps([facts, fingerprint, digest, VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_separate(options: FinetuneOptions) -> None:
    """Raise BadModel if the output would replace the base, with which the gate compares the result."""
    base, output = Path(options.model.removeprefix("file://")).resolve(), options.output.resolve()
    if base.is_relative_to(output):
        raise BadModel(f"--output '{options.output}' would replace --model; the gate compares both, so choose another")


def _export(options: FinetuneOptions, base: OpenedModel, split: DataSplit, training: Training) -> None:
    """Package the trained weights with the settings of the base model and metadata about the base and the data."""
    config: dict[str, Any] = dict(base.saved.config) if base.saved else {}
    metadata = {
        "base_model": (base.saved and base.saved.metadata.get("base_model")) or package.base_model_name(base.source),
        **({"detector": base.saved.metadata.get("detector")} if base.saved and base.saved.detector else {}),
        "finetuned_from": {**base.describe(), "weights": base.weights},
        "finetuning": {
            "mode": training.plan.mode,
            "steps": training.finetuner.best_step,
            "seed": training.plan.seed,
            "images": training.images,
            "data_sha256": split.digest,
        },
    }
    with tempfile.TemporaryDirectory(dir=options.work_folder, prefix="export-") as scratch:
        families.save(base.engine.segmenter.family, Path(scratch))
        package.save(scratch, options.output, config, metadata, base.saved.detector if base.saved else None)
    print(f"saved       {options.output}")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
