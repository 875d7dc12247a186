"""The browser as a tool: one warm Chromium for all branches, a page per branch, every call metered and bounded.

Covered: all traffic goes through a proxy that asks `HostRules` (see `web_proxy`); Chromium's own sandbox is on; pages
get no downloads, permissions or service workers; what a page says arrives marked as data; a call that runs over its
wall or CPU seconds loses its page; a dead browser is started again once.
Not covered: `Limits` other than `wall_s` and `cpu_s` (a script's heap is bounded for all pages alike); CPU that a page
burns between calls is not stopped, and shows only in `read`; approval of actions with outside effects: nobody is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ponder.errors import BrowserError
from ponder.policies.hosts import HostRules
from ponder.protocols import GroupFactory, OnUsage, ProcessGroup
from ponder.records import Action, Browse, CpuReading, Limits, Observation, Outcome, Usage
from ponder.tools.browser.launch import BROWSER_UID, ChromiumProcess
from ponder.tools.browser.meter import CallMeter, MeteredCall
from ponder.tools.browser.page import PageGone, PageSession, failure
from ponder.tools.browser.text import PART_CHARS
from ponder.tools.browser.web_proxy import WebProxy

if TYPE_CHECKING:
    from playwright.async_api import Browser

CALL_BYTES = 64 * 2**20
_CLOSE_S = 3.0
_MEMORY_BYTES, _PIDS = 2 * 2**30, 1024
"""Of the whole browser, threads included: what a page fills beyond V8's heap (buffers, canvases) counts here."""
_NOTHING = CpuReading(method="estimate")


