#!/usr/bin/env python3
"""Small models of random weights, one of every architecture: what tests/random_models.rs runs.

    python3 worker-inference/tests/random_models.py FOLDER        (`make random-models` does it)

The same files come out everywhere: weights are made from integers by exact arithmetic. golden/random_models.json
holds the files' SHA-256 and llama.cpp's logits for them. They are 4 MB, and made in a second, so that they are
not part of the repository. Needs gguf 0.19.0 and numpy.
"""

import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quantize

VOCABULARY = 288
# Sizes are odd on purpose: heads that are no equal parts of the width, a vocabulary of no round number.
SIZES = {
    "llama": dict(layers=2, hidden=64, ffn=96, heads=4, kv_heads=2, head_dim=16, base=10_000.0),
    "qwen2": dict(layers=2, hidden=64, ffn=160, heads=4, kv_heads=2, head_dim=16, base=1_000_000.0),
    "qwen3": dict(layers=3, hidden=64, ffn=96, heads=4, kv_heads=2, head_dim=32, base=1_000_000.0),
    "gemma3": dict(layers=8, hidden=64, ffn=96, heads=4, kv_heads=1, head_dim=48, base=1_000_000.0),
}
# Far below the contexts of the tests, so that rows and whole blocks leave it.
SLIDING_WINDOW = 32
FORMATS = {"f32": GGMLQuantizationType.F32, "q8_0": GGMLQuantizationType.Q8_0}


class Numbers:
    """Numbers from -1 to 1 with 24 bits, from a counter that is mixed (SplitMix64)."""

    def __init__(self, seed):
        self.next = seed << 32

    def take(self, *shape):
        count = int(np.prod(shape))
        mixed = (np.arange(self.next, self.next + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        self.next += count
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        whole = ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(40)).astype(np.float32)
        return (whole / np.float32(1 << 23) - np.float32(1)).reshape(shape)


def tensors(name, size, numbers):
    """(name, values) of every tensor, rows first. A row of a matrix has a length of about 1.5."""
    hidden, ffn, dim = size["hidden"], size["ffn"], size["head_dim"]
    q_width, kv_width = size["heads"] * dim, size["kv_heads"] * dim
    matrix = lambda rows, cols: numbers.take(rows, cols) * np.float32(2.5 / cols**0.5)
    norm = lambda count: numbers.take(count) * np.float32(0.25) + np.float32(1)
    yield "token_embd.weight", numbers.take(VOCABULARY, hidden) * np.float32(0.25 if name == "gemma3" else 1)
    yield "output_norm.weight", norm(hidden)
    if name in ("llama", "qwen3"):
        yield "output.weight", matrix(VOCABULARY, hidden)
    if name == "llama":
        yield "rope_freqs.weight", np.arange(1, dim // 2 + 1, dtype=np.float32) / np.float32(2)
    for layer in range(size["layers"]):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", norm(hidden)
        for part, width in [("q", q_width), ("k", kv_width), ("v", kv_width)]:
            yield f"{at}attn_{part}.weight", matrix(width, hidden)
            if name == "qwen2":
                yield f"{at}attn_{part}.bias", numbers.take(width)
        if name in ("qwen3", "gemma3"):
            yield at + "attn_q_norm.weight", norm(dim) * np.float32(1.5)
            yield at + "attn_k_norm.weight", norm(dim)
        yield at + "attn_output.weight", matrix(hidden, q_width)
        if name == "gemma3":
            yield at + "post_attention_norm.weight", norm(hidden)
            yield at + "post_ffw_norm.weight", norm(hidden)
        yield at + "ffn_norm.weight", norm(hidden)
        yield at + "ffn_gate.weight", matrix(ffn, hidden)
        yield at + "ffn_up.weight", matrix(ffn, hidden)
        yield at + "ffn_down.weight", matrix(hidden, ffn)


def add_sizes(writer, name, size):
    writer.add_block_count(size["layers"])
    writer.add_context_length(1024)
    writer.add_embedding_length(size["hidden"])
    writer.add_feed_forward_length(size["ffn"])
    writer.add_head_count(size["heads"])
    writer.add_head_count_kv(size["kv_heads"])
    writer.add_rope_freq_base(size["base"])
    writer.add_layer_norm_rms_eps(1e-6)
    if name in ("qwen3", "gemma3"):
        writer.add_key_length(size["head_dim"])
        writer.add_value_length(size["head_dim"])
    if name == "gemma3":
        writer.add_sliding_window(SLIDING_WINDOW)
        writer.add_string("gemma3.rope.scaling.type", "linear")
        writer.add_float32("gemma3.rope.scaling.factor", 8.0)


def add_tokenizer(writer):
    """Every byte, some pairs, and an end: a byte-level vocabulary of the kind that all readers know."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(byte) for byte in shown] + [chr(0x100 + n) for n in range(len(hidden))]
    pairs = [(first, second) for first in "aeit" for second in "nrsthole"][: VOCABULARY - 257]
    tokens = letters + [first + second for first, second in pairs] + ["<|end|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (VOCABULARY - 1) + [3])
    writer.add_token_merges([f"{first} {second}" for first, second in pairs])
    writer.add_eos_token_id(VOCABULARY - 1)
    writer.add_add_bos_token(False)


def write(path, name, format):
    size = SIZES[name]
    writer = GGUFWriter(path, name)
    add_sizes(writer, name, size)
    add_tokenizer(writer)
    for tensor, values in tensors(name, size, Numbers(1 + list(SIZES).index(name))):
        kind = format if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(tensor, quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        for suffix, format in FORMATS.items():
            write(folder / f"{name}-{suffix}.gguf", name, format)


if __name__ == "__main__":
    main()
