"""Embed the texts of concepts with SAM 3's text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from ...errors import BadInput
from ...shared_lru import SharedLRU

MAX_TOKENS = 32  # of a text, with the tokens for its start and its end, as in transformers' Sam3Processor
MAX_CACHED = 4096  # texts; at most 32 KiB each


class TextEmbedder:
    """Embeds texts, and caches the embeddings. Safe to share between threads.

    Args:
        model: a Sam3Model or Sam3LiteTextModel.
        tokenizer: the tokenizer of the checkpoint.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        # CLIP's text encoder is causal, so padding does not change the tokens before it. Other text encoders need the
        # padding that they are trained with.
        self._pads_to_the_end = not isinstance(model.text_encoder, CLIPTextModelWithProjection)
        self._tokens([""])  # the first call may change settings of the tokenizer, which threads then only read
        self._cache: SharedLRU[Tensor] = SharedLRU(MAX_CACHED, lambda _: 1)

    def check(self, texts: Sequence[str]) -> None:
        """Raise BadInput if a text has more than MAX_TOKENS tokens."""
        longest = max((len(tokens) for tokens in self._tokens(texts)), default=0)
        if longest > MAX_TOKENS:
            expected = f"a text of at most {MAX_TOKENS} tokens (a noun phrase of up to about 20 words)"
            raise BadInput("input_text", expected, f"{longest} tokens")

    def embed(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the embedding of each text, (tokens, C), without padding."""
        embedded = {text: self._cache.get("", text) for text in texts}
        missing = [text for text, embedding in embedded.items() if embedding is None]
        if missing:
            tokens = self._tokens(missing)
            lengths = [len(own) for own in tokens]
            padded = MAX_TOKENS if self._pads_to_the_end else max(lengths)
            padding = [[self.tokenizer.pad_token_id] * (padded - length) for length in lengths]
            ids = torch.tensor([[*own, *rest] for own, rest in zip(tokens, padding, strict=True)])
            mask = torch.arange(padded) < torch.tensor(lengths)[:, None]
            device = self.model.device
            features = self.model.get_text_features(ids.to(device), mask.long().to(device))
            for text, embedding, length in zip(missing, features.pooler_output, lengths, strict=True):
                embedded[text] = embedding[:length].clone()
                self._cache.put("", text, embedding[:length].clone())
        return [embedding for text in texts if (embedding := embedded[text]) is not None]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of the tokens of each text."""
        ids: list[list[int]] = self.tokenizer(list(texts))["input_ids"] if texts else []
        return ids


def join_prompts(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Pad prompts to the same number of tokens.

    Args:
        prompts: the prompt of each concept, (tokens, C).

    Returns:
        (n, T, C) prompts, and a bool mask (n, T) which is False for padding; None if there is no padding.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=prompts[0].device)
    joined = torch.nn.utils.rnn.pad_sequence(list(prompts), batch_first=True)
    mask = torch.arange(joined.shape[1], device=joined.device) < lengths[:, None]
    return joined, None if bool(mask.all()) else mask
