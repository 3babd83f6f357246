"""Importing the model's modules and loading a model changes no setting of the process."""

from __future__ import annotations

from tests.conftest import run_code

# Imports of other packages change settings. Therefore the code imports all modules of this project twice. The second
# import, at which the other packages are already loaded, must not change any setting.
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


def test_imports_and_loading_a_model_change_no_setting_of_the_process() -> None:
    done = run_code(CODE)
    assert done.returncode == 0, done.stderr[-3000:]
