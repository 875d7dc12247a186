"""The pages that the research tasks stand on, and the server that shows them on loopback. Their facts are invented."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import as_file, files


class _Pages(SimpleHTTPRequestHandler):
    """Serves the folder's pages: no listings, no other files, and no log."""

    def translate_path(self, path: str) -> str:
        """Return the page's file, or one that is not there."""
        name = path.partition("?")[0].removeprefix("/")
        plain = name.endswith(".html") and name.replace("-", "").removesuffix(".html").isalnum()
        return super().translate_path(f"/{name}" if plain else "/none")

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serve_pages(port: int = 0) -> Iterator[str]:
    """Serve the pages on loopback, in a thread; yield their address, without a slash at its end.

    Args:
        port: 0 takes a free one. A fixed one keeps a task's urls the same from run to run.

    Raises:
        OSError: the port is taken.
    """
    with as_file(files(__package__)) as folder:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Pages, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever, name="ponder-bench-pages", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def contents() -> dict[str, bytes]:
    """Return all pages by file name, in the order of their names."""
    found = {page.name: page.read_bytes() for page in files(__package__).iterdir() if page.name.endswith(".html")}
    return dict(sorted(found.items()))


def page_text(name: str) -> str:
    """Return a page's words: a block a line, items with their numbers or a dash, bars between a row's cells."""
    return _Words(files(__package__).joinpath(name).read_text("utf-8")).text()


class _Words(HTMLParser):
    """Collects the words of a page's body."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._in_body = False
        self._number: int | None = None
        """Of the next item, in a numbered list."""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        del attrs
        self._in_body = self._in_body or tag == "body"
        if tag in ("ol", "ul"):
            self._number = 1 if tag == "ol" else None
        if tag == "li":
            self._parts.append("\n- " if self._number is None else f"\n{self._number}. ")
            self._number = self._number + 1 if self._number is not None else None
        elif tag in _BLOCKS:
            self._parts.append("\n")
        elif tag in ("td", "th"):
            self._parts.append(" | ")

    def handle_data(self, data: str) -> None:
        if self._in_body:
            self._parts.append(" ".join(data.split()) + " " if data.strip() else " ")

    def text(self) -> str:
        lines = (" ".join(line.split()).removeprefix("| ") for line in "".join(self._parts).split("\n"))
        return "\n".join(line for line in lines if line)


_BLOCKS = frozenset(["p", "h1", "h2", "h3", "tr", "br", "div", "dt", "dd", "table", "ul", "ol", "dl", "caption"])
