"""Check the built documentation site: links and anchors lead somewhere, and no page loads anything from outside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).resolve().parents[2] / "build" / "site"


class Page(HTMLParser):
    """The links, loaded files and anchors of one HTML page.

    Attributes:
        links: addresses that a reader can follow.
        loaded: addresses that the browser requests by itself.
        anchors: names that a link can lead to.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {""}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Collect the addresses and the anchor of an element."""
        values = {name: value or "" for name, value in attributes}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if "src" in values:
            self.loaded.append(values["src"])
        if "href" in values:
            followed = tag == "a" or values.get("rel") in ("canonical", "next", "prev")
            (self.links if followed else self.loaded).append(values["href"])


def problems(site: Path) -> Iterator[str]:
    """Yield a line for each link that leads nowhere and each file that would be loaded from outside."""
    pages = {file.resolve(): Page(file.read_text()) for file in sorted(site.rglob("*.html"))}
    for file, page in pages.items():
        name = file.relative_to(site.resolve())
        yield from (f"{name}: loads {address}" for address in page.loaded if _is_outside(address))
        for address in page.links + page.loaded:
            if _is_outside(address) or address.startswith(("data:", "mailto:", "javascript:")):
                continue
            if name.name == "404.html" and address.startswith("/"):
                address = address.lstrip("/") or "."  # the only page whose links are absolute
            parts = urlsplit(address)
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                yield f"{name}: no file at {address}"
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors | {"__top"}:
                yield f"{name}: no anchor at {address}"


def _is_outside(address: str) -> bool:
    """Return whether an address is on another host."""
    return address.startswith(("http:", "https:", "//"))


if __name__ == "__main__":
    found = sorted(set(problems(SITE)))
    print("\n".join(found) or f"{SITE}: links, anchors and loaded files are as they should be")
    sys.exit(bool(found))
