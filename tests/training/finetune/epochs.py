"""Measure what encoding once saves: `python -m tests.training.finetune.epochs --images 50`.

A ViT-B with drawn weights trains its decoder for an epoch from stored embeddings, and for an epoch that encodes each
image anew, in turn. The first has to be ten times as fast.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import SamConfig, SamModel

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model import families
from sam_endpoint.model.segmenter import Segmenter
from sam_endpoint.training.finetune.features import FeatureSource, read_samples
from sam_endpoint.training.finetune.options import Plan
from sam_endpoint.training.finetune.trainer import Finetuner
from tests.checkpoints import randomize
from tests.training.finetune import coin_images


def main() -> int:
    """Measure two epochs of each kind and return 0 if stored embeddings are ten times as fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50, help="(default: %(default)s)")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    model = SamModel(SamConfig())
    randomize(model, 1)
    segmenter = Segmenter(families.wrap(model.eval().requires_grad_(False)), "vit-b")
    with tempfile.TemporaryDirectory() as folder:
        train, _ = coin_images.write(Path(folder) / "data", options.images, 1)
        source = FeatureSource(segmenter, Path(folder) / "store", frozen=True)
        images = list(CocoDataset(train))
        samples = list(read_samples(images, source, Problems()))
        plan = Plan(images=1, steps=2 * options.images)
        finetuner = Finetuner(segmenter.family, plan, samples, [], source)
        seconds = {"stored": 0.0, "encoded": 0.0}
        for kind in ("stored", "encoded"):
            for image in images:
                started = time.monotonic()
                if kind == "encoded":
                    with torch.no_grad():
                        segmenter.family.embed(segmenter.family.preprocess(image.pixels)[None])
                finetuner.train_step()
                seconds[kind] += time.monotonic() - started
        print(f"{source.encoded} encodings of {len(samples)} images for the stored epoch")
    ratio = seconds["encoded"] / seconds["stored"]
    print(f"an epoch: stored {seconds['stored']:.0f} s, encoded {seconds['encoded']:.0f} s, {ratio:.1f} times")
    return int(ratio < 10 or source.encoded != len(samples))


if __name__ == "__main__":
    sys.exit(main())
