"""Reading the HTML reports in tests: tags, attributes and text of a page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from cotray.data.decode import encode_png

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
PICTURE = encode_png(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; notes tags that do not close as they opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: list[str] = []
        self.words = ""
        self.unbalanced: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self.sections.append(dict(attrs)["id"] or "")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words += f" {data}"

    @property
    def text(self) -> str:
        return " ".join(self.words.split())

    def links(self) -> list[str]:
        return [(attrs["href"] or "") for tag, attrs in self.tags if tag == "a"]
