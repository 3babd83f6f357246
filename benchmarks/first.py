"""Loads a checkpoint and makes one mask, then ends: `python -m benchmarks.first NAME plain`."""

from __future__ import annotations

import sys

from benchmarks import subjects
from benchmarks.model import SIZE

if __name__ == "__main__":
    name, way = sys.argv[1:]
    image, box = subjects.picture(*SIZE), subjects.boxes(1, *SIZE)
    if way == "plain":
        from benchmarks.plain import Plain

        Plain(subjects.checkpoint(name)).answer(subjects.jpeg(image), box)
    else:
        import numpy as np

        from model.prompts import Prompt
        from model.segmenter import Segmenter

        segmenter = Segmenter.load(str(subjects.checkpoint(name)), "cpu")
        segmenter.masks(segmenter.segment(segmenter.embed([image])[0], [Prompt(box=np.array(box[0], np.float32))])[0])
