"""A page is gone to although navigations that were on their way come in between."""

from __future__ import annotations

from typing import Any

import pytest

from ponder.policies.hosts import HostRules
from ponder.tools.browser.page import PageSession
from ponder.tools.browser.web_exchange import ProxyUser

playwright = pytest.importorskip("playwright.async_api")
BETWEEN = 'Navigation to "http://a.example/" is interrupted by another navigation to "http://a.example/"'


class Interrupted:
    """A browser with one page, the first navigations to which are interrupted."""

    def __init__(self, times: int, error: str = BETWEEN) -> None:
        self.times, self.error, self.gone_to = times, error, 0

    async def goto(self, url: str, **_: Any) -> None:
        assert url == "http://a.example/"
        self.gone_to += 1
        if self.gone_to <= self.times:
            raise playwright.Error(f"Page.goto: {self.error}")


CASES = [(Interrupted(0), 1), (Interrupted(2), 3), (Interrupted(9), 3), (Interrupted(9, "net::ERR_X"), 1)]


@pytest.mark.parametrize(("page", "tries"), CASES)
async def test_interrupted_navigations_are_tried_again(page: Interrupted, tries: int) -> None:
    session = PageSession(HostRules(), ProxyUser("a", "b"), "http://127.0.0.1:1")
    if page.times < tries:
        await session._load(page, "http://a.example/")  # type: ignore[arg-type]
    else:
        with pytest.raises(playwright.Error, match=r"Page\.goto"):
            await session._load(page, "http://a.example/")  # type: ignore[arg-type]
    assert page.gone_to == tries
