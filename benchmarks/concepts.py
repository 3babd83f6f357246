"""Benchmark cases of concepts: a request by text or by example on a cached image, and one that encodes the image."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.sam3.configuration_sam3 import Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3Model

from benchmarks import subjects
from benchmarks.measure import Cases, Result, measure_alternately
from benchmarks.subjects import SIZE
from sam_endpoint.model.embeddings import EmbeddingCache
from sam_endpoint.model.engine import Engine
from sam_endpoint.model.images import ImageReader
from sam_endpoint.model.params import Params
from sam_endpoint.model.scorer import Scorer
from sam_endpoint.model.segmenter import Segmenter

EACH_TEXT = "encode and detect, each text"  # as servers do that encode the image again for each text
ENCODE = "encode and detect"
CACHED = "this project, cached image"
TEXTS = ("coin", "old coin", "bronze coin", "silver coin", "coin with a head")
COIN = [243 / 384, 95 / 303, 298 / 384, 145 / 303]  # box of a coin, as shares of the width and height of the image
INSTANCES = 5  # per text; random weights give no meaningful scores, so the threshold is chosen
SAM3 = {"sam3-504": 504, "sam3-1008": 1008}  # side of the input; the published models have 1008
DETECTOR = "sam-tiny+owlv2"
SUBJECTS = (*SAM3, DETECTOR)


def _randomize(model: torch.nn.Module) -> None:
    """Draw weights that neither grow nor shrink the activations. Those that transformers draws are tiny in part."""
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


def _save_tokenizer(folder: Path, max_tokens: int) -> int:
    """Save a tokenizer of letters, and return the size of its vocabulary. The last token ends a text."""
    letters = list(bytes_to_unicode().values())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_tokens).save_pretrained(folder)
    return len(names)


@cache
def sam3(name: str) -> Path:
    """Return the folder of a random SAM 3. The first call creates it.

    The ViT has 12 layers of 384 channels instead of 32 layers of 1024, and the text encoder 4 layers of 256 instead of
    24 of 1024. The detector has its published size. So encoding takes a smaller share of a request than with
    `facebook/sam3`.
    """
    folder = subjects.FOLDER / name
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        side = SAM3[name]
        size = _save_tokenizer(folder, 32)
        vit = {
            "model_type": "sam3_vit_model",
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "image_size": side,
            "window_size": side // 42,
            "global_attn_indexes": [5, 11],
        }
        cells = side // 14
        vision = {"backbone_config": vit, "backbone_feature_sizes": [[4 * cells] * 2, [2 * cells] * 2, [cells] * 2]}
        text: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4}
        text |= {"num_attention_heads": 4, "vocab_size": size, "max_position_embeddings": 32, "projection_dim": 256}
        text |= {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
        model = Sam3Model(Sam3Config(vision_config=vision, text_config=text))
        _randomize(model)
        model.save_pretrained(folder)
    return folder


@cache
def owlv2() -> Path:
    """Return the folder of a random OWLv2 with 6 layers of 384 channels and 480 pixels. The first call creates it."""
    folder = subjects.FOLDER / "owlv2"
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        size = _save_tokenizer(folder, 16)
        layers: dict[str, Any] = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}
        layers["num_attention_heads"] = 6
        text = {**layers, "vocab_size": size, "max_position_embeddings": 16}
        text |= {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
        vision = {**layers, "image_size": 480, "patch_size": 16}
        config = transformers.Owlv2Config(text_config=text, vision_config=vision, projection_dim=384)
        model = transformers.Owlv2ForObjectDetection(config)
        _randomize(model)
        model.save_pretrained(folder)
        pixels = transformers.Owlv2ImageProcessorPil(size={"height": 480, "width": 480})
        words = transformers.CLIPTokenizer.from_pretrained(folder)
        transformers.Owlv2Processor(pixels, words).save_pretrained(folder)
    return folder


def load(name: str) -> Segmenter:
    """Load a subject on the CPU."""
    if name in SAM3:
        return Segmenter.load(str(sam3(name)), "cpu")
    if name == DETECTOR:
        return Segmenter.load(str(subjects.checkpoint("sam-tiny")), "cpu", detector=str(owlv2()))
    return subjects.load(name)


def _scorer(segmenter: Segmenter, cache_bytes: int) -> Scorer:
    return Scorer(Engine(segmenter, ImageReader(), EmbeddingCache(cache_bytes)))


def concepts(name: str, turns: int) -> Iterator[Result]:
    """Find the instances of one text, of five texts, or of one example in an image."""
    segmenter = load(name)
    image = subjects.jpeg(subjects.photograph(*SIZE))
    cached, uncached = _scorer(segmenter, 2**30), _scorer(segmenter, 1)  # an embedding never fits one byte

    def request(scorer: Scorer, params: Params, **cells: Any) -> list[dict[str, Any]]:
        rows = scorer.read(pd.DataFrame([{"image": image, **cells}]), params)
        answers = scorer.score(rows, params)
        return [prediction for answer in answers for prediction in answer["predictions"]]

    def result(case: str, params: Params, *by_text: dict[str, Any], **cells: Any) -> Result:
        ways: dict[str, Callable[[], Any]] = {}
        if by_text:
            ways[EACH_TEXT] = lambda: [request(uncached, params, **own) for own in by_text]
        ways[ENCODE] = lambda: request(uncached, params, **cells)
        ways[CACHED] = lambda: request(cached, params, **cells)
        found = len(request(cached, params, **cells))
        times = measure_alternately(ways, turns)
        load_average, cores = os.getloadavg()[0], os.cpu_count()
        return Result(case, name, times, note=f"{found} instances, load average {load_average:.1f} on {cores} cores")

    if name not in SUBJECTS:
        box = [side * scale for side, scale in zip(COIN, (SIZE[1], SIZE[0]) * 2, strict=True)]
        params = Params(mask_encoding="rle", points_per_side=16)
        yield result("concept by one example", params, input_exemplars=json.dumps([box]))
        return
    every = Params(mask_encoding="rle", concept_thresh=0.0)
    scores = [entry["mask_per_prediction"][0]["iou_score"] for entry in request(cached, every, input_text=TEXTS[0])]
    params = Params(mask_encoding="rle", concept_thresh=scores[:INSTANCES][-1])
    yield result("concept by one text", params, input_text=TEXTS[0])
    rows = [{"input_text": text} for text in TEXTS]
    yield result("concepts by five texts", params, *rows, input_text=json.dumps(TEXTS))


CASES: Cases = {"concepts": (concepts, ("sam3-504", DETECTOR, "sam-tiny"))}
