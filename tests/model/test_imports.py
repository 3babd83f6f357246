"""Importing the model's modules and loading a model changes no setting of the process."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import ROOT

# Other packages make settings of their own when they are imported. So all modules are imported twice, and their second
# import, which finds the other packages loaded, must change nothing.
CODE = """
import gc, importlib, pkgutil, sys, threading, warnings

import sam_endpoint.model

names = [module.name for module in pkgutil.walk_packages(sam_endpoint.model.__path__, "sam_endpoint.model.")]
assert "sam_endpoint.model.families.sam2" in names and "sam_endpoint.model.mlflow.pyfunc" in names
for name in names:
    importlib.import_module(name)
assert gc.isenabled() and gc.get_freeze_count() == 0

import torch

def settings():
    return warnings.filters[:], torch.get_num_threads(), gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()

for name in names:
    del sys.modules[name]
warnings.resetwarnings()
torch.set_num_threads(3)
before, threads_before = settings(), threading.active_count()
for name in names:
    importlib.import_module(name)
assert settings() == before and threading.active_count() == threads_before
from sam_endpoint.model import memory, threads
torch.set_num_threads(2)
assert threads.thread_count() == 2  # read when called

from sam_endpoint.model.segmenter import Segmenter
segmenter = Segmenter.load("checkpoints/sam-tiny", "cpu")
torch.set_num_threads(3)
assert settings() == before and memory.keep_freed_memory.cache_info().misses == 0
"""


def test_no_setting_of_the_process_changes() -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
