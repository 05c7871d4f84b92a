"""How far two engines' predictions are from those of the same weights computed in 32-bit floats.

The floats come from worker-inference/tests/reference.py (numpy, nothing shared with either engine). The figure
is the mean Kullback-Leibler divergence over the scored tokens, in nats.
"""

import pathlib
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "worker-inference" / "tests"))
import reference  # noqa: E402

WINDOW, SKIP = 512, 256


def compare(model, text, ours, llama):
    """`ours` as `figures quality` writes it, `llama` as `llama-perplexity --kl-divergence-base` does."""
    gguf = reference.Gguf(model)
    tokens = reference.encode(gguf, text.read_text(encoding="utf-8").removesuffix("\n"))
    floats, width = reference.Llama(gguf), len(gguf.metadata["tokenizer.ggml.tokens"])
    engines = {"ours": Ours(ours, width), "llama": Llama(llama, width)}
    found = {name: [] for name in engines}
    scored = WINDOW - 1 - SKIP
    for number in range(len(tokens) // WINDOW):
        window = tokens[number * WINDOW : (number + 1) * WINDOW]
        truth = log_softmax(floats.logits(window)[SKIP : WINDOW - 1])
        for name, engine in engines.items():
            for row in range(scored):
                found[name].append(apart(truth[row], engine.row(number * scored + row)))
    return {name: summary(np.array(values)) for name, values in found.items()}


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def apart(truth, other):
    return (np.exp(truth) * (truth - other)).sum(), truth.argmax() == other.argmax()


def summary(values):
    divergence, same = values[:, 0], values[:, 1]
    return {"mean": divergence.mean(), "p99": np.quantile(divergence, 0.99), "same": same.mean()}


class Ours:
    def __init__(self, path, width):
        self.rows = np.memmap(path, dtype="<f4", mode="r").reshape(-1, width)

    def row(self, index):
        return self.rows[index].astype(np.float64)


class Llama:
    """16-bit steps between the least and the greatest log-probability of each row."""

    def __init__(self, path, width):
        with open(path, "rb") as file:
            magic, context, vocabulary, chunks = struct.unpack("<8siii", file.read(20))
            if magic != b"_logits_" or (context, vocabulary) != (WINDOW, width):
                raise SystemExit(f"{path} is no file of logits as expected; has llama.cpp's format changed?")
            file.seek(4 * context * chunks, 1)
            self.width, start = width, file.tell()
        self.rows = np.memmap(path, dtype="<u2", mode="r", offset=start).reshape(-1, (width + 1) // 2 * 2 + 4)

    def row(self, index):
        step, least = self.rows[index, :4].copy().view("<f4")
        return self.rows[index, 4 : 4 + self.width].astype(np.float64) * step + least
