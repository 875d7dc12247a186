"""A grader that needs no sandbox."""

from __future__ import annotations

from ponder.bench.problems import Grade, Rooms


class Seven:
    """Only seven is right."""

    def __init__(self) -> None:
        self.graded: list[str] = []

    async def grade(self, answer: str, rooms: Rooms) -> Grade:
        del rooms
        self.graded.append(answer)
        return Grade(right=answer == "7", score=float(answer == "7"), outcome="right" if answer == "7" else "wrong")
