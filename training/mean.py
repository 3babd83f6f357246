"""Average checkpoints that were trained from each other.

python -m sam_endpoint.training.mean build/a build/b --output build/mean

The mean of the weights is often better than each checkpoint (model soups: Wortsman et al. 2022,
https://arxiv.org/abs/2203.05482). A checkpoint that is given twice has twice the weight. A single checkpoint keeps its
weights, and gets the input size of --side.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from sam_endpoint.training import network
from sam_endpoint.training.families import FAMILIES
from sam_endpoint.training.options import FAMILY_NAMES, IMAGE_SIZE


def average_checkpoints(folders: Sequence[Path], family: str, side: int) -> torch.nn.Module:
    """Return a model whose weights are the mean of the checkpoints' weights.

    Args:
        folders: The folders of the checkpoints.
        family: One of FAMILY_NAMES.
        side: The side of the model's input in pixels.
    """
    network_class = FAMILIES[family]
    model: torch.nn.Module = network_class.create(network_class.config(image_size=side), seed=0).model
    checkpoints = [network.load_weights(folder, model) for folder in folders]
    names = checkpoints[0].keys()
    model.load_state_dict({name: sum(weights[name] for weights in checkpoints) / len(checkpoints) for name in names})
    return model


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", help="folders of the checkpoints to average")
    parser.add_argument("--family", choices=FAMILY_NAMES, default="sam", help="(default: %(default)s)")
    parser.add_argument(
        "--side", type=int, default=IMAGE_SIZE, help="side of the input in pixels (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the averaged checkpoint")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = make_parser().parse_args(arguments)
    network.save_checkpoint(average_checkpoints(options.checkpoints, options.family, options.side), options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
