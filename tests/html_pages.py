"""HTML pages as a browser would read them, and names that must not harm them."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = [
    "a\nb.jpg",
    "\x1b[31mred.jpg",
    "$(id).jpg",
    "-x.jpg",
    "<script>alert(1)</script>.jpg",
    "\u202egpj.exe",
    "\udcff.jpg",
]


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def assert_self_contained(page: Page) -> None:
    """Nothing runs, nothing is fetched."""
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "link", "form"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:image/", "#"))
