"""`auto`: wide or deep, and which kind of step, by what the tree shows and by what each kind has cost so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ponder.answers import normalise
from ponder.instructions.reading import unfollowed
from ponder.program_tests import has_tests
from ponder.protocols import TreeView
from ponder.records import Node, RunCode, StepKind
from ponder.search.attempts import Attempt, AttemptSearch
from ponder.search.steps import began_with, none_agree, repeats_itself

_WIDTH, _WIDEST = 4, 16
"""Attempts of a round: they share one reading of the prompt, and fewer could not disagree. A token of four samples at
once costs three quarters of what it costs alone, of sixteen half to two thirds (docs/engine.md): so that a round is as
wide as half of what was there before it."""

_SAME_IN_A_ROW, _LEAD = 4, 3
"""So many attempts in a row that brought no new answer, and so many more of the first one than of the second: further
new ones would repeat them, too."""

_DEEP = 2
"""Times that one attempt is bettered, at most."""

_READ, _CHARS = 0.5, 3.0
"""What a token costs that is read, in written ones, and the characters of a program that one takes."""

_FRESH_PRIOR, _DEEPER_PRIOR = (1.0, 2.0), (0.5, 2.0)
"""Successes and trials that are assumed before there are any. A small core betters a failed program for twice the price
of a fresh one, and worse (arXiv 2604.21950); what the tree shows counts more than that, soon."""


class Auto(AttemptSearch):
    """Chooses between new attempts (wide) and bettering earlier ones (deep), and the kind of step of new ones.

    - Wide while answers disagree. A value is worked out by programs and by words in turn, by whichever has cost less so
      far: the two go wrong in different ways, so that their agreement says more. Where no program can run, by words.
    - Deep where feedback says something: failed tests, an error. The best failed attempt is bettered if a success so is
      expected to cost less than a success of a new attempt: by rates and costs of both kinds in this tree, with what
      the core has to read first. Never a text: told what it lacks, a small core writes the same one again
      (1.5B, five tasks: 24 of 30 to the letter, and none of them did what was asked).
    - Where new programs would only be the same failed one once more, only deep, several at once; or nothing more.
    - An attempt that repeats an earlier one of its line is given up, and so is one that was bettered twice, or whose
      bettering only repeated it.
    - Costs are in the ledger's prices. The core's are by tokens, at what a token has cost on average: whether one was
      written alone or among others is chance here. Where running code is dear, words are taken instead.
    - Whether what is there is enough is for the stop policy to say: so that a search at full depth has all its samples.
    """

    name = "auto"

    def __init__(
        self, max_samples: int = 16, *, kinds: Sequence[StepKind] = ("code", "reason", "answer"), deep: int = _DEEP,
        name: str = name,
    ) -> None:
        """Make the strategy.

        Args:
            kinds: that attempts may begin with; where there is only one, the core is not asked which.
            deep: times that one attempt is bettered, at most; 0: attempts are always new.
            name: what records call it, where it is not the one that is meant by its name.
        """
        super().__init__(max_samples, width=_WIDEST)
        self._kinds, self._deep, self.name = tuple(kinds), deep, name

    def choose(self, tree: TreeView, attempts: Sequence[Attempt], width: int) -> Sequence[Attempt | None]:
        """See `AttemptSearch.choose`."""
        width = min(width, max(_WIDTH, len(attempts) // 2))
        if not attempts:
            return [None] * width
        deep = _worth_bettering(tree, attempts, self._deep)[:1]
        if _is_one_failed_program(tree, attempts):
            return deep * min(width, _WIDTH)
        return [*(deep if self._pays(tree, attempts) else []), *[None] * width][:width]

    def begin(self, tree: TreeView, base: int, attempts: Sequence[Attempt]) -> StepKind:
        """See `AttemptSearch.begin`: another way than the one that cannot agree."""
        kind = super().begin(tree, base, attempts)
        if kind != "free" or has_tests(tree.task):
            return kind
        if len(self._kinds) == 1:
            return self._kinds[0]
        begun = [(began, one.end) for one in attempts if one.of is None and (began := began_with(tree, one.end))]
        if not begun:
            return kind
        spent: dict[StepKind, float] = dict.fromkeys(self._kinds, 0.0)
        token = _token_cost(tree)
        for began, end in begun:
            steps = tree.path(end.id)[tree.nodes[base].depth :]
            spent[began] = spent.get(began, 0.0) + sum(_cost(node, token) for node in steps)
        answers = [end.answer for _, end in begun if end.answer]
        at_a_loss = none_agree(answers) or (not answers and len(begun) > 1)
        if begun[0][0] == "answer":  # as the core chose
            return self._kinds[0] if at_a_loss else "answer"
        out_of_ways = at_a_loss and all(spent[kind] for kind in self._kinds if kind != "answer")
        return min((kind for kind in self._kinds if kind != "answer" or out_of_ways), key=lambda kind: spent[kind])

    def _pays(self, tree: TreeView, attempts: Sequence[Attempt]) -> bool:
        """Return whether to better an attempt is expected to cost less for a success than a new one."""
        fresh = _cost_of_success(tree, [one for one in attempts if one.of is None], _FRESH_PRIOR)
        shown = [_READ / _CHARS * _characters_shown(tree, one.end) for one in attempts]
        read = sum(shown) / len(shown)
        deeper = _cost_of_success(tree, [one for one in attempts if one.of is not None], _DEEPER_PRIOR, read)
        return deeper < fresh or not any(one.end.answer for one in attempts)


def _is_one_failed_program(tree: TreeView, attempts: Sequence[Attempt]) -> bool:
    """Return whether none passes all tests, the last programs are nothing new, and one of all is well ahead."""
    if not has_tests(tree.task) or any(_passes(one.end) for one in attempts):
        return False
    keys = [normalise(one.end.answer) for one in attempts if one.end.answer]
    first, second = ([count for _, count in Counter(keys).most_common(2)] + [0, 0])[:2]
    last, before = keys[-_SAME_IN_A_ROW:], keys[:-_SAME_IN_A_ROW] or keys[:1]
    return len(last) == _SAME_IN_A_ROW and set(last) <= set(before) and first - second >= _LEAD


def _worth_bettering(tree: TreeView, attempts: Sequence[Attempt], times: int) -> list[Attempt]:
    """Return attempts whose feedback can be used, the most promising first."""
    bettered = Counter(one.of for one in attempts)
    again = {one.of for one in attempts if one.of is not None and repeats_itself(tree, one.end)}
    repeated = {attempts[place].end.answer for place in again} - {None}  # the same program in another place, too
    found = [
        (place, one)
        for place, one in enumerate(attempts)
        if one.end.status == "judged"
        and _has_feedback(tree, one.end)
        and bettered[place] < times
        and place not in again
        and one.end.answer not in repeated
        and not repeats_itself(tree, one.end)
    ]
    return [one for _, one in sorted(found, key=lambda pair: (-_score(pair[1].end), bettered[pair[0]], pair[0]))]


def _has_feedback(tree: TreeView, end: Node) -> bool:
    seen = end.observation
    if seen is None or seen.ok:
        return False
    return has_tests(tree.task) or isinstance(end.action, RunCode)


def _passes(end: Node) -> bool:
    seen = end.observation
    return seen is not None and bool(seen.total) and seen.passed == seen.total


def _score(end: Node) -> float:
    return end.verdict.score if end.verdict is not None else 0.0


def _succeeds(tree: TreeView, end: Node) -> bool:
    """Return whether an attempt passes all tests, or where there are none, does all that the task's words ask."""
    return _passes(end) if has_tests(tree.task) else bool(end.answer) and not unfollowed(tree.task, end.answer or "")


