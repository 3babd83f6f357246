"""Read the data of a fine-tuning, filter it by category, and split it into training and held-out images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam_endpoint.evaluation.coco import CocoDataset
from sam_endpoint.evaluation.ground_truth import Problems
from sam_endpoint.model.errors import BadData
from sam_endpoint.training.finetune import sources
from sam_endpoint.training.finetune.options import FinetuneOptions
from sam_endpoint.training.finetune.sources import LabelledImages

MAX_NAMES = 3  # maximum number of images that an error message names


@dataclass(frozen=True)
class DataSplit:
    """The training images and the held-out images, as COCO files in the work folder.

    Attributes:
        train: The COCO file of the training images.
        held_out: The COCO file of the held-out images.
        hashes: SHA-256 of each image file by its path.
        problems: The images and masks that are left out.
        digest: A hash of the annotations and of the content of all images.
        categories: The names of the categories.
    """

    train: Path
    held_out: Path
    hashes: dict[str, str]
    problems: Problems
    digest: str
    categories: tuple[str, ...]

    def open_train(self) -> CocoDataset:
        """Return the training images."""
        return CocoDataset(self.train, activity="encoding")

    def open_held_out(self) -> CocoDataset:
        """Return the held-out images."""
        return CocoDataset(self.held_out)


def prepare(options: FinetuneOptions) -> DataSplit:
    """Read the data, split it, and write both parts as COCO files to the work folder.

    Images with equal content always go to the same part.

    Raises:
        BadData: The data cannot be read, no mask has one of the categories, an image is in both parts, or a part is
            empty.
        OSError: The work folder cannot be written.
    """
    folder = options.work_folder / "data"
    labelled = _read(options.data, options, folder)
    problems = labelled.problems
    hashes = _hash_images(labelled)
    if options.val:
        held_out = _read(options.val, options, folder)
        held_out_hashes = _hash_images(held_out)
        _check_shared(hashes, held_out_hashes)
        hashes |= held_out_hashes
        add_problems(problems, held_out.problems)
        train = labelled
    else:
        train, held_out = _split(labelled, hashes, options.holdout, options.plan.seed)
    contents = [json.dumps(part.to_coco()) for part in (train, held_out)]
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json" for name in ("train", "held-out")]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content)
    digest = hashlib.sha256("".join(map(_without_paths, (train, held_out))).encode())
    digest.update("".join(sorted(hashes.values())).encode())
    categories = tuple(dict.fromkeys([*train.categories.values(), *held_out.categories.values()]))
    return DataSplit(files[0], files[1], hashes, problems, digest.hexdigest(), categories)


def add_problems(problems: Problems, more: Problems) -> None:
    """Add the counts and names of `more` to `problems`."""
    for kind, count in more.counts.items():
        names = more.names.get(kind, [])
        for name in names:
            problems.add(kind, name)
        problems.counts[kind] += count - len(names)


def _read(data: str, options: FinetuneOptions, scratch: Path) -> LabelledImages:
    labelled = sources.read(data, options.format, options.images, options.category_column, scratch)
    if options.categories:
        _filter_categories(labelled, options.categories, data)
    masked_ids = {_value(entry, "image_id") for entry in labelled.annotations}
    images = []
    for entry in labelled.images:
        if _value(entry, "id") is None or _value(entry, "id") in masked_ids:
            images.append(entry)
        else:
            labelled.problems.add("images without masks, left out", str(_value(entry, "file_name")))
    labelled.images = images
    if not images:
        raise BadData(f"'{data}': no image has a mask\n{labelled.problems.format_lines()}".rstrip())
    return labelled


def _value(entry: Any, key: str) -> Any:
    """Return the value of a key of an entry if it is a number or a text, else None. The entry may be malformed."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, (int, str)) else None


def _filter_categories(labelled: LabelledImages, names: tuple[str, ...], data: str) -> None:
    """Keep the annotations of the named categories. Raises BadData if there are none."""
    known = ", ".join(sorted(set(labelled.categories.values()))) or "no categories"
    chosen = {number for number, name in labelled.categories.items() if name in names}
    labelled.annotations = [entry for entry in labelled.annotations if _value(entry, "category_id") in chosen]
    labelled.categories = {number: name for number, name in labelled.categories.items() if number in chosen}
    if not labelled.annotations:
        raise BadData(f"'{data}': no mask has the category {' or '.join(names)}; the data has {known}")


def _hash_images(labelled: LabelledImages) -> dict[str, str]:
    """Return the SHA-256 of each image file, by its path. Skip unreadable files, which `CocoDataset` reports later."""
    hashes = {}
    for entry in labelled.images:
        name = _value(entry, "file_name")
        if not isinstance(name, str):
            continue
        try:
            with open(name, "rb") as stream:
                hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError):
            continue
    return hashes


def _check_shared(train: dict[str, str], held_out: dict[str, str]) -> None:
    by_hash = {digest: name for name, digest in train.items()}
    shared = [(by_hash[digest], name) for name, digest in held_out.items() if digest in by_hash]
    if shared:
        names = "; ".join(f"{Path(a).name} = {Path(b).name}" for a, b in shared[:MAX_NAMES])
        more = ", ..." if len(shared) > MAX_NAMES else ""
        raise BadData(
            f"{len(shared)} images are in both --data and --val ({names}{more}); the gate must not use images of the "
            "training: remove the images from one of the two"
        )


def _split(
    labelled: LabelledImages, hashes: dict[str, str], share: float, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Hold out a share of the images, at least one. Raises BadData if there are fewer than two different images."""
    # If images have the same id, the masks are those of the first. All of them stay together, so that `CocoDataset`
    # counts the others.
    digest_by_id: dict[Any, str | None] = {}
    for entry in labelled.images:
        digest_by_id.setdefault(_value(entry, "id"), hashes.get(str(_value(entry, "file_name"))))
    digests = sorted(set(filter(None, digest_by_id.values())))
    if len(digests) < 2:
        raise BadData(
            f"--holdout: expected at least two different images with masks, got {len(digests)}: add images or use --val"
        )
    count = min(len(digests) - 1, max(1, round(share * len(digests))))
    order = np.random.default_rng(seed).permutation(len(digests))
    held_digests = {digests[i] for i in order[:count]}

    held_ids = {number for number, digest in digest_by_id.items() if number is not None and digest in held_digests}
    held_out = LabelledImages(
        [entry for entry in labelled.images if _value(entry, "id") in held_ids],
        [entry for entry in labelled.annotations if _value(entry, "image_id") in held_ids],
        labelled.categories,
    )
    # Malformed annotations and images stay in the training part. `CocoDataset` counts them when it reads this part.
    train = LabelledImages(
        [entry for entry in labelled.images if _value(entry, "id") not in held_ids],
        [entry for entry in labelled.annotations if _value(entry, "image_id") not in held_ids],
        labelled.categories,
    )
    return train, held_out


def _without_paths(labelled: LabelledImages) -> str:
    """Return the images, annotations and categories as JSON, with file names instead of the paths of the images."""
    images: list[Any] = [
        {**entry, "file_name": Path(str(_value(entry, "file_name"))).name} if isinstance(entry, dict) else entry
        for entry in labelled.images
    ]
    return json.dumps([images, labelled.annotations, {str(k): v for k, v in labelled.categories.items()}])
