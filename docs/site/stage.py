"""Stage the Markdown sources of the documentation site in build/docs.

The pages in docs/ are written to be read in the repository too, so they link to files such as ../deploy/Dockerfile.
A site cannot serve files above its root. Staging copies each linked file into the site and points the link at the copy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "build" / "docs"
# Pages outside docs/, and their places in the site.
PROJECT_PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "SECURITY.md": "project/security.md",
}
# Repository files whose content a page of the site already has.
SAME_AS = {"README.md": "index.md", "docs": "index.md"}
COPIED_AS_THEY_ARE = {".ico", ".ipynb", ".jpg", ".png", ".svg"}
LANGUAGES = {
    "": "text",
    ".css": "css",
    ".js": "javascript",
    ".json": "json",
    ".py": "python",
    ".sh": "bash",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^ *(```|~~~)")


class Stage:
    """The site's sources, as they are collected.

    Args:
        folder: the folder to write to; its content is replaced.
    """

    def __init__(self, folder: Path = STAGE) -> None:
        self.folder = folder
        self.pages = page_places()
        self.linked: dict[str, str] = {}  # place in the site of each linked file, by its path in the repository

    def write(self) -> None:
        """Write all pages, and copies of all the files that they link to."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for source, place in self.pages.items():
            target = self.folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self.with_site_links((ROOT / source).read_text(), source, place))
        for file in sorted(ROOT.glob("docs/images/*")):
            self._copy(file, self.folder / "images" / file.name)
        self._copy(Path(__file__).with_name("extra.css"), self.folder / "stylesheets" / "extra.css")
        written: set[str] = set()
        while missing := sorted(self.linked.keys() - written):
            for source in missing:
                self._write_linked(source, self.folder / self.linked[source])
                written.add(source)

    def with_site_links(self, text: str, source: str, place: str) -> str:
        """Return a page's Markdown with its links to repository files replaced by links within the site.

        Args:
            text: the Markdown.
            source: the page's path in the repository.
            place: the page's path in the site.
        """
        in_code = False
        lines = []
        for line in text.splitlines(keepends=True):
            if FENCE.match(line):
                in_code = not in_code
            if not in_code:
                line = LINK.sub(lambda match: self._site_link(match[1], source, place) + (match[2] or ""), line)
            lines.append(line)
        return "".join(lines)

    def _site_link(self, link: str, source: str, place: str) -> str:
        """Return the link that leads to the same file in the site."""
        path = os.path.normpath(os.path.join(os.path.dirname(source), link))
        if path.startswith("docs/images/"):
            target = path.removeprefix("docs/")
        else:
            target = self.pages.get(path) or SAME_AS.get(path) or self._place_of_file(path, source)
        return os.path.relpath(target, os.path.dirname(place) or ".")

    def _place_of_file(self, path: str, source: str) -> str:
        """Return the place in the site of a repository file or folder, and remember to copy it."""
        file = ROOT / path
        if path.startswith("..") or not file.exists():
            raise SystemExit(f"{source}: the link to '{path}' leads to no file of the repository")
        if file.is_dir():
            place = f"source/{path}/index.md"
        elif file.suffix in COPIED_AS_THEY_ARE:
            place = f"source/{path}"
        else:
            place = f"source/{path}.md"
        self.linked[path] = place
        return place

    def _write_linked(self, source: str, target: Path) -> None:
        """Copy a repository file to the site; a text file becomes a page that shows it, a folder a list of files."""
        file = ROOT / source
        if file.suffix in COPIED_AS_THEY_ARE:
            self._copy(file, target)
            return
        place = target.relative_to(self.folder).as_posix()
        if file.is_dir():
            names = sorted(name.removeprefix(f"{source}/") for name in tracked_files(source))
            links = [f"- [{name}]({self._site_link(name, f'{source}/index.md', place)})" for name in names]
            body = "\n".join(links)
        elif file.suffix == ".md":
            body = self.with_site_links(file.read_text(), source, place)
        else:
            language = LANGUAGES.get(file.suffix, "text")
            body = f"````{language}\n{file.read_text()}````"
        heading = "" if file.suffix == ".md" else f"# `{source}`\n\n"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"---\ntitle: {source}\nsearch:\n  exclude: true\n---\n\n{heading}{body}\n")

    @staticmethod
    def _copy(file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def page_places() -> dict[str, str]:
    """Return the place in the site of every page, by its path in the repository."""
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/reference/*.md")]
    places = {page.relative_to(ROOT).as_posix(): page.relative_to(ROOT / "docs").as_posix() for page in sorted(pages)}
    return places | PROJECT_PAGES


def tracked_files(folder: str) -> list[str]:
    """Return the paths of a folder's files that git tracks, so that build outputs are left out."""
    listed = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for path in listed.stdout.split("\0") if path]


if __name__ == "__main__":
    Stage().write()
