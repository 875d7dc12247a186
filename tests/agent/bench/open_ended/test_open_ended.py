"""The sixty open-ended tasks: their data, their grading by reference answers, and the pages that they stand on."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import httpx
import pytest

from ponder.bench.open_ended.pages import page_text
from ponder.bench.open_ended.tasks import OpenTask, serve_pages, tasks
from ponder.bench.problems import Problem
from ponder.bench.rooms import GradingRooms
from ponder.bench.suites.registry import open_suite
from ponder.errors import UnknownName, UsageError
from ponder.policies.hosts import HostRules
from ponder.records import Browse, Limits
from ponder.sandboxes.groups import group_factory
from ponder.tools.browser.tool import BrowserTool

ANSWERS = tomllib.loads(Path(__file__).with_name("open_ended_answers.toml").read_text("utf-8"))
URL = "http://127.0.0.1:4711"
WEB = httpx.Client(verify=False)  # one for all: loading certificates, which no page here has, takes longest
TASKS = {task.id: task for task in tasks(URL)}


def failed(task: OpenTask, answer: str) -> list[str]:
    pairs = zip(task.constraints, task.score(answer), strict=True)
    return [repr(constraint) for constraint, met in pairs if not met]


def test_there_are_sixty_tasks_twelve_of_each_family() -> None:
    families = Counter(task.family for task in TASKS.values())
    assert families == dict.fromkeys(("explain", "plan", "compare", "write", "research"), 12)
    assert len({task.task.prompt for task in TASKS.values()}) == 60
    assert list(TASKS)[:2] == ["open/explain/01", "open/explain/02"]


def test_every_task_has_enough_constraints_to_show_degrees() -> None:
    assert min(len(task.constraints) for task in TASKS.values()) >= 5


def test_no_constraint_is_in_what_a_search_sees() -> None:
    for name, task in TASKS.items():
        assert task.task.success is None
        assert task.task.context == ()
        seen = task.task.model_dump(exclude_defaults=True)
        assert set(seen) <= {"id", "prompt", "urls"}
        assert seen["id"] == name


def test_research_tasks_name_their_pages_and_no_other_task_does() -> None:
    for task in TASKS.values():
        assert bool(task.task.urls) == (task.family == "research")
        assert all(url.startswith(f"{URL}/") and url.endswith(".html") for url in task.task.urls)
    assert any(len(task.task.urls) > 1 for task in TASKS.values())


def test_every_task_has_reference_answers_and_there_are_no_others() -> None:
    assert sorted(ANSWERS) == sorted(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_good_answer_meets_all_constraints(name: str) -> None:
    assert failed(TASKS[name], ANSWERS[name]["good"]) == []
    assert TASKS[name].share(ANSWERS[name]["good"]) == 1.0


@pytest.mark.parametrize("name", TASKS)
def test_a_poor_answer_fails_some(name: str) -> None:
    assert failed(TASKS[name], ANSWERS[name]["poor"])
    assert TASKS[name].share(ANSWERS[name]["poor"]) < 1.0


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_to_another_task_is_no_answer(name: str) -> None:
    """Also a good text is worth less where it does not belong; those of its own family come nearest."""
    own = {other for other, task in TASKS.items() if task.family == TASKS[name].family} - {name}
    others = [ANSWERS[other]["good"] for other in own]
    assert max(TASKS[name].share(answer) for answer in others) < 1.0


@pytest.mark.parametrize("name", TASKS)
def test_an_empty_answer_meets_nothing(name: str) -> None:
    assert not any(TASKS[name].score(" \n```\n```\n- "))
    assert TASKS[name].share("") == 0.0


@pytest.mark.parametrize("answer", ["Sure, I can help you with that.", "Yes.", "I don't know.", "Here is my answer!"])
def test_a_platitude_is_worth_next_to_nothing(answer: str) -> None:
    """Else an answer that only does nothing wrong (no forbidden word, not too long) would get a third of the points."""
    shares = [task.share(answer) for task in TASKS.values()]
    assert sum(shares) / len(shares) < 0.03


def test_reference_answers_lie_far_apart() -> None:
    poor = [TASKS[name].share(answer["poor"]) for name, answer in ANSWERS.items()]
    names = list(TASKS)  # other tasks of its family, and of others
    others = [
        task.share(ANSWERS[names[(place + step) % len(names)]]["good"])
        for place, task in enumerate(TASKS.values())
        for step in (1, 2, 3, 13, 25, 37, 49)
    ]
    assert sum(poor) / len(poor) < 0.25
    assert sum(others) / len(others) < 0.15


@pytest.mark.parametrize("name", TASKS)
def test_to_give_the_prompt_back_is_no_good_answer(name: str) -> None:
    assert TASKS[name].share(TASKS[name].task.prompt) < 1.0


@pytest.mark.parametrize("name", [name for name in TASKS if "/research/" in name])
def test_research_pages_are_served_and_short_enough_for_one_part(name: str) -> None:
    with serve_pages() as url:
        [task] = [task for task in tasks(url) if task.id == name]
        for page in task.task.urls:
            reply = WEB.get(page)
            assert reply.status_code == 200
            assert reply.headers["content-type"].startswith("text/html")
            assert 100 < len(page_text(page.rpartition("/")[2])) < 4000
            assert not HostRules().check_url(page).allowed, "loopback, so that the task's urls have to permit it"
            assert HostRules(permitted=frozenset([url.removeprefix("http://")])).check_url(page).allowed


def test_the_server_has_the_pages_and_nothing_else() -> None:
    with serve_pages() as url:
        for path in ("", "/", "/none.html", "/__init__.py", "/../tasks.toml", "/%2e%2e/tasks.toml"):
            assert WEB.get(url + path).status_code == 404
    with pytest.raises(httpx.ConnectError):
        WEB.get(f"{url}/ferry.html")


def test_a_fixed_port_keeps_the_urls_the_same() -> None:
    with serve_pages() as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), serve_pages(port):
            pass
    with serve_pages(port) as again:
        assert again == url


FACTS = {
    "open/research/01": ["17:25", "14.60", "3.50"],
    "open/research/02": ["Irma Vostrel", "1931", "538"],
    "open/research/03": ["300 g marrow beans", "1.5 l barley stock"],
    "open/research/04": ["3 min 50 s", "4 min 35 s", "412 g", "368 g"],
    "open/research/05": ["Ness Point", "Luring", "The Patient Lamp"],
    "open/research/06": ["three minutes", "14 March"],
    "open/research/07": ["41.2", "43.9"],
    "open/research/08": ["Dogs may be brought", "one guest"],
    "open/research/09": ["changes places with Tomas Irle", "The Price of Salt"],
    "open/research/10": ["15:30", "closed for good"],
    "open/research/11": ["14 mm", "reed pollen", "street lamps"],
    "open/research/12": ["Veltro Sailmakers", "32 hours", "3,140", "9 May 2033"],
}


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    with open_suite("open_ended") as suite:
        return {problem.id: problem for problem in suite.problems(suite.size)}


def test_the_suite_takes_one_task_of_each_family_in_turn() -> None:
    with open_suite("open_ended", seed=5) as suite:
        names = [problem.id for problem in suite.problems(60)]
        assert [problem.id for problem in suite.problems(7)] == names[:7]
    assert sorted(names) == sorted(TASKS)
    for turn in range(12):
        assert len({name.split("/")[1] for name in names[5 * turn : 5 * turn + 5]}) == 5
    with open_suite("open_ended", seed=6) as suite:
        assert [problem.id for problem in suite.problems(60)] != names
    with open_suite("open_ended", families=["plan", "research", "plan"]) as suite:
        assert suite.size == 24


def test_what_is_not_there() -> None:
    with pytest.raises(UnknownName, match="research"):
        open_suite("open_ended", families=["luck"])
    with pytest.raises(UsageError, match="brings its tasks itself"):
        open_suite("open_ended", data=Path("rows.jsonl"))


def test_the_pages_are_there_as_long_as_the_suite_and_only_they_are_permitted() -> None:
    with open_suite("open_ended", families=["research"]) as suite:
        urls = [url for problem in suite.problems(12) for url in problem.task.urls]
        assert all(WEB.get(url).status_code == 200 for url in urls)
        assert all(suite.hosts.check_url(url).allowed for url in urls)
        port = int(urls[0].split(":")[2].split("/")[0])
        assert not suite.hosts.check_url(f"http://127.0.0.1:{port - 1}/ferry.html").allowed
        assert "browser" in suite.tools
    with pytest.raises(httpx.ConnectError):
        WEB.get(urls[0])


def test_nothing_that_identifies_a_run_holds_the_port() -> None:
    with open_suite("open_ended") as first, open_suite("open_ended") as second:
        one, other = first.problems(60), second.problems(60)
        assert [problem.task.urls for problem in one] != [problem.task.urls for problem in other]
        assert [(problem.id, problem.plain) for problem in one] == [(problem.id, problem.plain) for problem in other]
        assert first.manifest == second.manifest


@pytest.mark.parametrize("name", TASKS)
def test_an_answer_is_graded_by_the_share_of_constraints_and_right_when_all_are_met(
    name: str, problems: dict[str, Problem]
) -> None:
    with GradingRooms() as rooms:
        good, poor = (rooms.grade(problems[name], ANSWERS[name][which]) for which in ("good", "poor"))
        assert (good.right, good.score, good.outcome) == (True, 1.0, "right")
        assert (poor.right, poor.score) == (False, TASKS[name].share(ANSWERS[name]["poor"]))
        assert rooms.grade(problems[name], " \n").outcome == "no answer"


def test_the_baseline_which_has_no_browser_gets_the_pages_text(problems: dict[str, Problem]) -> None:
    for name, facts in FACTS.items():
        plain = " ".join(problems[name].plain.replace(" | ", " ").split())
        assert [fact for fact in facts if fact not in plain] == []
        assert plain.endswith(TASKS[name].task.prompt)
    assert problems["open/write/01"].plain == TASKS["open/write/01"].task.prompt
    assert "4. Dogs may be brought" in problems["open/research/08"].plain, "the task asks for the rules' numbers"


def test_a_problem_shows_no_constraint_when_it_is_printed(problems: dict[str, Problem]) -> None:
    for problem in problems.values():
        assert "kind=" not in f"{problem} {problem!r} {problem.grader!r}".replace("reply_kind=", "")


@pytest.mark.real
async def test_the_browser_tool_shows_every_fact_that_an_answer_needs() -> None:
    with serve_pages() as url:
        rules = HostRules(permitted=frozenset([url.removeprefix("http://")]))
        tool = BrowserTool(group_factory(), rules=rules)
        try:
            for task in tasks(url)[-12:]:
                seen = ""
                for page in task.task.urls:
                    act = Browse(op="goto", url=page)
                    shown = await tool.run(act, session=task.id, limits=Limits(), on_usage=lambda _: None)
                    assert shown.ok, shown.text
                    assert 'Read "more"' not in shown.text
                    seen += " ".join(shown.text.split()) + " "
                assert [fact for fact in FACTS[task.id] if fact not in seen] == [], seen
        finally:
            await tool.close()
