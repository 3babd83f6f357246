"""Recipes: the commands of the committed recipes, recipes that were stopped, and malformed files."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import pytest

from sam_endpoint.model.errors import BadData
from sam_endpoint.training import mean
from sam_endpoint.training.memory import __main__ as memory
from sam_endpoint.training.options import TrainingOptions, add_arguments, read_options
from sam_endpoint.training.recipe import main, read_recipe
from tests.conftest import ROOT, run_here
from tests.warm import python

RECIPES = ROOT / "training" / "recipes"
COMMANDS = Path(__file__).parent / "recipe_commands"  # the commands that trained each checkpoint, one per line


def parse(kind: str, words: list[str]) -> TrainingOptions | argparse.Namespace:
    """Parse the arguments of a stage as the command of its kind does."""
    if kind != "train":
        parser = mean.make_parser() if kind == "mean" else memory.make_parser()
        return parser.parse_args(words)
    training = argparse.ArgumentParser()
    add_arguments(training)
    return read_options(training.parse_args(words))


@pytest.mark.parametrize("name", ["sam-tiny", "sam2-tiny"])
def test_the_stages_are_the_commands_that_trained_the_embedded_checkpoints(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml", photographs=Path("photos"))
    stages = [(stage.kind, parse(stage.kind, recipe.arguments(stage))) for stage in recipe.stages]
    lines = [line.split() for line in (COMMANDS / f"{name}.txt").read_text().splitlines()]
    assert stages == [(kind, parse(kind, words)) for kind, *words in lines]


def test_a_recipe_writes_to_the_chosen_folders_for_outputs_and_caches(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "sam-tiny.toml", tmp_path / "out", tmp_path / "scenes")
    second, first_mean = recipe.arguments(recipe.stages[1]), recipe.arguments(recipe.stages[5])
    assert second[:4] == ["--family", "sam", "--output", f"{tmp_path}/out/sam-tiny-2"]
    assert second[4:8] == ["--cache", f"{tmp_path}/scenes/second", "--start", f"{tmp_path}/out/sam-tiny"]
    assert first_mean[:3] == [f"{tmp_path}/out/sam-tiny-{number}" for number in (3, 4, 5)]


def test_a_stage_of_memory_parts_starts_from_a_checkpoint(tmp_path: Path) -> None:
    table = '[[stage]]\nkind = "memory"\noutput = "video"\ninputs = ["checkpoints/sam2-tiny"]\ncache = "clips"\n'
    (tmp_path / "recipe.toml").write_text(f'family = "sam2"\n{table}options = {{ side = 224, rate = 1 }}\n')
    (stage,) = (recipe := read_recipe(tmp_path / "recipe.toml", tmp_path / "out", tmp_path / "cache")).stages
    options = memory.make_parser().parse_args(recipe.arguments(stage))
    assert (options.start, options.output) == (Path("checkpoints/sam2-tiny"), tmp_path / "out" / "video")
    assert (options.cache, options.side, options.rate) == (tmp_path / "cache" / "clips", 224, 1.0)


def test_the_recipe_in_the_docs_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "training.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "recipe.toml").write_text(text)
    (stage,) = read_recipe(tmp_path / "recipe.toml").stages
    assert stage.inputs == ("checkpoints/sam-tiny",) and stage.options["side"] == 352


SMALL_RECIPE = """
family = "sam"

[[stage]]
kind = "train"
output = "a"
options = { eager = true, scenes = 8, side = 128, steps = 2, windowed = 2, images = 1, masks = 2, rate = 1e-3 }

[[stage]]
kind = "mean"
inputs = ["a", "a"]
output = "b"
options = { side = 64 }
"""


def run(folder: Path, *arguments: str | Path) -> str:
    """Run the recipe in a folder, and return its standard output."""
    command = [folder / "recipe.toml", "--output", folder / "out", "--cache", folder / "cache", *arguments]
    done = run_here(main, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stages run with a Python that starts quickly."""
    monkeypatch.setattr(sys, "executable", python())


@pytest.mark.usefixtures("quick_start")
def test_skips_finished_stages_and_continues_interrupted_ones(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(SMALL_RECIPE)
    assert len(run(tmp_path, "--dry-run").splitlines()) == 2 and not (tmp_path / "out").exists()
    assert [line.split()[0] for line in run(tmp_path).splitlines()] == ["running", "running"]
    assert json.loads((tmp_path / "out" / "b" / "config.json").read_text())["vision_config"]["image_size"] == 64
    assert run(tmp_path).split() == ["finished", "a", "finished", "b"]
    # A training writes its output long before it ends. Without the record that it ended, it continues from its state.
    # Here the state is that of the last step, so the training takes no step.
    state = tmp_path / "cache" / "sam.pt"
    saved = state.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "out" / "a")
    assert [line.split()[0] for line in run(tmp_path).splitlines()] == ["running", "finished"]
    assert (tmp_path / "out" / "a" / "model.safetensors").exists() and state.stat().st_mtime_ns == saved


