"""Files that must agree with each other: version and changelog, pinned tools, and the documentation site's pages."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sam_endpoint
from docs.site.check import problems
from docs.site.stage import PROJECT_PAGES, Stage, page_places
from tests.conftest import ROOT

GENERATED = {"reference/http.md", "reference/command-line.md"}
LOCK = (ROOT / "requirements.lock").read_text().splitlines()


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert releases[0][0] == sam_endpoint.__version__
    assert releases == sorted(releases, key=lambda release: tuple(map(int, release[0].split("."))), reverse=True)


def test_pre_commit_and_the_site_use_the_pinned_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pins = {pin for hook in hooks for pin in hook.get("additional_dependencies", [])}
    assert pins and pins <= set(LOCK)
    site = (ROOT / "docs" / "requirements.txt").read_text().splitlines()
    assert {pin for pin in LOCK if pin.startswith("ruff==")} <= set(site)


def navigation(entry: Any) -> Iterator[str]:
    """Yield the pages of the site's navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(part)


def test_every_page_is_in_the_navigation_once() -> None:
    pages = sorted(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert pages == sorted({*page_places().values(), *GENERATED} - {PROJECT_PAGES["CODE_OF_CONDUCT.md"]})


def test_every_link_of_the_site_leads_to_a_file(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.write()
    assert all((tmp_path / place).is_file() for place in [*stage.pages.values(), *stage.linked.values()])


def test_links_to_repository_files_become_links_within_the_site() -> None:
    stage = Stage()
    text = (
        "[a](../model/masks.py) [b](contract.md#rows-in) [c](../README.md) [d](https://example.org) [e](../notebooks)\n"
    )
    assert stage.with_site_links(text, "docs/batch.md", "batch.md") == (
        "[a](source/model/masks.py.md) [b](contract.md#rows-in) [c](index.md) [d](https://example.org) "
        "[e](source/notebooks/index.md)\n"
    )
    assert "(../source/LICENSE.md)" in stage.with_site_links("[l](LICENSE)", "SECURITY.md", "project/security.md")
    code = "```python\nmasks[0](row)\n```\n"
    assert stage.with_site_links(code, "docs/batch.md", "batch.md") == code
    with pytest.raises(SystemExit, match=r"docs/batch.md: the link to 'model/none.py' leads to no file"):
        stage.with_site_links("[x](../model/none.py)", "docs/batch.md", "batch.md")


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=lambda page: page.name)
def test_the_python_reference_names_what_exists(page: Path) -> None:
    for name, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", page.read_text() + "\n", re.MULTILINE):
        try:
            described: Any = importlib.import_module(name)
        except ModuleNotFoundError:
            module, _, attribute = name.rpartition(".")
            described = getattr(importlib.import_module(module), attribute)
        members = (yaml.safe_load(options) or {"options": {}})["options"].get("members", [])
        assert not [member for member in members if not hasattr(described, member)], name


def test_the_sites_check_finds_broken_links_and_outside_requests(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1> <a href="b.html#there">b</a> <a href="https://example.org">outside</a> <img src="a.png">'
    )
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1> <a href="a.html#top">a</a> <a href="#there">b</a>')
    (tmp_path / "a.png").write_bytes(b"")
    assert not list(problems(tmp_path))
    (tmp_path / "b.html").write_text(
        '<a href="a.html#none">a</a> <a href="none.html">c</a> <script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/x.css">'
    )
    assert sorted(problems(tmp_path)) == [
        "a.html: no anchor at b.html#there",
        "b.html: loads //example.org/x.css",
        "b.html: loads https://example.org/x.js",
        "b.html: no anchor at a.html#none",
        "b.html: no file at none.html",
    ]
