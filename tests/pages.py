"""Reads an HTML page as a person or a screen reader would: headings, tables with captions, figures with names."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class Page(HTMLParser):
    """What stands in a page; `text` is all that is shown, `outside` every address that would be fetched."""

    headings: list[tuple[str, str]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    language: str | None = None
    text: str = ""
    _open: list[tuple[str, str | None, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @staticmethod
    def read(html: str) -> "Page":
        page = Page()
        page.feed(html)
        page.close()
        assert not page._open, f"never closed: {page._open}"
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.language = self.language or (given.get("lang") if tag == "html" else None)
        self.outside += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]
        if tag == "figure":
            self.figures.append(given.get("aria-label") or "")
        if tag not in VOID:
            self._open.append((tag, given.get("class"), len(self.text)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith("#")]

    def handle_endtag(self, tag: str) -> None:
        opened, kind, start = self._open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"
        inner = " ".join(self.text[start:].split())
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, inner))
        elif tag == "caption":
            self.captions.append(inner)
        elif tag in ("td", "th"):
            self.cells.append(inner)
        elif kind == "warning":
            self.warnings.append(inner)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1][0] != "style":
            self.text += data
