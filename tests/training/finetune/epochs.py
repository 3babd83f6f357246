"""Measure how much time stored embeddings save: `python -m tests.training.finetune.epochs --images 50`.

The program trains the decoder of a ViT-B with random weights for an epoch, from stored embeddings. Between the steps,
it encodes each image again, as an epoch without the store would. An epoch without the store, which is the training and
these encodings, must take at least ten times as long as the training alone.
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
from sam_endpoint.scoring.process import configure_process
from sam_endpoint.training.finetune.features import FeatureSource, read_samples
from sam_endpoint.training.finetune.options import Plan
from sam_endpoint.training.finetune.trainer import Finetuner
from tests.checkpoints import randomize
from tests.training.finetune import coin_images


def main() -> int:
    """Measure an epoch with and without stored embeddings. Return 0 if the first is ten times as fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50, help="(default: %(default)s)")
    options = parser.parse_args()
    configure_process()  # as the command does; this makes glibc keep freed memory, which avoids page faults
    torch.set_flush_denormal(True)
    model = SamModel(SamConfig())
    randomize(model, 1)
    segmenter = Segmenter(families.wrap(model.eval().requires_grad_(False)), "vit-b")
    with tempfile.TemporaryDirectory() as folder:
        train, _ = coin_images.write(Path(folder) / "data", options.images, 1)
        source = FeatureSource(segmenter, Path(folder) / "store", frozen=True)
        images = list(CocoDataset(train))
        samples = list(read_samples(images, source, Problems()))
        finetuner = Finetuner(segmenter.family, Plan(images=1, steps=1000), samples, [], source)
        finetuner.train_step()  # the first step is slower
        encoding, training = 0.0, 0.0
        for image in images:  # encode and train in turn, because the speed of a busy machine varies
            started = time.monotonic()
            with torch.no_grad():
                segmenter.family.embed(segmenter.family.preprocess(image.pixels)[None])
            encoded = time.monotonic()
            finetuner.train_step()
            encoding += encoded - started
            training += time.monotonic() - encoded
        print(f"{source.encoded} encodings of {len(samples)} images for the stored epoch")
    ratio = (encoding + training) / training
    print(
        f"an epoch with stored embeddings takes {training:.0f} s, without them {encoding + training:.0f} s, which is "
        f"{ratio:.1f} times as long"
    )
    return int(ratio < 10 or source.encoded != len(samples))


if __name__ == "__main__":
    sys.exit(main())
