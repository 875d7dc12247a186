"""The decoder of the transformers core on a tiny random model: the same numbers as the model's own, at less cost."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ponder.records import Message, Prompt, SamplingParams

torch = pytest.importorskip("torch")
pytest.importorskip("llguidance")

from ponder.core.hf import loading  # noqa: E402
from ponder.core.hf.prefix_cache import KeyValues, PrefixCache, length_of  # noqa: E402
from ponder.core.hf.sampling import Choice, choose  # noqa: E402

pytestmark = pytest.mark.real  # torch takes seconds to import

SETTINGS = {"device": "cpu", "dtype": "float32", "threads": 1, "n_ctx": 1024, "n_parallel": 16, "n_batch": 32}
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


class Bench:
    """A decoder whose branches are run to their ends, with every forward pass noted."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.ended: list[tuple[Any, str | None]] = []
        own = {**SETTINGS, "cache_mib": 64, "parameters": 1, "model": str(folder), **settings}
        loaded = loading.load(own, lambda branch, error: self.ended.append((branch, error)))
        self.decoder, self.vocabulary = loaded.decoder, loaded.vocabulary
        self.model = self.decoder._model
        self.passes: list[tuple[int, int]] = []  # rows, tokens of each
        self.before_pass: Callable[[], None] = lambda: None
        self.model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self.before_pass()
        self.passes.append(tuple(kwargs["input_ids"].shape))

    def run(self, jobs: Sequence[tuple[list[int], int, SamplingParams]]) -> list[Any]:
        """Run jobs together; return their branches in order."""
        made = [self.decoder.submit(*job, lambda: True, salt) for salt, job in enumerate(jobs)]
        while not self.decoder.idle:
            self.decoder.step()
        return [branch for job in made for branch in job.branches]

    def reference(self, tokens: list[int], more: Sequence[int]) -> list[float]:
        """Return the log-probabilities of `more` after `tokens`, by the model's own attention in one pass."""
        self.model.set_attn_implementation("eager")
        passes = list(self.passes)
        logits = self.model(input_ids=torch.tensor([[*tokens, *more]]), use_cache=False).logits[0].float()
        self.passes = passes
        self.model.set_attn_implementation(loading.NAME)
        rows = torch.log_softmax(logits[:, : self.vocabulary.size], -1)[len(tokens) - 1 : -1]
        return [float(rows[i, token]) for i, token in enumerate(more)]

    def same(self, branch: Any) -> None:
        """Assert that a branch is what the model alone says."""
        expected = self.reference(list(branch.job.tokens), branch.tokens)
        assert branch.logprobs == pytest.approx(expected, abs=2e-3)


@pytest.fixture
def bench(tiny_model: Path) -> Bench:
    return Bench(tiny_model)


def words(length: int, seed: int = 0) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(4, 250) for _ in range(length)]


def test_samples_of_one_prompt_share_one_prefill_and_are_what_the_model_says(bench: Bench) -> None:
    prompt = words(100)
    branches = bench.run([(prompt, 5, SamplingParams(max_tokens=20, seed=1))])
    for branch in branches:
        bench.same(branch)
    assert len({tuple(branch.tokens) for branch in branches}) == 5
    assert [rows * tokens for rows, tokens in bench.passes if tokens > 1] == [32, 32, 32, 4]
    assert [branch.tokens_cached for branch in branches] == [0, 100, 100, 100, 100]


def test_prompts_with_a_common_beginning_compute_it_once(bench: Bench) -> None:
    common = words(200)
    prompts = [common + words(20 + i, seed=i + 1) for i in range(6)]
    branches = bench.run([(prompt, 1, GREEDY) for prompt in prompts])
    for branch in branches:
        bench.same(branch)
    computed = sum(len(branch.job.tokens) - branch.tokens_cached for branch in branches)
    assert computed == 200 + sum(20 + i for i in range(6))
    assert sum(tokens for rows, tokens in bench.passes if rows == 1 and tokens > 1) <= computed
    assert max(rows for rows, _ in bench.passes) == 6


def test_long_ends_of_their_own_and_different_prompts_in_one_batch(bench: Bench) -> None:
    common = words(60)
    jobs = [(common + words(150, 1), 2, GREEDY), (common + words(140, 2), 1, GREEDY), (words(9, 3), 3, GREEDY)]
    for branch in bench.run(jobs):
        bench.same(branch)


def test_a_branch_that_ends_leaves_and_others_take_its_place(tiny_model: Path) -> None:
    bench = Bench(tiny_model, n_parallel=3)
    lengths = [2, 9, 5, 1, 7]
    jobs = [(words(30, i), 2, SamplingParams(max_tokens=n, seed=i)) for i, n in enumerate(lengths)]
    branches = bench.run(jobs)
    assert [len(b.tokens) for b in branches if b.finish == "length"] == [
        n for b, n in zip(branches, [n for n in lengths for _ in range(2)], strict=True) if b.finish == "length"
    ]
    for branch in branches:
        bench.same(branch)
    assert max(rows for rows, tokens in bench.passes if tokens == 1) <= 3


