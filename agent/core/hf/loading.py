"""Loading a model of transformers into the decoder: the number format and device for this machine, and a proof.

The proof: a few tokens are computed by the model's own attention and by the shared one. An architecture for which the
two differ is refused; a wrong attention would only show as bad answers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ponder.core.hf.attention import NAME, Prefill, SharedAttention, Unsupported
from ponder.core.hf.branches import Branch
from ponder.core.hf.decoding import Decoder
from ponder.core.hf.grammars import Grammars
from ponder.core.hf.prefix_cache import PrefixCache
from ponder.core.hf.text import Vocabulary

_OTHER_BACKEND = "use a GGUF file (core llama_cpp) or a server (core openai:) for this model"
_SMALLER = "close other programs or take a smaller model"
_PROBE = "The capital of France is Paris, and that of Italy is Rome: what is seven times six?"
"""Common text: on tokens that training hardly met, rounding to bfloat16 alone moves logits by a tenth and more."""

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative difference of logits that rounding explains."""


class Failed(Exception):
    """The model cannot be used. `kind` is `model` or `core`."""

    def __init__(self, message: str, *, fix: str | None = None, kind: str = "model") -> None:
        super().__init__(message)
        self.fix, self.kind = fix, kind


class Loaded(NamedTuple):
    """What is ready to serve."""

    decoder: Decoder
    vocabulary: Vocabulary
    manifest: dict[str, str | int]


def load(settings: Mapping[str, Any], on_end: Callable[[Branch, str | None], None]) -> Loaded:
    """Load a model directory that was looked over before (`ponder.core.hf.weights`). Raises Failed."""
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call, unused-ignore]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call, unused-ignore]
    torch.set_num_threads(settings["threads"])
    torch.set_grad_enabled(False)
    folder = Path(settings["model"])
    device = torch.device(settings["device"] or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, settings["dtype"]) if settings["dtype"] else best_dtype(device)
    attention = SharedAttention()
    transformers.AttentionInterface.register(NAME, attention)  # type: ignore[no-untyped-call, unused-ignore]
    tokenizer = _tokenizer(folder)
    if device.type == "cpu":
        _check_memory(folder.name, settings["parameters"] * dtype.itemsize)
    model = _model(folder, dtype, device)
    n_ctx = min(settings["n_ctx"], context_of(model.config))
    _prove(model, attention, tokenizer(_PROBE, add_special_tokens=False).input_ids)
    eos = _ids(model.generation_config.eos_token_id) | _ids(tokenizer.eos_token_id)
    vocabulary = Vocabulary(tokenizer, sorted(eos))
    decoder = Decoder(
        model,
        attention,
        Grammars(tokenizer, vocabulary.size, sorted(eos)),
        vocabulary,
        PrefixCache(settings["cache_mib"] * 2**20),
        on_end,
        n_ctx=n_ctx,
        n_parallel=settings["n_parallel"],
        chunk=settings["n_batch"],
    )
    manifest = {
        "engine": f"transformers {transformers.__version__}",
        "torch": str(torch.__version__),
        "architecture": type(model).__name__,
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "n_ctx": n_ctx,
    }
    return Loaded(decoder, vocabulary, manifest)


def best_dtype(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it, else float32: emulated, it is several times slower."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return torch.float32
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return torch.bfloat16 if flags & {"amx_bf16", "avx512_bf16", "bf16"} else torch.float32


def context_of(config: Any) -> int:
    """Return how many tokens a text may have so that every token sees all before it. Raises Failed."""
    config = config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if strange := kinds - {"full_attention", "sliding_attention"}:
        raise Failed(f"layers of {', '.join(sorted(strange))} are not supported", fix=_OTHER_BACKEND)
    window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds or not kinds else None
    return min(int(getattr(config, "max_position_embeddings", None) or 1 << 30), int(window or 1 << 30))


def _check_memory(name: str, needed: int) -> None:
    """Refuse what would only be killed by the system half-way. Raises Failed."""
    import psutil

    free = int(psutil.virtual_memory().available)
    if needed > free:
        raise Failed(f"{name} needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free", fix=_SMALLER)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as error:  # any library below may raise anything: the file is the user's
        raise Failed(f"the tokenizer of {folder.name} cannot be loaded: {_first_line(error)}") from error
    if not tokenizer.is_fast:
        raise Failed(f"{folder.name} has no fast tokenizer (tokenizer.json)", fix=_OTHER_BACKEND)
    if not tokenizer.chat_template:
        raise Failed(
            f"{folder.name} has no chat template: it was not trained to follow instructions",
            fix="use the model's -Instruct or -Chat version, or put a chat_template.jinja beside its weights",
        )
    return tokenizer


def _model(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    try:
        model, notes = auto.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            attn_implementation=NAME,
            output_loading_info=True,
        )
        model = model.eval().to(device)
    except Exception as error:  # as above
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise Failed(f"no memory left to load {folder.name}", fix=_SMALLER) from error
        raise Failed(f"{folder.name} cannot be loaded: {_first_line(error)}", fix=_OTHER_BACKEND) from error
    missing = sorted(notes["missing_keys"]) + sorted(str(key) for key in notes.get("mismatched_keys", ()))
    if missing:  # they would be random numbers
        raise Failed(f"{folder.name} lacks {len(missing)} of its weights, {missing[0]} for one", fix="fetch it again")
    return model


def _prove(model: Any, attention: SharedAttention, tokens: list[int]) -> None:
    """Compare the shared attention with the model's own. Raises Failed."""
    ids = torch.tensor(tokens, device=model.device)[None] % model.get_input_embeddings().weight.shape[0]
    places = torch.arange(ids.shape[1], device=model.device)[None]
    try:
        attention.plan_prefill(Prefill((), ids[0].tolist()), ids.shape[1], model.device)
        ours = model(input_ids=ids, position_ids=places, use_cache=False).logits.float()
        model.set_attn_implementation("eager")
        theirs = model(input_ids=ids, position_ids=places, use_cache=False).logits.float()
        model.set_attn_implementation(NAME)
    except (Unsupported, AttributeError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise Failed(f"{type(model).__name__} is not supported: {_first_line(error)}", fix=_OTHER_BACKEND) from error
    finally:
        attention.prefill = None
    difference = float((ours - theirs).norm() / theirs.norm())
    if not difference < _TOLERANCE.get(model.dtype, 0.1):  # a NaN is refused too
        raise Failed(
            f"{type(model).__name__} is not supported: its attention is another one (difference {difference:.2g})",
            fix=_OTHER_BACKEND,
        )


def _ids(value: int | list[int] | None) -> set[int]:
    return set(value) if isinstance(value, list) else set() if value is None else {value}


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0].strip() if lines else type(error).__name__)[:300].replace(os.getcwd() + os.sep, "")
