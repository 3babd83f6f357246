"""Prefetching of images: decoding in threads, which end with the job."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sam_endpoint.model.errors import BadInput, TooManyFailures
from sam_endpoint.model.images import ImageReader, ImageRef
from sam_endpoint.model.params import ParamDefaults
from sam_endpoint.model.threads import thread_count
from sam_endpoint.scoring.batch import job, sources
from sam_endpoint.scoring.batch.parts import Parts
from sam_endpoint.scoring.batch.prefetch import ImagePrefetcher
from sam_endpoint.scoring.runtime import open_model
from tests import pictures
from tests.scoring.batch.jobs import rows_of, table_of


def test_opens_announced_and_other_images_and_ends_its_threads() -> None:
    refs = [ImageRef.content(pictures.disc(60 + i, 50)[0]) for i in range(5)]
    broken = ImageRef.content(b"broken")
    with ImagePrefetcher(ImageReader(), threads=2, max_images=3) as images:
        images.announce([*refs, broken])
        assert [images.open(ref).pixels().shape for ref in refs] == [(50, 60 + i, 3) for i in range(5)]
        with pytest.raises(BadInput, match="no known image format"):
            images.open(broken)
        unannounced = images.open(refs[0])
        assert np.array_equal(unannounced.pixels(), ImageReader().open(refs[0]).pixels())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_two_jobs_in_a_process_have_the_same_results(packaged: Path, photos: Path, tmp_path: Path) -> None:
    """The threads that prefetch images end with a job, and the engine is unchanged."""
    engine = open_model(packaged, local_paths=True).engine
    image_source, before = engine.images, threading.active_count()
    params = ParamDefaults().read({"mask_encoding": "rle", "on_error": "record"})
    table_of(photos, 20).to_csv(tmp_path / "in.csv", index=False)
    outputs = []
    for name in ("first", "second"):
        source, output = sources.find(str(tmp_path / "in.csv")), tmp_path / name
        parts = Parts(str(output), {"job": name})
        summary = job.run(engine, params, source, parts, rows_per_part=4)
        outputs.append((rows_of(output), summary.rows, summary.failed, summary.images))
        assert engine.images is image_source
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
    assert outputs[0] == outputs[1] and outputs[0][1] == 20
    assert threading.active_count() <= before + thread_count()  # later jobs reuse the threads of the decoder


def test_the_threads_of_a_job_that_fails_end(packaged: Path, photos: Path, tmp_path: Path) -> None:
    engine = open_model(packaged, local_paths=True).engine
    pd.DataFrame({"image": [str(photos / "07.png")] * 9}).to_csv(tmp_path / "in.csv", index=False)
    source, params = sources.find(str(tmp_path / "in.csv")), ParamDefaults().read({"on_error": "record"})
    with pytest.raises(TooManyFailures, match="1 rows failed; the limit is 0"):
        job.run(engine, params, source, Parts(str(tmp_path / "out"), {}), rows_per_part=1, error_threshold=0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]
