#!/usr/bin/env python3
"""Writes blocks.txt: seeded random blocks of every format with the values that the `gguf` package (0.17 or later)
reads in them. One line each: format, bytes as hex, values as the hex bits of f32.

    pip install gguf numpy
    python3 make_blocks.py > blocks.txt
"""

import numpy as np
from gguf import GGMLQuantizationType, quants
from gguf.constants import GGML_QUANT_SIZES

# Where a block keeps its half floats.
HALVES = {
    "F16": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "BF16": [],
}
# Ordinary, small, negative, denormal, large, zero.
SCALES = [0.0123, 0.0009, -0.25, 3e-6, 48.0, 0.0]


def blocks(name, count, random):
    length, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    data = random.integers(0, 256, (count, size), dtype=np.uint8)
    for index, block in enumerate(data):
        for nth, place in enumerate(HALVES[name]):
            scale = np.float16(SCALES[(index + 4 * nth) % len(SCALES)])
            block[place:place + 2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
    if name == "BF16":
        # No exponent of all ones: such values do not compare.
        data[:, 1] &= 0xBF
    return data.reshape(1, -1), count * length


def main():
    random = np.random.default_rng(42)
    for name in HALVES:
        count = 64 if name in ("F16", "BF16") else 2 if name.endswith("_K") else 6
        data, length = blocks(name, count, random)
        with np.errstate(all="ignore"):
            values = quants.dequantize(data, GGMLQuantizationType[name]).astype("<f4").reshape(-1)
        assert len(values) == length and np.isfinite(values).all()
        print(name, data.tobytes().hex(), values.view("<u4").astype(">u4").tobytes().hex())


main()
