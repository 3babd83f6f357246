"""The installed package: its files, its commands, its extras, and the ranges and pins of its requirements."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

import sam_endpoint
from sam_endpoint import commands
from tests.conftest import ROOT, free_port, run_code, server

PARTS = ("sam_endpoint", "model", "scoring", "evaluation", "training", "checkpoints", "samples")
SLOW_IMPORTS = ("torch", "transformers", "mlflow", "pandas", "numpy", "pyarrow", "scipy", "PIL", "fsspec", "tqdm")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    "": ROOT / "model" / "requirements.txt",
    **dict.fromkeys(PROJECT["optional-dependencies"], ROOT / "requirements.lock"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of this checkout."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in PARTS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    words = ["wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", output, source]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True, cwd=output)
    (file,) = output.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a new virtual environment that does not contain this checkout.

    The environment also finds the packages of the environment in which the tests run.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Python does not read the *.pth files in a folder that a .pth file names. This hides an editable install of this
    # checkout.
    (packages / "packages.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    words = ["--python", folder / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index"]
    words += ["--ignore-installed", "--disable-pip-version-check", wheel]
    subprocess.run([sys.executable, "-m", "pip", *map(str, words)], check=True, cwd=folder)
    return folder


def run_installed(environment: Path, folder: Path, name: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program of a virtual environment in a folder from which this checkout cannot be imported."""
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [str(environment / "bin" / name), *map(str, words)]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)


def test_the_wheel_contains_one_package_with_all_its_modules_and_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    assert {f"Version: {sam_endpoint.__version__}", "License-Expression: Apache-2.0"} <= set(headers)
    licenses = {metadata.replace("METADATA", f"licenses/{name}") for name in ("LICENSE", "NOTICE")}
    assert licenses <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sam_endpoint"}
    expected = {
        f"sam_endpoint/{name}" for name in ("py.typed", "model/requirements.txt", "scoring/online/catalog.yaml")
    }
    expected |= {
        f"sam_endpoint/scoring/online/page/{name}" for name in ("index.html", "app.js", "style.css", "masks/rle.js")
    }
    for checkpoint in ("sam-tiny", "sam2-tiny"):
        files = ("config.json", "preprocessor_config.json", "model.safetensors", "heldout.json")
        expected |= {f"sam_endpoint/checkpoints/{checkpoint}/{name}" for name in files}
    for part in ("model", "scoring", "evaluation", "training"):
        modules = [file.relative_to(ROOT) for file in (ROOT / part).rglob("*.py")]
        expected |= {f"sam_endpoint/{module.as_posix()}" for module in modules}
    expected |= {f"sam_endpoint/commands/{name}.py" for name in commands.NAMES}
    expected |= {f"sam_endpoint/training/recipes/{name}-tiny.toml" for name in ("sam", "sam2")}
    expected |= {f"sam_endpoint/samples/{name}" for name in ("cat.jpg", "coffee.jpg", "coins.png", "prompts.csv")}
    assert not expected - names
    assert not [name for name in names if name.endswith(".csv") and "training-log" in name]


def test_the_installed_commands_package_a_model_and_score_without_the_checkout(
    installed: Path, disc: tuple[bytes, np.ndarray], tmp_path: Path
) -> None:
    where = run_installed(installed, tmp_path, "python", "-c", "import sam_endpoint.model as m; print(m.__file__)")
    assert where.stdout.startswith(str(installed)), where.stderr
    packaged = run_installed(installed, tmp_path, "sam-endpoint", "package", "--output", "model", "--no-log")
    assert packaged.returncode == 0, packaged.stderr[-3000:]
    (tmp_path / "disc.png").write_bytes(disc[0])
    pd.DataFrame({"image": ["disc.png"], "input_boxes": ["[[68, 38, 153, 123]]"]}).to_csv(tmp_path / "in.csv")
    words = ["score", "--model", "model", "--input", "in.csv", "--output", "out.parquet"]
    scored = run_installed(installed, tmp_path, "sam-endpoint", *words)
    assert scored.returncode == 0 and "rows         1 (0 failed)" in scored.stdout, scored.stderr[-3000:]
    (row,) = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert row["error"] is None and row["predictions"]


def test_the_installed_endpoint_serves_its_page_and_models_without_the_checkout(
    installed: Path, tmp_path: Path
) -> None:
    port = free_port()
    command = [str(installed / "bin" / "sam-endpoint"), "serve", "--port", str(port)]
    with server(command, port, "/ready", tmp_path / "log", PYTHONPATH="", HF_HUB_OFFLINE="1") as url:
        for path in ("/", "/page/app.js", "/page/samples/coins.png"):
            assert urllib.request.urlopen(url + path, timeout=10).status == 200
        models = json.load(urllib.request.urlopen(url + "/models", timeout=10))
        assert "sam-tiny" in json.dumps(models) and "sam2-tiny" in json.dumps(models)


