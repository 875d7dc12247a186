"""The learned stop: gain against cost, risk, and what it does not judge."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from ponder.agent import Agent
from ponder.errors import UsageError
from ponder.parts import make_policy, make_strategy, model_of
from ponder.policies.checks_and_votes import ChecksAndVotes
from ponder.policies.full_depth import FullDepth
from ponder.policies.learned import HEADS, Input, LearnedStop, Model, Weights, inputs, load
from ponder.policies.risk import Certificate
from ponder.records import Features

SURE = Input(name="confidence", mean=0.5, scale=0.5, low=0.0, high=1.0)
MODEL = Model(
    kind="answers", inputs=(SURE,), cost_left=0.5, weights={head: {} for head in HEADS} | {"now": {"confidence": 2.0}},
    bias={"now": 0.0, "found_next": 0.0, "found_end": 2.0},
)  # fmt: skip
CERTIFIED = Certificate(risk=0.05, strategy="auto", samples=16, threshold=0.2, tasks=80, losses=0)
WEIGHTS = Weights(
    features=5, core="c", records=("r",), models=(MODEL,), careful=(MODEL,),
    certificates=(CERTIFIED, CERTIFIED.model_copy(update={"risk": 0.02, "threshold": None})),
)  # fmt: skip


def features(**given: Any) -> Features:
    base: dict[str, Any] = {
        "rounds": 1, "samples": 4, "answered": 4, "pending": 0, "max_samples": 16, "votes": (4.0,), "answer_words": 1.0,
        "checks": 0, "best_passed": None, "failed_steps": 0, "cpu_spent_s": 8.0, "wall_spent_s": 1.0, "counts": (2, 2),
        "tokens_spent": 10, "kind": "answers", "cost_by_tool": {"core": 40.0}, "next_steps": 4,
        "next_cost_by_tool": {"core": 40.0},
        "confidence": 0.5,
    }  # fmt: skip
    return Features(**{**base, **given})


def test_it_goes_on_while_a_round_or_all_of_them_pay() -> None:
    """Right now 0.5; a round finds half of what is wrong, all of them 0.881 of it; 40 for the one, 60 for all."""
    at = features()
    assert MODEL.cost_of_rest(at) == 60.0
    assert not LearnedStop(WEIGHTS, value=161.0).decide(at).stop  # 161 x 0.25 = 40.3
    assert not LearnedStop(WEIGHTS, value=137.0).decide(at).stop  # 137 x 0.440 = 60.3
    stopped = LearnedStop(WEIGHTS, value=136.0).decide(at)
    assert (stopped.stop, stopped.reason) == (True, "confident")
    assert "right now 0.50; one more round +0.250 for 40, all that are left +0.440 for 60" in stopped.why


def test_of_a_text_it_names_the_score() -> None:
    of_texts = WEIGHTS.model_copy(update={"models": (MODEL.model_copy(update={"kind": "texts"}),)})
    assert LearnedStop(of_texts).decide(features(kind="texts")).why.startswith("expected score now 0.50; one more")


def test_dearer_steps_stop_it_earlier() -> None:
    policy = LearnedStop(WEIGHTS, value=200.0)
    assert not policy.decide(features()).stop
    dearer = {"core": 40.0, "python": 80.0}
    assert policy.decide(features(cost_by_tool=dearer, next_cost_by_tool=dearer)).stop


def test_visible_checks_of_an_answer_decide_by_themselves() -> None:
    """No record has any (tests of programs are another matter), so that nothing was learned about them."""
    policy = LearnedStop(WEIGHTS, value=10_000.0)
    assert policy.decide(features(checks=1, best_passed=1.0)).stop
    assert not policy.decide(features(checks=1, best_passed=0.0)).stop
    careful = LearnedStop(WEIGHTS, risk=0.05).decide(features(checks=1, best_passed=1.0, confidence=1.0))
    assert (careful.stop, "no risk is certified" in careful.why) == (False, True)


def test_it_says_why_it_gives_up() -> None:
    poor = MODEL.model_copy(update={"bias": dict.fromkeys(HEADS, -4.0), "weights": {head: {} for head in HEADS}})
    hopeless = LearnedStop(WEIGHTS.model_copy(update={"models": (poor,)})).decide(features())
    assert (hopeless.stop, hopeless.reason) == (True, "hopeless")
    unsure = LearnedStop(WEIGHTS, value=1.0).decide(features(confidence=0.0))
    assert (unsure.stop, unsure.reason) == (True, "not_worth_it")


def test_a_risk_takes_its_threshold_and_leaves_the_value_aside() -> None:
    policy = LearnedStop(WEIGHTS, value=1.0, risk=0.05)
    assert not policy.decide(features()).stop  # lost 0.440
    agreed = policy.decide(features(confidence=1.0))  # lost 0.105
    assert agreed.stop
    assert "0 of 80 calibration tasks were lost" in agreed.why


def test_what_training_never_saw_is_said_and_not_judged() -> None:
    narrow = MODEL.model_copy(update={"inputs": (SURE.model_copy(update={"low": 0.7}),)})
    policy = LearnedStop(WEIGHTS.model_copy(update={"models": (narrow,)}), value=1e-6)
    decision = policy.decide(features())
    assert (decision.stop, decision.why) == (False, "outside of what training saw: confidence 0.5")
    assert policy.decide(features(confidence=1.0)).stop
    assert policy.decide(features(kind="texts")).why == "nothing was learned about texts"
    seen = [policy.judges(one) for one in (features(), features(confidence=1.0), features(kind="texts"))]
    assert seen == [False, True, False]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"value": 0.0}, "positive"), ({"value": float("nan")}, "positive"), ({"risk": 0.0}, "between 0 and 1"),
        ({"risk": 5.0}, "5% is 0.05"), ({"risk": 0.01}, "no risk of 1.0% was calibrated"),
        ({"risk": 0.02}, "cannot be certified with this record: 80 tasks, 149 are needed"),
        ({"risk": 0.05, "samples": 6}, "no risk was calibrated for searches of auto that take 6 samples at most"),
        ({"risk": 0.05, "strategy": "mcts"}, "there are for --strategy auto -n 16"),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_line(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        LearnedStop(WEIGHTS, **given)


def test_weights_of_other_features_are_refused() -> None:
    with pytest.raises(UsageError, match="for features of version 3, and these are 5"):
        LearnedStop(WEIGHTS.model_copy(update={"features": 3}))


def test_a_larger_risk_takes_the_nearest_that_is_certified() -> None:
    assert WEIGHTS.certified(0.07, "auto", 16) == CERTIFIED


def test_weights_are_read_by_core_and_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(WEIGHTS.model_dump_json())
    assert load(tmp_path / "c.json", "c") == WEIGHTS
    assert load(tmp_path / "another.json", "another") is None
    with pytest.raises(UsageError, match=r"c\.json is a stop policy for c, not for d"):
        load(tmp_path / "c.json", "d")
    (tmp_path / "b.json").write_text('{"version": 1, "models": 3}')
    with pytest.raises(UsageError, match=r"/b\.json is no stop policy.*without the file"):
        load(tmp_path / "b.json", "b")


@pytest.mark.parametrize(
    ("path", "broken", "wrong"),
    [
        (["models", 0, "bias", "found_end"], None, "the head found_end is missing"),
        (["models", 0, "bias", "now"], "NaN", "finite number"),
        (["models", 0, "inputs", 0, "name"], "luck", "luck is no input of this version"),
        (["models", 0, "weights", "now"], {"lead": 1.0}, "now weighs lead, which is none of its inputs"),
        (["models", 0, "inputs", 0, "high"], "Infinity", "finite number"),
        (["certificates", 0, "threshold"], "NaN", "finite number"),
        (["certificates", 0, "threshold"], 2.0, "less than or equal to 1"),
    ],
)
def test_weights_that_could_not_be_used_are_refused_where_they_are_read(
    path: list[Any], broken: Any, wrong: str, tmp_path: Path
) -> None:
    whole = WEIGHTS.model_dump(mode="json")
    part = whole
    for step in path[:-1]:
        part = part[step]
    if broken is None:
        del part[path[-1]]
    else:
        part[path[-1]] = broken
    text = json.dumps(whole).replace('"NaN"', "NaN").replace('"Infinity"', "Infinity")
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UsageError, match=wrong):
        load(tmp_path / "c.json", "c")


def test_a_decision_takes_less_than_two_milliseconds() -> None:
    every = tuple(Input(name=name, mean=0.0, scale=1.0, low=-99.0, high=99.0) for name in inputs(features()))
    weights = {head: {one.name: 0.1 for one in every} for head in HEADS}
    policy = LearnedStop(
        WEIGHTS.model_copy(update={"models": (MODEL.model_copy(update={"inputs": every, "weights": weights}),)})
    )
    began = time.process_time()
    for _ in range(200):
        policy.decide(features())
    assert (time.process_time() - began) / 200 < 0.002


def test_an_agent_takes_what_was_learned_for_its_core(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "c.json").write_text(WEIGHTS.model_dump_json())
    (tmp_path / "policies" / "other.json").write_text("broken: of another core")
    tools, searches = ["python"], make_strategy(["python"], "auto", 16)
    policy = make_policy("c", tmp_path, searches, tools, value=5.0)
    assert isinstance(policy, LearnedStop)
    assert policy.value == 5.0
    assert isinstance(make_policy("d", tmp_path, searches, tools), ChecksAndVotes)
    assert isinstance(make_policy("c", tmp_path, searches, tools, risk=0.05), LearnedStop)
    for other in ("best-of-n", "auto+tests"):
        with pytest.raises(UsageError, match=re.escape(f"no risk was calibrated for searches of {other}")):
            make_policy("c", tmp_path, make_strategy(tools, other, 16), tools, risk=0.05)
    with pytest.raises(UsageError, match="searches that run no code"):
        make_policy("c", tmp_path, searches, ["browser"], risk=0.05)
    for given, wrong in (({"risk": 0.05}, "a risk needs"), ({"value": 5.0}, "a value needs")):
        with pytest.raises(UsageError, match=f"{wrong} a stop policy that was trained for d"):
            make_policy("d", tmp_path, searches, tools, **given)
    with pytest.raises(UsageError, match="belong to the default policy"):
        Agent(policy=FullDepth(), risk=0.05)


def test_a_cassette_is_known_by_the_core_that_it_recorded(tmp_path: Path) -> None:
    tape = tmp_path / "run.jsonl"
    tape.write_text('{"cassette": 2, "manifest": {"core": "llama_cpp", "model": "qwen2.5-coder-1.5b"}}\n')
    assert model_of(f"cassette:{tape}") == "qwen2.5-coder-1.5b"
    assert model_of("qwen2.5-coder-0.5b") == "qwen2.5-coder-0.5b"
