"""ONNX Runtime and OpenVINO on transformers' model, exported as a user would export it. Both packages are optional."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import subjects
from benchmarks.measure import ONNX_RUNTIME, OPENVINO
from benchmarks.plain import Plain

Run = Callable[..., list[np.ndarray]]  # maps the inputs of a model to its outputs
PACKAGES = {ONNX_RUNTIME: "onnxruntime", OPENVINO: "openvino"}


def missing() -> list[str]:
    """Return the names of the runtimes whose packages are not installed (`benchmarks/requirements.txt`)."""
    names = {name: (package, "onnx") for name, package in PACKAGES.items()}  # torch's exporter needs onnx
    return [name for name, packages in names.items() if not all(map(importlib.util.find_spec, packages))]


def encoders(name: str, plain: Plain, pixels: Tensor) -> dict[str, Run]:
    """Compile transformers' image encoder for each installed runtime.

    Args:
        name: name of the checkpoint.
        plain: transformers' model of the checkpoint, with the default attention.
        pixels: (1, 3, side, side) an example of the input.

    Returns:
        Functions that map pixels to feature maps, by the name of the runtime.
    """
    return _compile(f"{name}-encoder", _Encoder(plain.model), (pixels,))


def decoders(name: str, plain: Plain, features: Any, boxes: Tensor) -> dict[str, Run]:
    """Compile transformers' prompt encoder and mask decoder for each installed runtime.

    Args:
        name: name of the checkpoint.
        plain: transformers' model of the checkpoint, with the default attention.
        features: the feature maps of an image.
        boxes: (1, p, 4) an example of the boxes. The compiled decoder takes this number of boxes.

    Returns:
        Functions that map feature maps and boxes to logits and scores, by the name of the runtime.
    """
    maps = tuple(features) if isinstance(features, (list, tuple)) else (features,)
    return _compile(f"{name}-decoder-{boxes.shape[1]}", _Decoder(plain.model), (*maps, boxes))


class _Encoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Any:
        return self.model.get_image_embeddings(pixels)


class _Decoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *maps, boxes = inputs
        features: Any = maps[0] if len(maps) == 1 else maps
        outputs = self.model(image_embeddings=features, input_boxes=boxes, multimask_output=True)
        return outputs.pred_masks, outputs.iou_scores


def _compile(title: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Run]:
    absent = missing()
    compilers = {ONNX_RUNTIME: _onnx_runtime, OPENVINO: _openvino}
    installed = {name: compiler for name, compiler in compilers.items() if name not in absent}
    if not installed:
        return {}
    file = subjects.FOLDER / "onnx" / f"{title}-{torch.__version__}.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns about every `if` in transformers' code
            torch.onnx.export(module, inputs, str(file), dynamo=False, opset_version=17)
    return {name: compiler(file) for name, compiler in installed.items()}


def _onnx_runtime(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(*inputs: Tensor) -> list[np.ndarray]:
        arrays = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        outputs: list[np.ndarray] = session.run(None, arrays)
        return outputs

    return run


def _openvino(file: Path) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()

    def run(*inputs: Tensor) -> list[np.ndarray]:
        results = request.infer([value.numpy() for value in inputs], share_inputs=True)
        return [results[output] for output in range(len(results))]

    return run
