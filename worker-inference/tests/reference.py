#!/usr/bin/env python3
"""An independent reading of the model, in numpy and 32-bit floats: the golden figures of real_model.rs.

    python3 worker-inference/tests/reference.py MODEL.gguf worker-inference/tests/text.txt

Prints the number of tokens and a checksum of their ids (own byte-pair encoder, nothing shared with the
engine), and the mean log-likelihood of the text in windows of 256 tokens of which the first 128 and the one
after them are context, with the weights dequantised and nothing else rounded. Needs numpy.
"""

import re
import struct
import sys

import numpy as np

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
WINDOW, SKIP = 256, 128


class Gguf:
    def __init__(self, path):
        self.bytes, self.at = open(path, "rb").read(), 8
        tensors, pairs = self.number("Q"), self.number("Q")
        self.metadata = {}
        for _ in range(pairs):
            key = self.text()
            self.metadata[key] = self.value(self.number("I"))
        self.tensors = {}
        for _ in range(tensors):
            name = self.text()
            shape = [self.number("Q") for _ in range(self.number("I"))]
            self.tensors[name] = (shape, self.number("I"), self.number("Q"))
        self.data = (self.at + 31) // 32 * 32

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.bytes, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.bytes[self.at - length : self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(count)]
        return self.number(SCALARS[kind])

    def tensor(self, name):
        shape, kind, offset = self.tensors[name]
        count, start = int(np.prod(shape)), self.data + offset
        half = lambda raw: raw.copy().view(np.float16).astype(np.float32)
        if kind == 0:
            values = np.frombuffer(self.bytes, np.float32, count, start)
        elif kind == 8:
            raw = np.frombuffer(self.bytes, np.uint8, count // 32 * 34, start).reshape(-1, 34)
            values = raw[:, 2:].copy().view(np.int8).astype(np.float32) * half(raw[:, :2])
        elif kind == 3:
            raw = np.frombuffer(self.bytes, np.uint8, count // 32 * 20, start).reshape(-1, 20)
            scale, nibbles = half(raw[:, :4]), raw[:, 4:]
            both = np.concatenate([nibbles & 15, nibbles >> 4], 1).astype(np.float32)
            values = both * scale[:, :1] + scale[:, 1:]
        else:
            sys.exit(f"{name}: format {kind} is not known here")
        return values.reshape(shape[::-1]).astype(np.float32)


def encode(gguf, text):
    """Byte-level BPE with single digits, the slow and obvious way."""
    vocabulary = {token: index for index, token in enumerate(gguf.metadata["tokenizer.ggml.tokens"])}
    ranks = {tuple(rule.split(" ")): rank for rank, rule in enumerate(gguf.metadata["tokenizer.ggml.merges"])}
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {byte: chr(byte) for byte in shown}
    alphabet.update({byte: chr(0x100 + n) for n, byte in enumerate(b for b in range(256) if b not in alphabet)})
    words = r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+"
    tokens = []
    for piece in re.split(r"(\d)", text):
        for word in re.findall(words, piece):
            parts = [alphabet[byte] for byte in word.encode()]
            while True:
                pairs = [(ranks.get(pair, 1 << 30), n) for n, pair in enumerate(zip(parts, parts[1:]))]
                rank, n = min(pairs, default=(1 << 30, 0))
                if rank == 1 << 30:
                    break
                parts[n : n + 2] = [parts[n] + parts[n + 1]]
            tokens += [vocabulary[part] for part in parts]
    return tokens


class Llama:
    def __init__(self, gguf):
        get = lambda key: gguf.metadata["llama." + key]
        self.layers, self.heads, self.kv_heads = get("block_count"), get("attention.head_count"), get("attention.head_count_kv")
        self.epsilon, self.base = get("attention.layer_norm_rms_epsilon"), get("rope.freq_base")
        self.weights = {name: gguf.tensor(name) for name in gguf.tensors}

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[name]

    def rope(self, x):
        count, _, dim = x.shape
        angle = np.outer(np.arange(count), self.base ** (-np.arange(0, dim, 2) / dim))[:, None, :]
        even, odd, out = x[..., 0::2], x[..., 1::2], np.empty_like(x)
        out[..., 0::2] = even * np.cos(angle) - odd * np.sin(angle)
        out[..., 1::2] = even * np.sin(angle) + odd * np.cos(angle)
        return out

    def logits(self, tokens):
        x, count = self.weights["token_embd.weight"][tokens], len(tokens)
        future = np.triu(np.full((count, count), -np.inf), 1)
        for layer in range(self.layers):
            weight = lambda part: self.weights[f"blk.{layer}.{part}.weight"]
            normed = self.norm(x, f"blk.{layer}.attn_norm.weight")
            split = lambda part, heads: (normed @ weight(part).T).reshape(count, heads, -1)
            q, k = self.rope(split("attn_q", self.heads)), self.rope(split("attn_k", self.kv_heads))
            v, mixed = split("attn_v", self.kv_heads), np.empty_like(q)
            for head in range(self.heads):
                shared = head * self.kv_heads // self.heads
                score = q[:, head] @ k[:, shared].T / np.sqrt(q.shape[-1]) + future
                score = np.exp(score - score.max(-1, keepdims=True))
                mixed[:, head] = score / score.sum(-1, keepdims=True) @ v[:, shared]
            x = x + mixed.reshape(count, -1) @ weight("attn_output").T
            normed = self.norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = normed @ weight("ffn_gate").T
            x = x + (gate / (1 + np.exp(-gate)) * (normed @ weight("ffn_up").T)) @ weight("ffn_down").T
        output = self.weights.get("output.weight", self.weights["token_embd.weight"])
        return self.norm(x, "output_norm.weight") @ output.T


def main():
    gguf = Gguf(sys.argv[1])
    tokens = encode(gguf, open(sys.argv[2], encoding="utf-8").read().removesuffix("\n"))
    print("tokens", len(tokens), "checksum", sum((n + 1) * token for n, token in enumerate(tokens)))
    model, found = Llama(gguf), []
    for start in range(0, len(tokens) - WINDOW + 1, WINDOW):
        part = tokens[start : start + WINDOW]
        logits = model.logits(part).astype(np.float64)
        likelihood = logits - logits.max(-1, keepdims=True)
        likelihood -= np.log(np.exp(likelihood).sum(-1, keepdims=True))
        found += [likelihood[n, part[n + 1]] for n in range(SKIP, WINDOW - 1)]
    print("scored", len(found), "mean_log_likelihood", f"{np.mean(found):.6f}")


if __name__ == "__main__":
    main()