class BrowserTool:
    """Implements `Tool` for `Browse` actions. Lives in one event loop; starts nothing before its first use.

    Args:
        group_factory: makes the process group that driver and browser are metered in.
        rules: which URLs may be visited.
        chromium: the program to run; by default PONDER_CHROMIUM, Playwright's own, or one on the PATH.
        allow_unsandboxed: run Chromium without its own sandbox where that cannot work, with a warning.
        max_sessions: pages kept open; beyond it the least recently used one is closed.
        part_chars: characters of page text in one observation.
        call_bytes: what one call may move over the network.
        uid: the user id that Chromium gets when we are root.
    """

    name = "browser"

    def __init__(
        self,
        group_factory: GroupFactory,
        *,
        rules: HostRules | None = None,
        chromium: str | None = None,
        allow_unsandboxed: bool = False,
        max_sessions: int = 8,
        part_chars: int = PART_CHARS,
        call_bytes: int = CALL_BYTES,
        uid: int = BROWSER_UID,
    ) -> None:
        self._group_factory = group_factory
        self._rules = rules or HostRules()
        self._options: dict[str, Any] = {"executable": chromium, "allow_unsandboxed": allow_unsandboxed, "uid": uid}
        self._max_sessions = max_sessions
        self._part_chars = part_chars
        self._call_bytes = call_bytes
        self._group: ProcessGroup | None = None
        self._process: ChromiumProcess | None = None
        self._proxy: WebProxy | None = None
        self._meter = CallMeter(self.read)
        self._sessions: OrderedDict[str, PageSession] = OrderedDict()
        self._starting = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._last = _NOTHING
        self._closed = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a user should know about how the browser runs here; empty before it started."""
        return self._process.warnings if self._process is not None else ()

    async def run(self, action: Action, *, session: str, limits: Limits, on_usage: OnUsage) -> Observation:
        """Do one browser operation on the branch's page.

        The call's clock and meter start when the browser is up and the branch's earlier call is done: starting the
        browser is nobody's cost but the run's, and shows only in `read`.

        Raises:
            BrowserError: the browser cannot run on this machine. Everything else is an observation.
        """
        bill: list[Usage] = []
        try:
            if not isinstance(action, Browse):
                return failure(f"The browser cannot do a {action.type!r} action.")
            for attempt in range(2):
                browser = await self._ensure()
                if attempt and action.op != "goto":
                    return failure("The browser died and was started again. Its pages are gone: goto a URL to go on.")
                page = await self._session(session)
                async with page.lock:
                    result = await self._attempt(browser, page, action, limits, bill)
                if result is not None:
                    return result
            raise BrowserError("the browser died twice during one call", fix="`ponder doctor` says more")
        finally:
            on_usage(_sum(bill))

    def read(self) -> CpuReading:
        """Return what browser and driver used so far, launch and idle time included; also after `close`."""
        if self._group is not None:
            self._last = self._group.read()
        return self._last

    async def probe(self) -> dict[str, str | bool]:
        """Say for `ponder doctor` whether the browser works here, by loading a page: keys `ok`, `why`, `version`."""
        from playwright.async_api import Error

        try:
            browser = await self._ensure()
            context = await browser.new_context()
            try:
                page = await context.new_page()
                await page.goto("data:text/html,<h1>it works</h1>")
                ok = "it works" in await page.aria_snapshot()
            finally:
                await context.close()
        except (BrowserError, Error) as error:
            return {"ok": False, "why": str(error), "version": ""}
        why = " ".join(self.warnings) or "Chromium starts and loads a page, its own sandbox on"
        return {"ok": ok, "why": why if ok else "Chromium starts, but shows no page", "version": browser.version}

    async def close(self) -> None:
        """End browser, driver and proxy and remove what they made. Safe to call twice."""
        self._closed = True
        async with self._starting:
            await asyncio.gather(*self._endings, return_exceptions=True)
            self._sessions.clear()
            if self._process is not None:
                await self._process.stop()
            if self._proxy is not None:
                await self._proxy.close()
            if self._group is not None:
                self.read()
                group, self._group = self._group, None
                await asyncio.to_thread(group.close)

    # --- one call -------------------------------------------------------------------------------------------

    async def _attempt(
        self, browser: Browser, page: PageSession, action: Browse, limits: Limits, bill: list[Usage]
    ) -> Observation | None:
        """Do the operation within its limits and bill it; None when the browser died under it."""
        before = page.user.bytes
        page.user.allowance = before + self._call_bytes
        work = asyncio.get_running_loop().create_task(page.do(browser, action, limits.wall_s))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask for it
        call = self._meter.enter(limits.cpu_s, work.cancel)
        try:
            await asyncio.wait({work}, timeout=limits.wall_s)
            if work.done() and not work.cancelled():
                result = work.result()
                return result if result.ok or self._alive() else None
            work.cancel()
            # Still on the meter: a page that spins goes on spinning until it is closed. So do windows of its own, which
            # nobody was told of: then the whole context goes.
            await self._end(page, keep_context=not call.over)
            if not self._alive():
                return None
            return _stopped(call, limits)
        except PageGone as gone:
            # Playwright tells of the page first and of the whole browser a moment later.
            await asyncio.sleep(0.1)
            if not self._alive():
                return None
            await self._end(page)
            return Observation(tool=self.name, ok=False, text=str(gone), outcome="killed")
        except asyncio.CancelledError:
            work.cancel()
            self._end_later(page)
            raise
        finally:
            bill.append(self._meter.leave(call, page.user.bytes - before))

    async def _end(self, page: PageSession, *, keep_context: bool = True) -> None:
        """Close a page that may not want to; if it will not, the whole context goes, then the browser."""
        for kept in (True, False) if keep_context else (False,):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(page.close(keep_context=kept), _CLOSE_S)
                return
        if self._process is not None and self._alive():
            await self._process.stop()

    def _end_later(self, page: PageSession) -> None:
        """Take a cancelled call's page from its branch at once, and close it with its windows in the background."""
        context = page.abandon()

        async def ending() -> None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_S):
                    if context is not None:
                        await context.close()

        task = asyncio.get_running_loop().create_task(ending())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # --- browser and sessions -------------------------------------------------------------------------------

    def _alive(self) -> bool:
        return self._process is not None and self._process.alive

    async def _ensure(self) -> Browser:
        """Return the running browser, started if need be. Raises BrowserError."""
        async with self._starting:
            if self._closed:
                raise BrowserError("the browser was closed")
            if self._process is not None and self._process.browser is not None and self._process.alive:
                return self._process.browser
            if self._process is not None:
                self._drop_sessions()
                await self._process.stop()
            if self._proxy is None:
                proxy = WebProxy(self._rules)
                await proxy.start()
                self._proxy = proxy
            if self._group is None:
                self._group = self._group_factory("browser")
                with contextlib.suppress(OSError):  # without a memory cgroup, V8's own limit is all there is
                    self._group.limit(memory_bytes=_MEMORY_BYTES, pids=_PIDS)
            self._process = ChromiumProcess(self._group, **self._options)
            return await self._process.start(self._proxy.url)

    def _drop_sessions(self) -> None:
        for page in self._sessions.values():
            if self._proxy is not None:
                self._proxy.remove_user(page.user)
        self._sessions.clear()

    async def _session(self, name: str) -> PageSession:
        """Return the branch's page, and close the one used longest ago when there are too many."""
        found = self._sessions.get(name)
        if found is not None:
            self._sessions.move_to_end(name)
            return found
        assert self._proxy is not None
        page = PageSession(self._rules, self._proxy.add_user(), self._proxy.url, self._part_chars)
        self._sessions[name] = page
        idle = [other for other, each in self._sessions.items() if other != name and not each.lock.locked()]
        for other in idle[: max(0, len(self._sessions) - self._max_sessions)]:
            old = self._sessions.pop(other)
            self._proxy.remove_user(old.user)
            async with old.lock:
                await self._end(old, keep_context=False)
        return page


def _stopped(call: MeteredCall, limits: Limits) -> Observation:
    """Return the observation of a call that ran over a limit."""
    outcome: Outcome = "cpu" if call.over else "wall"
    used = f"{limits.cpu_s:g} CPU seconds" if call.over else f"{limits.wall_s:g} seconds"
    text = f"The page was stopped: it took more than {used}, and was closed. Goto a URL to go on."
    return Observation(tool="browser", ok=False, text=text, outcome=outcome)


def _sum(bill: list[Usage]) -> Usage:
    """Return the parts of one call's bill as one: more than one when the browser died under it."""
    if len(bill) == 1:
        return bill[0]
    return Usage(
        cpu_user_s=sum(part.cpu_user_s for part in bill),
        cpu_system_s=sum(part.cpu_system_s for part in bill),
        wall_s=sum(part.wall_s for part in bill),
        peak_rss_bytes=max((part.peak_rss_bytes for part in bill), default=0),
        bytes=sum(part.bytes for part in bill),
        method=bill[-1].method if bill else "estimate",
        shared=any(part.shared for part in bill),
    )
