"""What a page lets the core do, as the browser tool wrote it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ponder.actions import Acts
from ponder.records import Browse, Node

# How the browser tool writes what can be clicked, and that there is more of the page.
_REF = re.compile(r"\[((?:f\d+)?e\d+) (\w+)[^\]]*?(, disabled)?\]")
_FIELDS = ("textbox", "searchbox", "spinbutton")
_MORE = 'Read "more"'
_SHOWN_ACTS = 8


def page_acts(line: Sequence[Node], *, one_line: bool) -> Acts:
    """Return what the page at the end of this line lets one do: only what is really on it."""
    assert line[-1].observation is not None
    page = line[-1].observation.text
    found = {ref: role for ref, role, disabled in _REF.findall(page) if not disabled}
    fields = tuple(ref for ref, role in found.items() if role in _FIELDS)
    pages = [node for node in line if isinstance(node.action, Browse) and node.action.op in ("goto", "click")]
    return Acts(
        click=tuple(ref for ref in found if ref not in fields),
        type=fields,
        more=_MORE in page,
        back=len(pages) > 1,
        one_line=one_line,
    )


def told(acts: Acts) -> list[str]:
    """Return how a page's acts are written, for the core to see; a long list is cut: the page shows the rest."""
    ways = [f"BROWSE click {ref}" for ref in acts.click[:_SHOWN_ACTS]]
    ways += [f"BROWSE type {ref} TEXT" for ref in acts.type[:_SHOWN_ACTS]]
    return ways + ["BROWSE read more"] * acts.more + ["BROWSE back"] * acts.back
