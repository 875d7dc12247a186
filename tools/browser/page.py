"""One branch's page: the operations on it, and what came of them, as observations.

A session has a context (cookies, storage), one page in it, and its own account with the proxy. Each operation ends in
an observation: the page as it is now, or one sentence that says why not.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from ponder.policies.hosts import HostRules
from ponder.records import Browse, Observation
from ponder.tools.browser.events import PageEvents, explain, unusable
from ponder.tools.browser.text import PART_CHARS, clean, compact, excerpt, is_ref, paginate, present
from ponder.tools.browser.web_exchange import ProxyUser

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page

_TRIES = 3
"""Times that a page is gone to while navigations that were on their way come in between."""

_PAUSE_S = 0.2
"""Before it is gone to again, and as much more each time."""

_ACT_S = 5.0
"""Seconds that an element may take to become usable."""
_CHOOSE_MS = 1000
"""Milliseconds that a list may take to have the option."""
_NAVIGATION_S = 0.1
"""Seconds after a click within which the navigation that it causes has begun."""
_LOAD_S = 3.0
"""Seconds that a parsed page may take to load the rest."""
_QUIET_S = 1.0
"""Seconds that a loaded page's own requests are waited for."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?!\d)")
_SHOWN = ("http:", "https:", "blob:http")


class PageGone(Exception):
    """The page crashed, or closed itself, under the operation. The message is for the core."""


def failure(text: str) -> Observation:
    """Return the observation of an operation that came to nothing."""
    return Observation(tool="browser", ok=False, text=text, outcome="error")


_LOG = logging.getLogger(__name__)


