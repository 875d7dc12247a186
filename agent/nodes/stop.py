"""stop: ask the policy whether another round is worth it."""

from __future__ import annotations

from typing import Any

from ponder.nodes import Deps, State
from ponder.records import Best, Decision, Features, Record, Spending


class Decided(Record):
    """The payload of a `decided` event: the decision, and the exact features it was made on."""

    decision: Decision
    features: Features


async def stop(state: State, deps: Deps) -> dict[str, Any]:
    """Record the policy's decision. A run that was told to end, or has nothing left to try, stops whatever it says."""
    wishes = deps.strategy.ask(deps.tree)
    spent = deps.flight.decides(_spending(deps))
    standing = deps.judge.standing(deps.tree)
    features = deps.features(
        deps.tree,
        standing=standing,
        max_samples=deps.strategy.max_samples,
        wished=wishes,
        spent=spent,
    )
    decision = _decide(deps, standing.best, features, more=bool(state["pending"] or wishes))
    deps.write("decided", None, Decided(decision=decision, features=features))
    return {"stopped": decision.stop, "round": state["round"] + 1}


def _spending(deps: Deps) -> Spending:
    now = deps.ledger.snapshot()
    costs = {tool: row.cost for tool, row in now.by_tool.items() if tool == "core" or tool in deps.tools}
    total = now.total
    return Spending(cpu_s=total.cpu_s, wall_s=total.wall_s, tokens=total.tokens, cost_by_tool=costs)


def _decide(deps: Deps, best: Best | None, features: Features, *, more: bool) -> Decision:
    confidence = best.confidence if best else 0.0
    if deps.control.reason is not None:
        return Decision(stop=True, reason=deps.control.reason, confidence=confidence, why=deps.control.why)
    decision = deps.policy.decide(features)
    if decision.stop or more:
        return decision
    if best is None:
        return Decision(stop=True, reason="hopeless", why="every branch ended without an answer")
    why = f"all {features.samples} samples are taken; {decision.why}"
    return Decision(stop=True, reason="exhausted", confidence=confidence, why=why)