def test_coming_back_to_an_old_node_and_going_on_from_a_branch(bench: Bench) -> None:
    first = words(300)
    (grown,) = bench.run([(first, 1, GREEDY)])
    for i in range(8):
        bench.run([(words(120, seed=i + 1), 2, GREEDY)])
    (again,) = bench.run([(first, 1, GREEDY)])
    assert again.tokens == grown.tokens
    assert again.tokens_cached == 299
    longer = [*first, *grown.tokens[:-1], *words(10, 99)]
    (child,) = bench.run([(longer, 1, GREEDY)])
    bench.same(child)
    assert child.tokens_cached == len(first) + len(grown.tokens) - 1, "what the branch wrote is not computed again"


def test_the_cache_keeps_to_its_limit_and_drops_the_oldest(tiny_model: Path) -> None:
    bench = Bench(tiny_model, cache_mib=1)  # a token of this model takes 512 bytes
    for i in range(12):
        bench.run([(words(300, seed=i), 1, GREEDY)])
        assert bench.decoder.cache.bytes <= 2**20
    (old,) = bench.run([(words(300, seed=0), 1, GREEDY)])
    (young,) = bench.run([(words(300, seed=11), 1, GREEDY)])
    assert (old.tokens_cached, young.tokens_cached) == (0, 299)


def test_seeds_repeat_and_differ(bench: Bench) -> None:
    params = SamplingParams(max_tokens=8, seed=5)
    first = [branch.tokens for branch in bench.run([(words(20), 3, params)])]
    again = [branch.tokens for branch in bench.run([(words(20), 3, params)])]
    other = [branch.tokens for branch in bench.run([(words(20), 3, SamplingParams(max_tokens=8, seed=6))])]
    assert first == again
    assert first != other


def test_a_grammar_holds_and_logprobs_are_those_before_it(bench: Bench) -> None:
    grammar = 'root ::= "yes" | "no" | "maybe " [a-c]{2,4} "!"'
    params = SamplingParams(max_tokens=30, grammar=grammar, alternatives=3, temperature=1.5, seed=3)
    free = SamplingParams(max_tokens=6, seed=3)
    branches = bench.run([(words(20), 6, params), (words(20), 2, free)])
    for branch in branches[:6]:
        assert re.fullmatch(r"yes|no|maybe [a-c]{2,4}!", branch.text.value), branch.text.value
        assert branch.finish == "stop"
        bench.same(branch)
        assert all(0 < len(others) <= 3 and max(others.values()) <= 0 for others in branch.alternatives)
        assert len(branch.alternatives) == len(branch.tokens)
    for branch in branches[6:]:
        bench.same(branch)


def test_a_grammar_that_is_none_and_a_prompt_that_is_too_long(bench: Bench) -> None:
    with pytest.raises(ValueError, match="grammar"):
        bench.run([(words(5), 1, SamplingParams(grammar="root ::= ("))])
    with pytest.raises(ValueError, match="grammar"):
        bench.run([(words(5), 1, SamplingParams(grammar="root ::= missing"))])
    with pytest.raises(ValueError, match="1024 tokens and the context holds 1024"):
        bench.run([(words(1024), 1, GREEDY)])
    (full,) = bench.run([(words(1020), 1, SamplingParams(max_tokens=50, temperature=0))])
    assert (full.finish, len(full.tokens)) == ("length", 4)


def test_stop_strings_end_the_text_before_them(bench: Bench) -> None:
    (whole,) = bench.run([(words(30), 1, SamplingParams(max_tokens=40, temperature=0))])
    text = whole.text.value
    stop = text[7:9]
    (cut,) = bench.run([(words(30), 1, SamplingParams(max_tokens=40, temperature=0, stop=("never there", stop)))])
    assert cut.text.value == text[: text.index(stop)]
    assert cut.finish == "stop"
    assert len(cut.tokens) < len(whole.tokens)


def test_what_nobody_wants_stops_at_the_next_layer(bench: Bench) -> None:
    wanted = {"long": True, "short": True}
    long = bench.decoder.submit(words(900), 2, GREEDY, lambda: wanted["long"])
    bench.decoder.step()
    bench.decoder.step()
    layers: list[int] = []
    bench.model.model.layers[1].register_forward_pre_hook(lambda *_: layers.append(1))
    bench.before_pass = lambda: wanted.update(long=False)  # as if it came while the pass runs
    bench.decoder.step()
    assert layers == [], "the pass went on past its first layer"
    bench.decoder.step()
    assert bench.decoder.idle
    ends = [(branch.finish, branch.tokens_in, branch.tokens) for branch, _ in bench.ended]
    assert ends == [("cancelled", 64, [])] * 2
    assert all(branch.user_s + branch.system_s > 0 for branch in long.branches)


