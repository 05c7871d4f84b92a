#!/usr/bin/env python3
"""Writes llama.cpp's figures for the random models where the test in CI reads them.

    make random-models
    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar -xzf node-llama-cpp-linux-x64-3.22.1.tgz
    python3 bench/random_models_golden.py package/bins/linux-x64 target/random-models

For every model: all logits after a few tokens of one context of 300, and the log-likelihood of every token of it.
llama.cpp computes in 32-bit floats here, keys and values too, so that it differs from the truth by rounding alone
where the weights are floats. Needs numpy.
"""

import datetime
import hashlib
import json
import pathlib
import sys

import llama_library
import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "worker-inference/tests/golden/random_models.json"
TOKENS = [number * number * 31 % 287 for number in range(7, 307)]
# The first row, one just past the sliding window of 32, one past the first cut of attention, the last.
ROWS = [0, 33, 260, 299]


def main():
    library, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    golden = {
        "made": {
            "by": "bench/random_models_golden.py",
            "version": f"{llama_library.VERSION}, npm {llama_library.PACKAGE}",
            "keys_and_values": "F32, no flash attention",
            "date": str(datetime.date.today()),
        },
        "rows": ROWS,
        "tokens": TOKENS,
        "models": {path.stem: figures(library, path) for path in sorted(folder.glob("*.gguf"))},
    }
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")).replace("],", "],\n").replace("},", "},\n") + "\n")


def figures(library, path):
    model = llama_library.Llama(library, path, 512, kv=llama_library.F32)
    logits = model.logits(TOKENS)
    return {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "log_likelihood": rounded(likelihoods(logits)),
        "logits": [rounded(logits[row]) for row in ROWS],
    }


def likelihoods(logits):
    """Of every token after the first."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(-1, keepdims=True))
    return wide[np.arange(len(TOKENS) - 1), TOKENS[1:]]


def rounded(values):
    return [round(float(value), 5) for value in values]


if __name__ == "__main__":
    main()
