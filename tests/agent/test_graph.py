"""The architecture, drawn. A change of the graph shows in this file's diff."""

from __future__ import annotations

from ponder.graph import build_graph

DRAWING = """\
graph TD;
	__start__ --> think;
	branch --> think;
	browser --> judge;
	judge --> stop;
	stop -.-> __end__;
	stop -.-> branch;
	think -.-> browser;
	think -.-> judge;
	think -.-> verify;
	verify --> judge;"""


def test_the_six_states() -> None:
    drawing = build_graph().get_graph().draw_mermaid(with_styles=False)
    lines = [line for line in drawing.splitlines() if "-->" in line or "-.->" in line or line.startswith("graph")]
    assert "\n".join(lines) == DRAWING