def test_cancelled_branches_leave_the_others_alone(bench: Bench) -> None:
    wanted = [True]
    params = SamplingParams(max_tokens=30, seed=1)
    gone = bench.decoder.submit(words(40), 3, params, lambda: wanted[0])
    kept = bench.decoder.submit(words(50, 1), 2, params, lambda: True, 1)
    for _ in range(8):
        bench.decoder.step()
    wanted[0] = False
    while not bench.decoder.idle:
        bench.decoder.step()
    assert {branch.finish for branch in gone.branches} == {"cancelled"}
    assert all(0 < len(branch.tokens) < 10 and branch.text.value for branch in gone.branches)
    for branch in kept.branches:
        assert branch.finish in ("length", "stop")
        bench.same(branch)


def test_out_of_memory_is_an_answer_and_later_prompts_find_room(bench: Bench) -> None:
    def burst() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    bench.decoder.submit(words(40), 2, GREEDY, lambda: True)
    bench.decoder.step()
    bench.before_pass = burst
    bench.decoder.step()
    assert bench.decoder.idle
    assert [(branch.finish, "memory" in (error or "")) for branch, error in bench.ended] == [("error", True)] * 2
    bench.before_pass = lambda: None
    for branch in bench.run([(words(40), 2, GREEDY)]):
        bench.same(branch)


@pytest.mark.parametrize("where", ["a branch joins the batch", "a prompt is kept"])
def test_memory_that_runs_out_between_two_passes_leaves_no_branch_open(
    where: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory: tried to allocate 9 bytes")

    class Tails(type(bench.decoder._attention.tails)):  # type: ignore[misc]
        add = burst

    if where == "a prompt is kept":
        monkeypatch.setattr(bench.decoder.cache, "add", burst)
    else:
        bench.decoder._attention.tails = Tails()
    job = bench.decoder.submit(words(40), 3, SamplingParams(max_tokens=9, seed=1), lambda: True)
    for _ in range(9):
        bench.decoder.step()
    assert bench.decoder.idle
    assert sorted(map(id, job.branches)) == sorted(id(branch) for branch, _ in bench.ended), "each once"
    assert {branch.finish for branch in job.branches} == {"error"}


def test_the_bill_is_all_of_the_process(bench: Bench) -> None:
    bench.decoder.wake()
    before = time.process_time()
    branches = bench.run([(words(400, 5), 3, SamplingParams(max_tokens=40, seed=1)), (words(300), 2, GREEDY)])
    used = time.process_time() - before
    assert sum(branch.user_s + branch.system_s for branch in branches) == pytest.approx(used, rel=0.1, abs=0.02)


def test_top_p_and_temperature_choose_from_the_nucleus() -> None:
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    many = [choose(chances, [Choice(1.0, 0.8, i / 1000)]).tokens[0] for i in range(1000)]
    assert [many.count(token) for token in range(4)] == pytest.approx([625, 375, 0, 0], abs=2)
    every = [choose(chances, [Choice(1.0, 1.0, i / 1000)]).tokens[0] for i in range(1000)]
    assert [every.count(token) for token in range(4)] == pytest.approx([500, 300, 150, 50], abs=2)
    allowed = torch.tensor([[False, False, True, True]])
    masked = [choose(chances, [Choice(1.0, 1.0, i / 100)], allowed) for i in range(100)]
    assert {chosen.tokens[0] for chosen in masked} == {2, 3}
    assert masked[0].logprobs[0] == pytest.approx(float(chances[0, 2]), abs=1e-4), "before the grammar"
    flat = torch.zeros(1, 5000)
    assert len({choose(flat, [Choice(1.0, 0.9, i / 100)]).tokens[0] for i in range(100)}) == 100


def test_segments_are_found_continued_and_held() -> None:
    def kv(tokens: int) -> KeyValues:
        return KeyValues([torch.zeros(1, tokens, 2)], [torch.zeros(1, tokens, 2)])

    cache = PrefixCache(16 * 60)  # 16 bytes a token
    trunk = cache.add((), words(40), kv(40))
    side = cache.add(cache.find([*words(40)[:25], 1, 2], 27), [1, 2, 3], kv(3))
    assert length_of(side) == 28
    assert length_of(cache.find([*words(40)[:25], 1, 2, 9], 28)) == 27
    assert length_of(cache.find(words(40), 39)) == 39
    assert cache.find([9, 9], 1) == ()
    cache.hold(trunk)
    cache.add((), [7] * 30, kv(30))
    cache.shrink()
    assert cache.bytes <= 16 * 60 or len(cache) == 2
    assert length_of(cache.find(words(40), 40)) == 40, "a branch stands on it"


def test_the_prefill_stands_in_the_prompt_to_the_letter(bench: Bench) -> None:
    chat = (Message(role="system", content="Be brief."), Message(role="user", content="Hi"))
    start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    for prefill in ("", "ANSWER:", "```python\n", "  two ", "\n"):
        assert bench.vocabulary.render(Prompt(messages=chat, prefill=prefill)) == start + prefill


def test_half_a_character_is_no_text_yet(bench: Bench) -> None:
    ids = bench.vocabulary._tokenizer.encode("é€a", add_special_tokens=False)
    text = bench.vocabulary.text([5], ("a",))
    seen = []
    for token in ids:
        text.push(token)
        seen.append(text.value)
    assert seen[0] == ""
    assert text.value == "é€"
    assert not any("�" in value for value in seen)