class PageSession:
    """A context and a page. One operation at a time: hold `lock` around `do`."""

    def __init__(self, rules: HostRules, user: ProxyUser, proxy_url: str, part_chars: int = PART_CHARS) -> None:
        self.lock = asyncio.Lock()
        self.user = user
        self._rules = rules
        self._proxy_url = proxy_url
        self._part_chars = part_chars
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._events = PageEvents()
        self._parts: tuple[str, ...] = ("",)
        self._part = 0
        self._refs: dict[str, str] = {}
        self._deadline = 0.0
        self._left_for_download = False  # since the last load: the end of that navigation may come late

    async def do(self, browser: Browser, action: Browse, wall_s: float) -> Observation:
        """Do one operation in about `wall_s` seconds at most (the caller holds it to that).

        Raises:
            PageGone: the page is no more.
        """
        from playwright.async_api import Error

        self._deadline = time.monotonic() + wall_s
        self._left_for_download |= bool(self._events.download)
        self._events.forget()
        self.user.notes.clear()
        try:
            if action.op == "goto":
                return await self._goto(browser, action.url or "")
            if self._page is None or self._page.is_closed():
                return failure("No page is open in this branch: goto a URL first.")
            return await self._use(self._page, action)
        except Error as error:
            if self._events.crashed:
                raise PageGone("The page crashed. Goto a URL to go on.") from error
            if self._page is None or self._page.is_closed():
                raise PageGone("The page closed itself. Goto a URL to go on.") from error
            if "Download is starting" in str(error):
                await self._events.named(1.0)
            return failure(self._why_not(str(error)))
        except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:  # what a page says, misread
            _LOG.debug("a page could not be read", exc_info=True)
            return failure(f"The page could not be read ({type(error).__name__}).")

    async def close(self, *, keep_context: bool = False) -> None:
        """Close the page, and with it the context (cookies) unless that is kept. May raise Playwright's errors."""
        closing = self.detach() if keep_context else self.abandon()
        if closing is not None:
            await closing.close()

    def detach(self) -> Page | None:
        """Forget the page, so that the next operation finds none, and return it for closing."""
        self._events.stop()
        page, self._page = self._page, None
        return page

    def abandon(self) -> BrowserContext | None:
        """Forget the page and its context, all windows with it, and return the context for closing."""
        self.detach()
        context, self._context = self._context, None
        return context

    async def _use(self, page: Page, action: Browse) -> Observation:
        """Do an operation that needs a page."""
        if action.op == "read":
            return await self._read(page, (action.text or "").strip().lower())
        if action.op == "back":
            return await self._back(page)
        return await self._act(page, action.ref or "", action.text or "" if action.op == "type" else None)

    # --- operations -----------------------------------------------------------------------------------------

    async def _goto(self, browser: Browser, text: str) -> Observation:
        url = self._absolute(text.strip())
        verdict = self._rules.check_url(url)
        if not verdict.allowed:
            return failure(f"Refused: {verdict.why}")
        page = await self._open(browser)
        await self._load(page, url)
        return await self._look(page)

    async def _load(self, page: Page, url: str) -> None:
        from playwright.async_api import Error

        for number in range(_TRIES):
            try:
                await page.goto(url, wait_until="commit", timeout=self._left_ms())
                break
            except Error as error:
                late = self._left_for_download and "ERR_ABORTED" in str(error)
                if number == _TRIES - 1 or (not late and "interrupted by another navigation" not in str(error)):
                    raise
                # The page before was on its way elsewhere at that very moment, or this one already comes: to go there
                # again at once would only interrupt it.
                await asyncio.sleep(_PAUSE_S * (number + 1))
        self._left_for_download = False

    async def _open(self, browser: Browser) -> Page:
        if self._page is not None and not self._page.is_closed() and not self._events.crashed:
            return self._page
        if self._context is None:
            self._context = await browser.new_context(
                proxy={"server": self._proxy_url, "username": self.user.name, "password": self.user.password},
                viewport={"width": 1280, "height": 900},
                accept_downloads=False,
                service_workers="block",
                permissions=[],
                reduced_motion="reduce",
            )
            self._events.watch_context(self._context)
        self._events.expect()
        self._page = await self._context.new_page()
        self._events.watch(self._page)
        return self._page

    async def _read(self, page: Page, which: str) -> Observation:
        if not which:
            return await self._look(page)
        if which == "more":
            number = self._part + 1
        elif which.isascii() and which.isdigit() and int(which[:9]):
            number = int(which[:9]) - 1
        else:
            return failure(f'There is no part {clean(which)[:40]!r}: read "more", or the number of a part.')
        if number >= len(self._parts):
            count = len(self._parts)
            return failure(f"The page has {count} part{'s' if count > 1 else ''}, and no part {number + 1}.")
        self._part = number
        return await self._show(page)

    async def _act(self, page: Page, ref: str, text: str | None) -> Observation:
        """Click on an element, or fill it when there is a text; a newline at its end submits."""
        from playwright.async_api import Error

        ref = ref.strip().strip("[]")
        if not is_ref(ref):
            return failure(f"{clean(ref)[:40]!r} is no ref: use one as the page shows it, such as e12.")
        target = page.locator(f"aria-ref={self._refs[ref]}") if ref in self._refs else None
        # Asked for at once: Playwright would wait for an element that is gone to come back.
        if target is None or not await target.count():
            return failure(f"There is no element {ref} on the page now: read it for its refs.")
        timeout = min(_ACT_S * 1000, self._left_ms() / 2)
        try:
            if text is None:
                await target.click(timeout=timeout)
            else:
                entry = text.rstrip("\n")
                try:
                    await target.fill(entry, timeout=timeout)
                except Error as error:
                    if "<textarea> or [contenteditable] element" not in str(error):
                        raise  # it is not that this is a <select>
                    await target.select_option(entry, timeout=min(timeout, _CHOOSE_MS))
                if entry != text:
                    await target.press("Enter", timeout=timeout)
        except Error as error:
            if page.is_closed() or self._events.crashed:
                raise
            return failure(unusable(ref, str(error)))
        await asyncio.sleep(_NAVIGATION_S)
        return await self._look(page, follow=True)

    async def _back(self, page: Page) -> Observation:
        await page.go_back(wait_until="commit", timeout=self._left_ms())
        if not page.url.startswith(_SHOWN):
            await page.go_forward(wait_until="commit", timeout=self._left_ms())
            return failure("There is no page to go back to.")
        return await self._look(page)

    # --- what came of it ------------------------------------------------------------------------------------

    async def _look(self, page: Page, *, follow: bool = False) -> Observation:
        """Wait until the page is there, and show it; a navigation that failed is told instead."""
        await self._settle(page)
        events = self._events
        if events.window:
            url, done = events.window, "followed here" if follow else "closed"
            events.note(f"(the page opened a new window at {url[:200]}, which was {done})")
            if follow:
                verdict = self._rules.check_url(url)
                if not verdict.allowed:
                    return failure(f"The page opened a new window. Refused: {verdict.why}")
                await self._load(page, url)
                await self._settle(page)
        if events.download or events.error or page.url.startswith("chrome-error:"):
            return failure(self._why_not(events.error))
        if events.response is not None and events.response.headers.get("proxy-status") == "ponder":
            return failure(self._noted(events.response.url) or "The page could not be loaded.")
        if not page.url.startswith((*_SHOWN, "about:blank")):
            scheme = urlsplit(page.url).scheme
            await self.close(keep_context=True)
            return failure(f"Refused: the page led to a {scheme}: URL, and only http and https may be visited.")
        snapshot = await page.aria_snapshot(mode="ai", timeout=self._left_ms())
        lines, self._refs = compact(snapshot)
        self._parts, self._part = paginate(lines, self._part_chars), 0
        return await self._show(page)

    async def _show(self, page: Page) -> Observation:
        refused = [note for note in self.user.notes if note.kind == "refused"]
        if refused:
            self._events.note(f"({len(refused)} of the page's own requests were refused. First: {refused[0].why})")
        text = present(page.url, await page.title(), self._parts, self._part, self._events.notes)
        response = self._events.response
        several = len(self._parts) > 1
        if response is None or response.status < 400:
            return Observation(tool="browser", ok=True, text=text, truncated=several)
        text = f"The site answered with HTTP {_status(response.status)}.\n{text}"
        return Observation(tool="browser", ok=False, text=text, outcome="error", truncated=several)

    async def _settle(self, page: Page) -> None:
        """Wait for a navigation that began, for the page to load, and for its requests to come to rest."""
        from playwright.async_api import TimeoutError as Late

        events = self._events
        await events.landed()
        if events.error or events.download:
            return
        try:
            await page.wait_for_load_state("domcontentloaded", timeout=self._left_ms() / 2)
            await page.wait_for_load_state("load", timeout=min(_LOAD_S * 1000, self._left_ms() / 3))
        except Late:
            events.note("(the page is still loading)")
            return
        await events.quiet(min(_QUIET_S, self._left_ms() / 4000))

    def _why_not(self, error: str) -> str:
        """Return one sentence for why no page came of the operation."""
        download = self._events.download
        if download or "Download is starting" in error:
            named = f" ({excerpt(download, 100)!r})" if download else ""
            return f"This is a download{named}, and downloads are refused."
        return self._noted(self._events.url) or explain(error)

    def _noted(self, url: str) -> str:
        """Return what the proxy wrote down about this URL's origin in this operation, if anything."""
        target = self._rules.check_url(url).target
        for note in reversed(self.user.notes):
            if target is not None and note.origin == target.origin:
                return f"Refused: {note.why}" if note.kind == "refused" else note.why
        return ""

    def _absolute(self, url: str) -> str:
        """Return the URL that was meant: one may be relative to the page, or lack its scheme."""
        here = self._page.url if self._page is not None else ""
        if url.startswith(("/", "?", "#", "./", "../")) and here.startswith("http"):
            return urljoin(here, url)
        return url if _SCHEME.match(url) or not url else f"https://{url}"

    def _left_ms(self) -> float:
        """Milliseconds left of the call, never zero: to Playwright that means no limit."""
        return max(1.0, (self._deadline - time.monotonic()) * 1000)


def _status(code: int) -> str:
    """Return an HTTP status in the standard's words: a site's own are anybody's."""
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