def _characters_shown(tree: TreeView, end: Node) -> int:
    """Return how much the core reads before it betters an attempt: what came of it; where no tests tell, its words."""
    came = len(end.observation.text) if end.observation is not None else 0
    return came if has_tests(tree.task) else len(end.text) + came


def _token_cost(tree: TreeView) -> float:
    """Return what a token that the core wrote has cost on average; 1 where the core costs nothing."""
    nodes = tree.nodes.values()
    core, tokens = sum(node.costs.get("core", 0.0) for node in nodes), sum(node.tokens_out for node in nodes)
    return core / tokens if core and tokens else 1.0


def _cost(node: Node, token: float) -> float:
    """Return what a step cost, where a token costs so much."""
    return max(1, node.tokens_out) * token + sum(cost for tool, cost in node.costs.items() if tool != "core")


def _cost_of_success(
    tree: TreeView, attempts: Sequence[Attempt], prior: tuple[float, float], read: float = 0.0
) -> float:
    """Return what a success is expected to cost; `read` tokens are what each attempt costs besides."""
    successes, trials = prior
    token = _token_cost(tree)
    rate = (sum(_succeeds(tree, one.end) for one in attempts) + successes) / (len(attempts) + trials)
    every = [_cost(node, token) for node in tree.nodes.values() if node.tokens_out]
    own = [_cost(one.end, token) for one in attempts if one.end.tokens_out] or every
    return (read * token + (sum(own) / len(own) if own else token)) / rate
