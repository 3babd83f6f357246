"""Small object detectors of several kinds, with random weights."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TypedDict

import transformers
from transformers import BertConfig, ResNetConfig, RTDetrResNetConfig, SwinConfig


class Transformer(TypedDict):
    """Sizes of a transformer, in the names of DETR's configurations."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int


class Encoder(TypedDict):
    """Sizes of a transformer encoder, in the names of BERT's and ViT's configurations."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


class Stages(TypedDict):
    """Sizes of a ResNet."""

    embedding_size: int
    hidden_sizes: list[int]
    depths: list[int]


SMALL: Transformer = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
TEXT: Encoder = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
STAGES: Stages = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SIDES = {"shortest_edge": 64, "longest_edge": 96}
NAMES = {0: "cup", 1: "spoon", 2: "plate"}


def yolos(folder: Path) -> None:
    """Save a small YOLOS with random weights."""
    config = transformers.YolosConfig(**TEXT, image_size=[64, 96], num_detection_tokens=10, id2label=NAMES)
    transformers.YolosForObjectDetection(config).save_pretrained(folder)
    transformers.YolosImageProcessorPil(size=SIDES).save_pretrained(folder)


def detr(folder: Path) -> None:
    """Save a small DETR with random weights."""
    backbone = ResNetConfig(**STAGES)
    backbone.out_features = ["stage4"]
    config = transformers.DetrConfig(**SMALL, backbone_config=backbone, num_queries=10, id2label=NAMES)
    transformers.DetrForObjectDetection(config).save_pretrained(folder)
    transformers.DetrImageProcessorPil(size=SIDES).save_pretrained(folder)


def rt_detr(folder: Path) -> None:
    """Save a small RT-DETR with random weights."""
    backbone = RTDetrResNetConfig(**STAGES, layer_type="basic")
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        **SMALL,
        encoder_hidden_dim=32,
        encoder_in_channels=[8, 16, 16],
        decoder_in_channels=[32, 32, 32],
        num_queries=10,
        id2label=NAMES,
    )
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def owl(folder: Path) -> None:
    """Save a small OWLv2 with random weights, and a tokenizer of letters."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocab = {word: i for i, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    end = len(vocab) - 1
    config = transformers.Owlv2Config(
        text_config={
            **TEXT,
            "vocab_size": len(vocab),
            "max_position_embeddings": 16,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={**TEXT, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    transformers.Owlv2ForObjectDetection(config).save_pretrained(folder)
    pixels = transformers.Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    words = transformers.CLIPTokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", model_max_length=16)
    transformers.Owlv2Processor(pixels, words).save_pretrained(folder)


def grounding_dino(folder: Path) -> None:
    """Save a small Grounding DINO with random weights, and a tokenizer of a few words."""
    vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "cup", "spoon", "plate"])}
    backbone = SwinConfig(image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2)
    backbone.out_features = ["stage2", "stage3", "stage4"]
    config = transformers.GroundingDinoConfig(
        backbone_config=backbone,
        text_config=BertConfig(**TEXT, vocab_size=len(vocab)),
        **SMALL,
        num_queries=10,
        max_text_len=16,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pixels = transformers.GroundingDinoImageProcessorPil(size=SIDES)
    transformers.GroundingDinoProcessor(pixels, transformers.BertTokenizer(vocab=vocab)).save_pretrained(folder)