def test_entry_scripts_add_no_folder_of_the_package_to_the_search_path(installed: Path, tmp_path: Path) -> None:
    """A folder of the package there would hide a user's own module `model` or `scoring`."""
    (package,) = installed.glob("lib/python*/site-packages/sam_endpoint")
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.path, sep='\\n')"
    for name in ("online", "batch"):
        done = run_installed(installed, tmp_path, "python", "-c", code, package / "scoring" / name / "score.py")
        assert done.returncode == 0 and str(package) not in done.stdout.splitlines(), done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("names", "slow_imports"),
    [
        (["", *(name for name in commands.NAMES if name != "serve")], (*SLOW_IMPORTS, "pydantic")),
        (["serve"], SLOW_IMPORTS),
    ],
    ids=["all but serve", "serve"],
)
def test_help_imports_no_slow_library(names: list[str], slow_imports: tuple[str, ...]) -> None:
    code = f"""
import sys
from sam_endpoint.__main__ import main
for name in {names!r}:
    try:
        main([name, "--help"] if name else ["--help"])
    except SystemExit as stop:
        assert not stop.code
print("LOADED", [name for name in {slow_imports!r} if name in sys.modules])
"""
    done = run_code(code)
    assert done.returncode == 0 and "LOADED []" in done.stdout, done.stdout[-500:] + done.stderr[-2000:]
    assert done.stdout.count("usage: sam-endpoint") == len(names)
    assert done.stdout.count("\nExample") == len([name for name in names if name])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("server", ["serve"]),
        ("server", ["serve", "--help"]),
        ("spark", ["score", "--engine", "spark", "--input", "in.csv", "--output", "out"]),
        ("video", ["track", "--video", "a", "--prompts", "b", "--output", "c.parquet", "--overlay", "d.mp4"]),
    ],
)
def test_a_command_without_its_extra_names_the_extra_to_install(extra: str, words: list[str]) -> None:
    for module in commands.EXTRAS[extra]:
        code = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
from sam_endpoint.__main__ import main
sys.exit(main({words!r}))
"""
        done = run_code(code)
        expected = f"error: this command needs the extra '{extra}': pip install 'segment-anything-endpoint[{extra}]'\n"
        assert (done.returncode, done.stderr) == (2, expected)


def test_an_error_is_one_line_and_a_wrong_option_shows_the_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sam_endpoint.__main__ import main

    assert main(["show", "--predictions", str(tmp_path / "none.parquet"), "--output", str(tmp_path / "x.png")]) == 2
    stderr = capsys.readouterr().err
    assert re.fullmatch(r"error: .*none.parquet cannot be shown: .*\n", stderr)
    for words in ([], ["nothing"], ["package", "--alias", "champion"], ["score", "--input"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2 and capsys.readouterr().err.startswith("usage: sam-endpoint")


def test_an_interrupted_command_says_whether_it_can_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sam_endpoint.__main__ import main
    from sam_endpoint.commands import embed, score

    def stop(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "run", stop)
    monkeypatch.setattr(embed, "run", stop)
    assert main(["score", "--input", "x", "--output", "y"]) == 130
    assert capsys.readouterr().err == "stopped; run the same command again to continue\n"
    assert main(["embed", "--images", "x", "--store", "y"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def requirements(extra: str) -> list[Requirement]:
    """Return the requirements in pyproject.toml of an extra, or of the package itself if `extra` is empty."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [requirement for line in lines if (requirement := Requirement(line)).name != PROJECT["name"]]


def pins(file: Path) -> dict[str, str]:
    """Return the pinned versions in a requirements file, by package name."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("#", "-r"))]
    assert lines and all(re.fullmatch(r"[a-z0-9-]+(\[[a-z,]+\])?==[0-9][0-9.a-z]*", line) for line in lines), lines
    return dict(line.split("==") for line in lines)


@pytest.mark.parametrize("extra", ["", "server", "grpc", "spark", "video", "s3", "sizing", "test"])
def test_every_requirement_has_two_bounds_and_a_pin_between_them(extra: str) -> None:
    pinned = pins(PINS[extra])
    for requirement in requirements(extra):
        assert {bound.operator for bound in requirement.specifier} - {"!="} == {">=", "<"}, requirement
        assert pinned[requirement.name] in requirement.specifier, requirement


def test_every_pinned_package_is_a_requirement() -> None:
    extras = [name for extra in PROJECT["optional-dependencies"] for name in requirements(extra)]
    assert set(pins(PINS[""])) == {requirement.name for requirement in requirements("")}
    assert set(pins(ROOT / "requirements.lock")) == {requirement.name for requirement in extras}
    for file in (ROOT / "tests" / "environments").iterdir():
        assert pins(file)


def test_commands_list_the_modules_of_each_extra() -> None:
    for extra, modules in commands.EXTRAS.items():
        names = [requirement.name.replace("grpcio", "grpc").replace("-", "_") for requirement in requirements(extra)]
        assert names == list(modules)
