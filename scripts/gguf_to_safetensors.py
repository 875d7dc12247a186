"""Unpack a GGUF model (Llama or Qwen2 family) into a folder that the transformers core opens.

    python scripts/gguf_to_safetensors.py MODEL.gguf FOLDER

Needs `pip install -e '.[torch,dev]'`. The weights come out as bfloat16: rounded once more, and as large as they were
before they were quantized. For tests and comparisons of the two backends on the same weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def main(source: Path, folder: Path) -> None:
    """Write the folder; the weights last, so that a folder with weights is complete."""
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    config.architectures = [ARCHITECTURES[config.model_type]]
    config.dtype = "bfloat16"
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    tensors = {}
    for tensor in GGUFReader(source).tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if (name := named(tensor.name)) is not None:
            tensors[name] = torch.tensor(arranged(name, values, config)).to(torch.bfloat16)
    part = folder / f".model.{os.getpid()}"
    save_file(tensors, part, metadata={"format": "pt"})
    part.replace(folder / "model.safetensors")


def named(name: str) -> str | None:
    """Return the name that transformers has for a GGUF tensor; None for what it computes itself."""
    stem, _, kind = name.rpartition(".")
    if stem.startswith("blk."):
        _, number, part = stem.split(".")
        return f"model.layers.{number}.{NAMES[part]}.{kind}"
    return f"{NAMES[stem]}.{kind}" if stem in NAMES else None


def arranged(name: str, values: np.ndarray[Any, Any], config: Any) -> np.ndarray[Any, Any]:
    """Undo the order of rows that GGUF has for Llama's rotated heads (pairs side by side, here: halves)."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None or config.model_type != "llama":
        return values
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
