"""The mean of checkpoints that were trained one from another: `python -m training.mean build/a build/b --output mean`.

Such weights lie in one valley, where their mean is often better than each (model soups: Wortsman et al. 2022,
https://arxiv.org/abs/2203.05482). Nothing is trained. Of one checkpoint, it is that one with another size of input.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from training import network
from training.train import FAMILIES


def mean(folders: list[Path], family: str, side: int) -> torch.nn.Module:
    """A model of a family, for an input of `side` pixels, whose weights are the mean of the checkpoints'."""
    kind = FAMILIES[family]
    model: torch.nn.Module = kind.new(kind.config(image_size=side), seed=0).model
    found = [network.fitted(folder, model) for folder in folders]
    model.load_state_dict({name: sum(one[name] for one in found) / len(found) for name in found[0]})
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders of checkpoints")
    parser.add_argument("--family", choices=FAMILIES, default="sam")
    parser.add_argument("--side", type=int, default=network.IMAGE_SIZE, help="of the input, in pixels")
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    args = parser.parse_args(arguments)
    network.export(mean(args.checkpoints, args.family, args.side), args.output)


if __name__ == "__main__":
    main()
