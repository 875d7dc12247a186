"""Continuous batching: prompts are computed in chunks, branches decode together, each leaves when it ends.

A prompt is computed once for all its samples. What it shares with other prompts (stored, or waiting beside it) is
computed once too and stored as a segment; a short end of its own goes into the branch's tail. When a branch ends, its
tail is stored as well: the next step of the same tree node starts from there.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ponder.core.hf.attention import Abandoned, Prefill, SharedAttention
from ponder.core.hf.branches import Birth, Branch, Job, cpu_used
from ponder.core.hf.grammars import Grammars
from ponder.core.hf.prefix_cache import PrefixCache, common_length, length_of
from ponder.core.hf.sampling import Choice, choose, likeliest
from ponder.core.hf.text import Vocabulary
from ponder.core.stragglers import is_hopeless
from ponder.records import SamplingParams

_OWN_TOKENS = 128
"""A longer end of a prompt becomes a segment: tails are padded to the longest of them."""
_SHORT_TOKENS = 16
"""A shorter common part is not worth a segment: each one costs a matrix product per layer and step."""


class Decoder:
    """Runs jobs on a model, a step at a time.

    Args:
        model: a causal language model of transformers, set up with `attention`.
        on_end: called with each branch as it ends.
        n_ctx: tokens that a text may have, the prompt included.
        n_parallel: branches decoded together.
        chunk: prompt tokens computed at once.
    """

    def __init__(
        self,
        model: Any,
        attention: SharedAttention,
        grammars: Grammars,
        vocabulary: Vocabulary,
        cache: PrefixCache,
        on_end: Callable[[Branch, str | None], None],
        *,
        n_ctx: int,
        n_parallel: int = 16,
        chunk: int = 256,
    ) -> None:
        self.n_ctx, self.cache = n_ctx, cache
        self._model, self._attention, self._grammars, self._vocabulary = model, attention, grammars, vocabulary
        self._on_end, self._n_parallel, self._chunk = on_end, n_parallel, chunk
        self._waiting: deque[Job] = deque()
        self._births: deque[Birth] = deque()
        self._rows: list[Branch] = []  # in the order of the attention's tails
        self._clock = cpu_used()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._births or self._rows)

    def wake(self) -> None:
        """Start the clock: what was used while nobody waited is nobody's."""
        self._clock = cpu_used()

    def submit(
        self, tokens: Sequence[int], n: int, params: SamplingParams, wanted: Callable[[], bool], salt: int = 0
    ) -> Job:
        """Queue `n` samples of a prompt.

        Args:
            salt: told apart by it, equal prompts with the same seed sample different texts.

        Raises:
            GrammarError: the grammar cannot be used.
            ValueError: the prompt is too long for the context.
        """
        if len(tokens) >= self.n_ctx:
            raise ValueError(f"the prompt has {len(tokens)} tokens and the context holds {self.n_ctx}")
        job = Job(tokens, params, wanted)
        for index in range(n):
            matcher = self._grammars.start(params.grammar) if params.grammar else None
            chance = random.Random() if params.seed is None else random.Random(f"{params.seed}/{salt}/{index}")
            job.branches.append(Branch(job, index, chance, self._vocabulary.text(tokens, params.stop), matcher))
        self._waiting.append(job)
        return job

    def step(self) -> None:
        """Compute one chunk of the first waiting prompt, and one token of every branch."""
        self._drop_unwanted()
        try:
            if self._waiting and len(self._rows) + len(self._births) < self._n_parallel:
                self._compute_prompt(self._waiting[0])
            while self._births and len(self._rows) < self._n_parallel:
                self._give_birth()
            if self._rows:
                self._decode()
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            self._give_up("out of memory: ask for fewer branches, a shorter prompt or a smaller cache")

    # --- prompts --------------------------------------------------------------------------------------------

    def _compute_prompt(self, job: Job) -> None:
        if job.prefill is None:
            self._begin(job)
        prefill = job.prefill
        assert prefill is not None
        count = min(self._chunk, len(prefill.tokens) - prefill.done)
        self._attention.plan_prefill(prefill, count, self._model.device, job.wanted)
        try:
            start = length_of(prefill.path) + prefill.done
            logits = self._forward([prefill.tokens[prefill.done : prefill.done + count]], [start])
        except Abandoned:
            self._charge(job.branches)
            return
        prefill.done += count
        for branch in job.branches:
            branch.tokens_in = length_of(prefill.path) + prefill.done
        job.branches[0].tokens_cached = length_of(prefill.path)
        for branch in job.branches[1:]:
            branch.tokens_cached = branch.tokens_in
        if prefill.done == len(prefill.tokens):
            self._finish_prompt(job, prefill, logits[0])
            self._waiting.popleft()  # not before: where memory runs out in it, the job is still to be given up
        self._charge(job.branches)

    def _begin(self, job: Job) -> None:
        total = len(job.tokens)
        path = self.cache.find(job.tokens, total - 1)  # the last token's logits are needed
        start = length_of(path)
        beside = [common_length(job.tokens, other.tokens) for other in self._waiting if other is not job]
        until = total if len(job.branches) > 1 else max([0, *beside])
        if until - start < _SHORT_TOKENS:
            until = start
        job.shared_until = total if total - until > _OWN_TOKENS else until
        self.cache.hold(path)
        job.prefill = Prefill(path, job.tokens[start:])

    def _finish_prompt(self, job: Job, prefill: Prefill, logits: Tensor) -> None:
        start, path = length_of(prefill.path), prefill.path
        split = job.shared_until - start
        if split > 0:
            whole = split == len(prefill.tokens)
            kv = prefill.kv if whole else prefill.kv.part(0, split)
            path = self.cache.add(path, prefill.tokens[:split], kv)
        tail = prefill.kv.part(max(0, split), len(prefill.tokens))
        for branch in job.branches:
            branch.path = path
            self.cache.hold(path)
            self._births.append(Birth(branch, tail, logits))
        self.cache.release(prefill.path)
        job.prefill = None
        self._shrink()

    def _give_birth(self) -> None:
        """Choose the first token of the branches that have a place, and let those that go on join the batch."""
        births = list(islice(self._births, self._n_parallel - len(self._rows)))
        branches = [birth.branch for birth in births]
        self._take(branches, torch.stack([birth.logits for birth in births]))
        self._charge(branches)
        for birth in births:  # each is among the births until it is in the batch or over: memory may run out at any
            if birth.branch.finish is None:
                self._attention.tails.add(birth.tail)
                self._rows.append(birth.branch)
            self._births.popleft()
            if birth.branch.finish is not None:
                self._end(birth.branch)

    # --- branches -------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        rows, tails = self._rows, self._attention.tails
        wanted = [branch.job.wanted for branch in rows]
        self._attention.plan_decode([b.path for b in rows], self._model.device, lambda: any(ask() for ask in wanted))
        starts = [length_of(branch.path) + length for branch, length in zip(rows, tails.lengths, strict=True)]
        try:
            logits = self._forward([[branch.tokens[-1]] for branch in rows], starts)
        except Abandoned:
            self._charge(rows)
            return
        tails.lengths = [length + 1 for length in tails.lengths]
        self._take(rows, logits)
        self._charge(rows)
        for row in reversed(range(len(rows))):
            if self._rows[row].finish is not None:
                self._leave(row)

    def _forward(self, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
        """Return the logits after each row's last token, in float32 (rows, vocabulary)."""
        device = self._model.device
        ids = torch.tensor(tokens, device=device)
        places = torch.tensor(starts, device=device)[:, None] + torch.arange(ids.shape[1], device=device)
        out = self._model(input_ids=ids, position_ids=places, use_cache=False, logits_to_keep=1)
        logits: Tensor = out.logits[:, -1, : self._vocabulary.size].float()  # models are often wider: padding
        return logits

    def _take(self, branches: Sequence[Branch], logits: Tensor) -> None:
        """Choose a token for each branch, and note what it brings."""
        mask = self._grammars.allowed([branch.matcher for branch in branches])
        allowed = None if mask is None else torch.from_numpy(mask).to(logits.device)
        choices = [Choice(b.job.params.temperature, b.job.params.top_p, b.random.random()) for b in branches]
        chosen = choose(logits, choices, allowed)
        wanted = max(branch.job.params.alternatives for branch in branches)
        others = likeliest(logits, wanted) if wanted else []
        for row, (branch, token) in enumerate(zip(branches, chosen.tokens, strict=True)):
            branch.tokens.append(token)
            branch.logprobs.append(chosen.logprobs[row])
            if count := branch.job.params.alternatives:
                ids, logprobs = others[row]
                named = zip(map(self._vocabulary.piece, ids[:count]), logprobs[:count], strict=True)
                branch.alternatives.append(dict(reversed(list(named))))  # of tokens with one text the likeliest stays
            branch.finish = self._finish(branch, token)

    def _finish(self, branch: Branch, token: int) -> str | None:
        if token in self._vocabulary.eos:
            return "stop"
        if branch.matcher is not None:
            branch.matcher.consume_token(token)
        if branch.text.push(token) or (branch.matcher is not None and branch.matcher.is_stopped()):
            return "stop"
        job, written = branch.job, len(branch.tokens)
        ended = [len(sibling.tokens) for sibling in job.branches if sibling.finish == "stop"]
        full = len(job.tokens) + written >= self.n_ctx or written >= job.params.max_tokens
        bad = is_hopeless(written, lambda: branch.text.value, ended, len(job.branches), job.params)
        return "length" if full or bad else None

    def _leave(self, row: int) -> None:
        """Take a branch out of the batch; what it computed is kept for the next step of its tree node."""
        branch, tails = self._rows[row], self._attention.tails
        end = length_of(branch.path) + tails.lengths[row]
        computed = [*branch.job.tokens, *branch.tokens][:end]
        if branch.finish != "cancelled" and length_of(self.cache.find(computed, end)) < end:
            self.cache.add(branch.path, computed[length_of(branch.path) :], tails.take(row))
        tails.remove(row)
        self._rows[row] = self._rows[-1]
        self._rows.pop()
        self._shrink()
        self._end(branch)

    def _end(self, branch: Branch, error: str | None = None) -> None:
        self.cache.release(branch.path)
        self._on_end(branch, error)

    # --- what goes wrong, and what it costs -----------------------------------------------------------------

    def _drop_unwanted(self) -> None:
        for job in [job for job in self._waiting if not job.wanted()]:
            self._drop_job(job, "cancelled", None)
        for birth in [birth for birth in self._births if not birth.branch.job.wanted()]:
            self._births.remove(birth)
            birth.branch.finish = "cancelled"
            self._end(birth.branch)
        for row in reversed(range(len(self._rows))):
            if not self._rows[row].job.wanted():
                self._rows[row].finish = "cancelled"
                self._leave(row)

    def _drop_job(self, job: Job, finish: str, error: str | None) -> None:
        self._waiting.remove(job)
        if job.prefill is not None:
            self.cache.release(job.prefill.path)
            job.prefill = None
        for branch in job.branches:
            branch.finish = finish
            self._end(branch, error)

    def _give_up(self, why: str) -> None:
        """End everything that is in memory with an error, and drop what is kept: later requests find room again."""
        if self._waiting and self._waiting[0].prefill is not None:
            self._drop_job(self._waiting[0], "error", why)
        while self._births:
            branch = self._births.popleft().branch
            branch.finish = "error"
            self._end(branch, why)
        while self._rows:
            branch = self._rows.pop()
            branch.finish = "error"
            self._end(branch, why)
        self._attention.tails = type(self._attention.tails)()
        self.cache.clear()

    def _shrink(self) -> None:
        self.cache.shrink(self._attention.tails.bytes)

    def _charge(self, branches: Sequence[Branch]) -> None:
        """Divide what this process used since the last time among those who made it work."""
        now = cpu_used()
        for branch in branches:
            branch.user_s += (now[0] - self._clock[0]) / len(branches)
            branch.system_s += (now[1] - self._clock[1]) / len(branches)
        self._clock = now


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in words or "out of memory" in words
