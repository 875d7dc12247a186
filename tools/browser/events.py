"""What happens to a page beside the operation on it: navigations, dialogs, new windows, downloads, a crash.

Listeners only write down; the operation reads when it is ready. What a page can provoke without end is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ponder.tools.browser.text import excerpt

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Dialog, Download, Frame, Page, Request, Response

_NOTES = 10
_FAILURES = {
    "ERR_ABORTED": "the site answered with nothing to show",
    "ERR_BLOCKED_BY": "the browser blocked it",
    "ERR_CERT": "the site's certificate is not valid",
    "ERR_CONTENT_LENGTH_MISMATCH": "the answer broke off",
    "ERR_EMPTY_RESPONSE": "the site hung up without an answer",
    "ERR_INCOMPLETE_CHUNKED_ENCODING": "the answer broke off",
    "ERR_INVALID_REDIRECT": "the site redirects to nowhere",
    "ERR_SSL": "the site does not speak TLS properly",
    "ERR_TOO_MANY_REDIRECTS": "the site redirects in a circle",
    "ERR_TUNNEL": "no connection to the site could be made",
    "ERR_UNKNOWN_URL_SCHEME": "only http and https may be visited",
    "ERR_UNSAFE_PORT": "browsers refuse that port",
    "ERR_UNSAFE_REDIRECT": "the site redirects to a place that pages may not lead to",
}
_UNUSABLE = (
    (("intercepts pointer events",), "Element {ref} is covered by another one (perhaps a box to close first)."),
    (("element is not enabled",), "Element {ref} is disabled."),
    (("not editable", "not an <input>", "cannot be filled"), "Nothing can be typed into element {ref}."),
    (("cannot type text into",), "Element {ref} does not take such a text."),
    (("did not find some options",), "Element {ref} has no such option."),
    (("not visible", "outside of the viewport"), "Element {ref} is not visible."),
)


class PageEvents:
    """The log of one page, from `forget` (a new operation begins) to when it is read."""

    def __init__(self) -> None:
        self._page: Page | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading: set[Request] = set()
        self._landed = asyncio.Event()
        self._quiet = asyncio.Event()
        self._downloaded = asyncio.Event()
        self.crashed = False
        self.forget()

    def forget(self) -> None:
        """Begin a new operation: what happened before it has been told."""
        self._navigation: Request | None = None
        self._landed.set()
        self.notes: list[str] = []
        self.response: Response | None = None
        """The answer to the main frame's last navigation."""
        self.error = ""
        """Why the main frame's last navigation failed."""
        self.url = ""
        """Where the main frame's last navigation went."""
        self.window = ""
        """Where the page's new window was going."""
        self._downloaded.clear()
        self.download = ""
        """The name of the file that the page wanted to hand over."""

    def watch_context(self, context: BrowserContext) -> None:
        """Listen to what a context's pages do together. Once per context, before its first page."""
        context.on("page", self._on_window)
        context.on("request", self._on_any_request)
        context.on("dialog", self._on_dialog)

    def expect(self) -> None:
        """Make ready for a fresh page of ours, so that it is not taken for a window that a page opened."""
        self._page = None
        self.crashed = False
        self._loading.clear()
        self._quiet.set()

    def watch(self, page: Page) -> None:
        """Listen to a fresh page."""
        self._page = page
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfinished", self._on_end)
        page.on("requestfailed", self._on_end)
        page.on("framenavigated", self._on_navigated)
        page.on("download", self._on_download)
        page.on("crash", self._on_crash)

    async def landed(self) -> None:
        """Wait for the main frame's navigation, if one is under way: it arrives, fails or becomes a download."""
        await self._landed.wait()

    async def named(self, seconds: float) -> str:
        """Wait for the news of a download that is known to have begun, for so long at most; return its file's name."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._downloaded.wait()
        return self.download

    async def quiet(self, seconds: float) -> None:
        """Wait until no request is under way, for so long at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._quiet.wait()

    def note(self, text: str) -> None:
        """Write down what the core should be told with the page."""
        if len(self.notes) < _NOTES:
            self.notes.append(text)

    def stop(self) -> None:
        """Drop what is still being done about events."""
        for task in list(self._tasks):
            task.cancel()

    def _on_request(self, request: Request) -> None:
        self._loading.add(request)
        self._quiet.clear()
        if self._page is not None and request.is_navigation_request() and request.frame == self._page.main_frame:
            self._navigation = request
            self._landed.clear()
            self.url = request.url
            self.error = ""

    def _on_response(self, response: Response) -> None:
        if response.request is self._navigation:
            self.response = response

    def _on_end(self, request: Request) -> None:
        self._loading.discard(request)
        if not self._loading:
            self._quiet.set()
        if request is self._navigation:
            self._arrive(request.failure or "")

    def _on_navigated(self, frame: Frame) -> None:
        # A navigation that failed ends here too, at Chromium's own page about it: its error stays.
        if self._page is not None and frame == self._page.main_frame:
            self._arrive(self.error)

    def _on_download(self, download: Download) -> None:
        self.download = download.suggested_filename or "a file"
        self._downloaded.set()
        self._arrive()

    def _arrive(self, error: str = "") -> None:
        self._navigation = None
        self.error = error
        self._landed.set()

    def _on_crash(self, _page: Page) -> None:
        self.crashed = True

    def _on_any_request(self, request: Request) -> None:
        """Learn early where a new window goes: the window itself is told of only when its page has answered."""
        if self._page is None or self.window or not request.is_navigation_request():
            return
        try:
            ours = request.frame.page is self._page
        except Exception:
            ours = False  # Playwright has no frame yet for a window's first request
        if not ours:
            self.window = request.url

    def _on_window(self, window: Page) -> None:
        if self._page is not None and window is not self._page:
            self._spawn(self._close_window(window))

    async def _close_window(self, window: Page) -> None:
        if window.url.startswith("http"):
            self.window = self.window or window.url
        await window.close()

    def _on_dialog(self, dialog: Dialog) -> None:
        leaving = dialog.type == "beforeunload"
        if not leaving:
            self.note(f"({dialog.type} box, dismissed: {excerpt(dialog.message, 200)!r})")
        self._spawn(dialog.accept() if leaving else dialog.dismiss())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            with contextlib.suppress(Exception):
                await work

        task = asyncio.get_running_loop().create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def explain(error: str) -> str:
    """Return one sentence for Playwright's account of a navigation that failed."""
    code = re.search(r"ERR_[A-Z_]+", error)
    if code:
        meaning = next((words for sign, words in _FAILURES.items() if code[0].startswith(sign)), "")
        return f"The page could not be loaded: {f'{meaning} ({code[0]})' if meaning else code[0]}."
    if "Timeout" in error:
        return "The page did not answer in time."
    first = error.splitlines()[0] if error else "no reason is known"
    return f"The page could not be loaded: {excerpt(first, 200)}."


def unusable(ref: str, error: str) -> str:
    """Return one sentence for Playwright's account of a click or an entry that could not be made."""
    said = error.lower()
    for signs, sentence in _UNUSABLE:
        if any(sign in said for sign in signs):
            return sentence.format(ref=ref)
    first = error.splitlines()[0] if error else "no reason is known"
    return f"Element {ref} could not be used: {excerpt(first, 200)}."
