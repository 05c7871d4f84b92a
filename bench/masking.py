#!/usr/bin/env python3
"""Why masking and removing differ: the model once more in numpy, which shares no line with the engine.

    bench/masking.py CALLS.jsonl [--model smollm2.gguf] [--calls N] [--seconds N]

For each call, the loss of the action in nats when a segment is left out:

    masked         the keys of the segment are not seen; all others stay where they are
    masked-closed  the same, and what stands behind it moves up (what `quorate context eval` does)
    kept           all behind it computed anew without it, at their old places
    removed        all behind it computed anew without it, moved up: exact removal
    apart-*        each segment was computed by itself (`--independent`), its first 16 tokens once more behind all before it

masked against kept is what later segments know of the one that is left out (leakage); kept against removed is what
places alone do. Needs numpy and tokenizers (pip), a Llama model of Q4_1, Q8_0 and F32 weights, and a minute a call.
"""

import argparse
import json
import os
import struct
import time
from pathlib import Path

import numpy as np

import evaluator_figures as figures

HOME = os.environ.get("QUORATE_HOME") or os.path.expanduser("~/.local/share/quorate")
AGAIN = 16
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Gguf:
    def __init__(self, path):
        self.file = open(path, "rb")
        _, _, tensors, keys = self.read("<4sIQQ")
        self.keys = {}
        for _ in range(keys):
            name = self.text()
            self.keys[name] = self.value(*self.read("<I"))
        found = []
        for _ in range(tensors):
            name, (count,) = self.text(), self.read("<I")
            found.append((name, self.read(f"<{count}Q"), *self.read("<IQ")))
        align = self.keys.get("general.alignment", 32)
        start = -(-self.file.tell() // align) * align
        bytes_ = np.memmap(path, np.uint8, "r")
        self.tensors = {name: weights(bytes_[start + at :], shape, kind) for name, shape, kind, at in found}

    def read(self, form):
        return struct.unpack(form, self.file.read(struct.calcsize(form)))

    def text(self):
        return self.file.read(*self.read("<Q")).decode("utf8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            of, count = self.read("<IQ")
            return [self.value(of) for _ in range(count)]
        return self.read("<" + NUMBERS[kind])[0]


def weights(data, shape, kind):
    """Of a tensor as floats, the last dimension first."""
    count = int(np.prod(shape))
    half = lambda columns: columns.copy().view(np.float16).astype(np.float32)
    if kind == 0:
        flat = data[: count * 4].view(np.float32).copy()
    elif kind == 8:
        blocks = data[: count // 32 * 34].reshape(-1, 34)
        flat = (blocks[:, 2:].view(np.int8) * half(blocks[:, :2])).ravel()
    elif kind == 3:
        blocks = data[: count // 32 * 20].reshape(-1, 20)
        nibbles = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], 1)
        flat = (nibbles * half(blocks[:, :2]) + half(blocks[:, 2:4])).ravel()
    else:
        raise SystemExit(f"weights of kind {kind} are not read here; take a model of Q4_1, Q8_0 and F32")
    return flat.reshape(shape[::-1])


class Seen:
    """Keys, not turned yet, and values of some tokens, by layer, and where the tokens stand."""

    def __init__(self, keys, values, places):
        self.keys, self.values, self.places = keys, values, np.asarray(places)

    def take(self, which):
        return Seen([k[which] for k in self.keys], [v[which] for v in self.values], self.places[which])

    def at(self, places):
        return Seen(self.keys, self.values, places)


def join(*parts):
    layers = lambda of: [np.concatenate(layer) for layer in zip(*map(of, parts))]
    return Seen(layers(lambda p: p.keys), layers(lambda p: p.values), np.concatenate([p.places for p in parts]))


class Model:
    def __init__(self, path):
        gguf = Gguf(path)
        key = lambda name: gguf.keys[f"llama.{name}"]
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads, self.epsilon = key("attention.head_count_kv"), key("attention.layer_norm_rms_epsilon")
        self.dim = key("embedding_length") // self.heads
        self.angles = key("rope.freq_base") ** -(np.arange(0, self.dim, 2) / self.dim)
        self.embedding = gguf.tensors["token_embd.weight"]
        two = {n: np.ascontiguousarray(t.T) for n, t in gguf.tensors.items() if t.ndim == 2 and n.startswith("blk")}
        self.weights = {**{n: t for n, t in gguf.tensors.items() if t.ndim == 1}, **two}
        self.encode = tokenizer(gguf.keys)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.weights[f"{name}.weight"]

    def turned(self, x, places):
        angles = np.asarray(places)[:, None, None] * self.angles
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def read(self, tokens, places, before=None, sight=None):
        """What later tokens see of these, and their last hidden states. `sight`: which of those before each row sees."""
        count, x = len(tokens), self.embedding[np.asarray(tokens)]
        see = np.tril(np.ones((count, count), bool))
        if before is not None:
            past = np.ones((count, len(before.places)), bool) if sight is None else sight
            see = np.concatenate([past, see], 1)
        unseen, keys, values = np.where(see, 0, -1e30).astype(np.float32), [], []
        for layer in range(self.layers):
            name = f"blk.{layer}."
            times = lambda x, part: x @ self.weights[f"{name}{part}.weight"]
            h = self.norm(x, name + "attn_norm")
            q, k, v = (times(h, f"attn_{part}").reshape(count, -1, self.dim) for part in "qkv")
            keys.append(k), values.append(v)
            q, k = self.turned(q, places), self.turned(k, places)
            if before is not None:
                k = np.concatenate([self.turned(before.keys[layer], before.places), k])
                v = np.concatenate([before.values[layer], v])
            x = x + times(self.attention(q, k, v, unseen), "attn_output")
            h = self.norm(x, name + "ffn_norm")
            gate = times(h, "ffn_gate")
            x = x + times(gate / (1 + np.exp(-gate)) * times(h, "ffn_up"), "ffn_down")
        return Seen(keys, values, places), x

    def attention(self, q, k, v, unseen):
        out, group = np.empty_like(q), self.heads // self.kv_heads
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(self.dim) + unseen
            powers = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = powers @ v[:, head // group] / powers.sum(-1, keepdims=True)
        return out.reshape(len(q), -1)

    def likelihood(self, before, probe, action, place):
        """Of the action, in nats, when probe and action begin at this place."""
        tokens = (probe + action)[:-1]
        _, x = self.read(tokens, np.arange(place, place + len(tokens)), before)
        logits = (self.norm(x[len(probe) - 1 :], "output_norm") @ self.embedding.T).astype(np.float64)
        top = logits.max(-1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(-1))
        return float((logits[np.arange(len(action)), action] - total).sum())


def tokenizer(keys):
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = keys["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({text: number for number, text in enumerate(texts)}, merges))
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    made.add_special_tokens([text for text, kind in zip(texts, keys["tokenizer.ggml.token_type"]) if kind == 3])
    return lambda text: made.encode(text, add_special_tokens=False).ids


# What every context begins with: `START` of node/src/evaluating/scorer.rs.
START = (
    "What follows is a record of messages. It begins here, and every message stands on a line of its own. "
    "Nothing was said before. The weather is fine, the day is long, and there is nothing else to be told of it.\n\n"
)


class Study:
    """One call."""

    def __init__(self, model, call):
        self.model = model
        self.segments = [model.encode(segment["text"]) for segment in call["segments"]]
        self.probe, self.action = model.encode(call["probe"]), model.encode(call["action"])[:64]
        start = model.encode(START)
        self.first = len(start)
        self.ends = np.cumsum([self.first] + [len(tokens) for tokens in self.segments])
        owners = [np.full(len(tokens), at) for at, tokens in enumerate(self.segments)]
        self.owner = np.concatenate([np.full(self.first, -1), *owners])
        self.tokens = np.concatenate([start, *self.segments]).astype(int)
        self.all = np.arange(len(self.tokens))
        self.whole, _ = model.read(self.tokens, self.all)

    def score(self, seen, place):
        return self.model.likelihood(seen, self.probe, self.action, place)

    def figures(self):
        n, end = len(self.segments), len(self.tokens)
        full, apart, again = self.score(self.whole, end), self.apart(0), self.apart(AGAIN)
        found = {"full": full, "none": self.score(self.whole.take(self.all[: self.first]), self.first)}
        found |= {"apart-full": self.score(apart, end), f"apart-{AGAIN}-full": self.score(again, end)}
        rows = {"masked": [full - self.masked(self.whole, at, False) for at in range(n)]}
        rows["masked-closed"] = [full - self.masked(self.whole, at, True) for at in range(n)]
        rows["kept"] = [full - self.anew(at, True) for at in range(n)]
        rows["removed"] = [full - self.anew(at, False) for at in range(n)]
        rows["apart"] = [found["apart-full"] - self.masked(apart, at, True) for at in range(n)]
        rows[f"apart-{AGAIN}"] = [found[f"apart-{AGAIN}-full"] - self.masked(again, at, True) for at in range(n)]
        return found, rows

    def masked(self, seen, at, closed):
        behind = seen.places >= self.ends[at + 1]
        others = self.owner[seen.places] != at
        moved = len(self.segments[at]) if closed else 0
        return self.score(seen.at(seen.places - moved * behind).take(others), len(self.tokens) - moved)

    def anew(self, at, kept):
        before = self.whole.take(self.all[: self.ends[at]])
        tail = self.tokens[self.ends[at + 1] :]
        place = self.ends[at + 1] if kept else self.ends[at]
        if len(tail):
            before = join(before, self.model.read(tail, np.arange(place, place + len(tail)), before)[0])
        return self.score(before, place + len(tail))

    def apart(self, again):
        """Each segment computed behind the start alone and put in its place; the first tokens of each computed again."""
        start = self.whole.take(self.all[: self.first])
        front = lambda tokens: np.arange(self.first, self.first + len(tokens))
        parts = [self.model.read(tokens, front(tokens), start)[0] for tokens in self.segments]
        places = [np.arange(*ends) for ends in zip(self.ends, self.ends[1:])]
        seen = join(start, *[part.at(at) for part, at in zip(parts, places)])
        anew = np.concatenate([at[:again] for at in places[1:]]) if again else self.all[:0]
        if not len(anew):
            return seen
        stay = np.setdiff1d(self.all, anew)
        new, _ = self.model.read(self.tokens[anew], anew, seen.take(stay), stay[None] < anew[:, None])
        return join(seen.take(stay), new)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--model", default=Path(HOME) / "models/smollm2.gguf")
    parser.add_argument("--calls", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    begun, model, every = time.monotonic(), Model(options.model), {}
    for line in open(options.file).readlines()[: options.calls or None]:
        if time.monotonic() - begun > options.seconds:
            break
        call = json.loads(line)
        found, rows = Study(model, call).figures()
        print(call["call"], {name: round(value, 2) for name, value in found.items()})
        for name, row in rows.items():
            print(f"  {name:14}" + "".join(f"{value:7.2f}" for value in row), flush=True)
            every.setdefault(name, []).extend(row)
    for one, other in (("masked", "kept"), ("kept", "removed"), ("masked", "removed"), ("masked-closed", "removed")):
        print(f"{one} against {other}:", figures.agreement(list(zip(every[one], every[other]))))


if __name__ == "__main__":
    main()