def test_a_stage_takes_photographs_from_the_folder_of_the_command(tmp_path: Path) -> None:
    recipe = SMALL_RECIPE.replace('output = "a"', 'output = "a"\nphotographs = ["houses", "animals"]')
    (tmp_path / "recipe.toml").write_text(recipe)
    command = run(tmp_path, "--dry-run", "--photos", tmp_path / "pictures").splitlines()[0]
    assert f"--photos {tmp_path}/pictures/houses {tmp_path}/pictures/animals" in command
    for options in (["--dry-run"], ["--output", tmp_path / "out", "--cache", tmp_path / "cache"]):
        done = run_here(main, tmp_path / "recipe.toml", *options)
        assert done.returncode == 2
        assert done.stderr == "error: stage a needs --photos, a folder with the folders houses, animals\n"


def test_a_recipe_without_its_photographs_runs_no_stage(tmp_path: Path) -> None:
    recipe = SMALL_RECIPE + '\n[[stage]]\nkind = "train"\noutput = "c"\ninputs = ["b"]\nphotographs = ["houses"]\n'
    (tmp_path / "recipe.toml").write_text(recipe)
    done = run_here(main, tmp_path / "recipe.toml", "--output", tmp_path / "out", "--cache", tmp_path / "cache")
    assert done.returncode == 2 and done.stderr.startswith("error: stage c needs --photos")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick_start")
def test_a_failed_stage_stops_the_recipe(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    recipe = SMALL_RECIPE.replace('output = "a"', f'output = "a"\ninputs = ["{tmp_path}/a"]')
    (tmp_path / "recipe.toml").write_text(recipe)
    done = run_here(main, tmp_path / "recipe.toml", "--output", tmp_path / "out", "--cache", tmp_path / "cache")
    assert done.returncode == 2
    assert "running" in done.stdout and "mean" not in done.stdout
    assert "error: " in capfd.readouterr().err


def test_the_output_of_another_stage_is_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(SMALL_RECIPE)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "stage.json").write_text("{}\n")
    with pytest.raises(BadData, match=r"'.*a' is the output of another stage; remove the folder"):
        read_recipe(tmp_path / "recipe.toml", tmp_path / "out").run()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("steps = 2", "stepz = 2", r"recipe.toml', stage 1 \(a\): unknown option 'stepz'; expected one of eager,"),
        ("side = 64", "steps = 64", r"stage 2 \(b\): unknown option 'steps'; expected one of side"),
        ("steps = 2", 'steps = "2"', r"stage 1 \(a\): option 'steps': expected a value of type int, got '2'"),
        ("steps = 2", "steps = 2.5", r"option 'steps': expected a value of type int, got 2.5"),
        ("eager = true", "eager = 1", r"option 'eager': expected a value of type bool, got 1"),
        ("rate = 1e-3", "rate = true", r"option 'rate': expected a value of type float, got True"),
        ('inputs = ["a", "a"]', 'input = "a"', r"stage 2 \(b\): unknown key 'input'; expected one of kind, inputs,"),
        ('inputs = ["a", "a"]', 'inputs = "a"', r"stage 2 \(b\): inputs: expected a list of names, got 'a'"),
        ('inputs = ["a", "a"]', "", r"stage 2 \(b\): inputs: expected one checkpoint or more, got 0"),
        (
            'inputs = ["a", "a"]',
            'inputs = ["c"]',
            r"inputs: 'c' is neither the output of an earlier stage nor",
        ),
        ('kind = "mean"', 'kind = "train"', r"stage 2 \(b\): inputs: expected at most one checkpoint to start from"),
        (
            'kind = "mean"',
            'kind = "average"',
            r"stage 2 \(b\): kind: expected one of train, mean, memory, got 'average'",
        ),
        ('kind = "mean"', 'kind = "mean"\ncache = "c"', r"stage 2 \(b\): cache: expected the name of a training's"),
        (
            'kind = "mean"',
            'kind = "mean"\nphotographs = ["c"]',
            r"stage 2 \(b\): photographs: expected a list of a train",
        ),
        ('output = "a"', 'output = "a"\nphotographs = 1', r"stage 1 \(a\): photographs: expected a list of .*, got 1"),
        ('output = "b"', 'output = "a"', r"stage 2 \(a\): output: an earlier stage has the same"),
        ('output = "b"', "", r"stage 2: output: expected the name of a folder, got None"),
        ("options = { side = 64 }", "options = 64", r"stage 2 \(b\): options: expected a table, got 64"),
        ('family = "sam"', 'family = "sam3"', r"recipe.toml': family: expected one of sam, sam2, got 'sam3'"),
        ('family = "sam"', 'family = "sam"\nstages = 2', r"recipe.toml': unknown key 'stages'; expected one of family"),
        ('family = "sam"', "family = ", r"recipe.toml' cannot be read as a recipe: Invalid value \(at line 2"),
    ],
)
def test_rejects_a_malformed_recipe_with_its_file_stage_and_key(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    assert before in SMALL_RECIPE
    (tmp_path / "recipe.toml").write_text(SMALL_RECIPE.replace(before, after))
    with pytest.raises(BadData, match=message):
        read_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a recipe: .*No such file"),
        ('family = "sam"', r"expected tables \[\[stage\]\]"),
        ('family = "sam"\nstage = [1]', "stage 1: expected a table, got 1"),
    ],
)
def test_rejects_a_file_without_stages(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "recipe.toml").write_text(content)
    with pytest.raises(BadData, match=message):
        read_recipe(tmp_path / "recipe.toml")
