"""`sam-endpoint evaluate`: the images that it leaves out, and the arguments that it rejects."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sam_endpoint.__main__ import main
from sam_endpoint.evaluation.evaluate import display_names, evaluate
from sam_endpoint.evaluation.scenes.dataset import SceneDataset
from sam_endpoint.model.mlflow import package
from sam_endpoint.model.segmenter import Segmenter
from tests.evaluation.coco_files import evaluate_here, write_images, write_json


def test_leaves_out_an_image_for_which_memory_is_short(tiny: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is left out for both models, so that both are evaluated on the same objects."""
    embed, calls = tiny.family.embed, []

    def embed_or_fail(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(pixels)
        if len(calls) == 4:  # the second model on the second scene
            raise MemoryError
        return embed(pixels)

    monkeypatch.setattr(tiny.family, "embed", embed_or_fail)
    dataset = SceneDataset(3)
    (first, second), image_ids = evaluate({"first": tiny, "second": tiny}, dataset)
    assert image_ids == [0, 2] and len(calls) == 6
    assert set(first.objects["image"]) == {"scene 0", "scene 2"}
    assert first.objects.equals(second.objects)
    assert dataset.problems.to_dict() == {
        "images for which memory was short, left out": {"count": 1, "first": ["scene 1"]}
    }


def test_fails_if_the_data_set_has_no_usable_image(tmp_path: Path) -> None:
    instances = write_images(tmp_path, 1)
    (tmp_path / "0.png").unlink()
    write_json(tmp_path, "data.json", instances)
    done = evaluate_here(tmp_path, "--model", package.EMBEDDED, "--data", "data.json", "--output", "out.json")
    assert done.returncode == 1
    assert "error: data.json has no object that can be evaluated" in done.stderr
    assert "1 images missing, left out: 0.png" in done.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "missing.json"], "'missing.json' cannot be read: No such file or directory; expected a COCO"),
        (["--data", "list.json"], "'list.json': expected a COCO instances file"),
        (["--data", "good.json", "--boxes", "good.json"], "expected COCO results, a list of objects"),
        (["--data", "good.json", "--boxes", "list.json"], "got a list of 2 without a valid result"),
        (["--data", "good.json", "--model", "."], "no model can be loaded from '.'"),
        (["--data", "scenes", "--boxes", "list.json"], "--boxes needs a COCO instances file"),
        (["--count", "-1"], "--count: expected a whole number of at least 0"),
        (["--model", "a", "--model", "b", "--model", "c"], "--model: expected one or two"),
    ],
)
def test_rejects_bad_arguments_before_it_evaluates(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path, "list.json", [1, 2])
    write_json(tmp_path, "good.json", {"images": [], "annotations": [], "categories": []})
    try:
        code = main(
            [
                "evaluate",
                *([] if "--model" in arguments else ["--model", str(package.EMBEDDED)]),
                *arguments,
                "--no-log",
            ]
        )
    except SystemExit as error:  # argparse exits
        code = int(error.code or 0)
    assert code == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed


def test_display_names_are_unique(tmp_path: Path) -> None:
    for name in ("a/model", "b/model", "b/other"):
        (tmp_path / name).mkdir(parents=True)
    first, second, third = (str(tmp_path / name) for name in ("a/model", "b/model", "b/other"))
    assert display_names([first]) == ["model"]
    assert display_names([first, third]) == ["model", "other"]
    assert display_names([first, second]) == [first, second]
    assert display_names(["models:/sam@champion", third]) == ["models:/sam@champion", "other"]
    assert display_names([first, first]) == [f"{first} (1)", f"{first} (2)"]
