#!/usr/bin/env python3
"""How likely our engine and llama.cpp find the same text with the same weights, format by format.

    npm pack @node-llama-cpp/linux-x64@3.22.1 && tar -xzf node-llama-cpp-linux-x64-3.22.1.tgz
    cargo build --release -p worker-inference --example figures
    python3 bench/quality.py package/bins/linux-x64 target/release/examples/figures MODEL... [--formats Q4_0,F16]

Each MODEL is measured as it is, and requantised to each of `--formats` as `llama-quantize --allow-requantize` does
it. The text is worker-inference/tests/data/harbour.txt in the windows of `llama-perplexity -c 512`: each begins
anew, with BOS where the model wants it, and its last 255 tokens are scored. Writes bench/results/DATE-quality.md.
`--golden NAME` also writes llama.cpp's figures for the first model where the test in CI reads them. Needs numpy.
"""

import argparse
import collections
import datetime
import hashlib
import json
import os
import pathlib
import subprocess
import tempfile

import compare
import llama_library
import numpy as np

WINDOW, SKIP = 512, 256
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}
FILE_TYPES |= {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
TENSOR_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}
LIKELIHOOD = "llama_decode over harbour.txt as `llama-perplexity -c 512 --ppl-output-type 1` cuts it"


def main():
    options = parse()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.models:
            results.append(measure(options, model, f"{model.stem} as it is"))
            for format in options.formats:
                target = pathlib.Path(scratch) / f"{model.stem}-{format}.gguf"
                llama_library.quantize(options.library, model, target, FILE_TYPES[format])
                results.append(measure(options, target, f"{model.stem} to {format}"))
                target.unlink()
    if options.golden:
        write_golden(options, results[0]["theirs"])
    report = "\n".join(lines(options, results)) + "\n"
    path = compare.ROOT / "bench" / "results" / f"{datetime.date.today()}-quality.md"
    path.write_text(report)
    print(report)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("figures", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path, nargs="+")
    listed = lambda text: [name for name in text.split(",") if name]
    parser.add_argument("--formats", type=listed, default=[], help=", ".join(FILE_TYPES))
    parser.add_argument("--golden", help="name of the golden file, as gemma3-270m")
    return parser.parse_args()


def measure(options, model, title):
    theirs = of_llama(options, model)
    command = [options.figures, "quality", model, compare.TEXT, compare.PROMPTS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{title}: {done.stderr[-2000:]}")
    print(title, theirs["mean_log_likelihood"], json.loads(done.stdout)["mean_log_likelihood"], flush=True)
    return {"title": title, "types": types(model), "theirs": theirs, "ours": json.loads(done.stdout)}


def of_llama(options, path):
    """llama.cpp's figures, in the form of the golden files."""
    model = llama_library.Llama(options.library, path, WINDOW, threads=os.cpu_count())
    tokens, bos = model.tokens(compare.TEXT.read_text().removesuffix("\n")), model.bos()
    found = np.concatenate([scored(model, window, bos) for window in windows(tokens)])
    plain = tokens if bos is None else tokens[1:]
    first = [model.logits(model.tokens(line))[-1].argmax() for line in compare.PROMPTS.read_text().splitlines()]
    return {
        "mean_log_likelihood": round(float(found.mean()), 6),
        "standard_error": round(float(found.std() / len(found) ** 0.5), 6),
        "text_tokens": len(plain),
        "tokens_checksum": sum(place * token for place, token in enumerate(plain, 1)),
        "first_tokens": [int(token) for token in first],
    }


def windows(tokens):
    return [tokens[start : start + WINDOW] for start in range(0, len(tokens) - WINDOW + 1, WINDOW)]


def scored(model, window, bos):
    """Log-likelihoods of the window's last 255 tokens."""
    window = [window[0] if bos is None else bos, *window[1:]]
    logits = model.logits(window, SKIP)[:-1].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits[np.arange(len(logits)), window[SKIP + 1 :]]


def types(path):
    """How many matrices there are of each format: not every format takes rows of every length."""
    tensors = compare.reference().Gguf(path).tensors.values()
    counted = collections.Counter(TENSOR_TYPES.get(kind, str(kind)) for shape, kind, _ in tensors if len(shape) == 2)
    return ", ".join(f"{count} {name}" for name, count in counted.most_common())


def write_golden(options, theirs):
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    golden = {
        "made": {
            "by": f"bench/quality.py --golden {options.golden}",
            "likelihood": LIKELIHOOD,
            "first_tokens": "the likeliest token after each line of prompts.txt",
            "version": f"{llama_library.VERSION}, npm {llama_library.PACKAGE}",
            "date": str(datetime.date.today()),
            "machine": compare.machine(),
        },
        "model_sha256": digest(options.models[0]),
        "text_sha256": digest(compare.TEXT),
        "prompts_sha256": digest(compare.PROMPTS),
        "window": WINDOW,
        "skip": SKIP,
    }
    compare.write_figures(compare.GOLDEN.parent / f"{options.golden}.json", {**golden, **theirs})


def lines(options, results):
    yield f"# Quality beside llama.cpp, {datetime.date.today()}"
    yield ""
    yield f"Machine: {compare.machine()}. Kernels: {results[0]['ours']['kernels']}."
    yield f"Peer: {llama_library.VERSION}, npm `{llama_library.PACKAGE}`; keys and values in 16 bits, as by default."
    formats = f" --formats {','.join(options.formats)}" if options.formats else ""
    yield f"Made by `bench/quality.py LIBRARY FIGURES {' '.join(model.name for model in options.models)}{formats}`."
    yield ""
    yield "Mean log-likelihood of harbour.txt in windows of 512 tokens, the last 255 scored. Must be at most 0.005 apart."
    yield ""
    yield "| model | matrices | scored | llama.cpp | ours | apart | first tokens the same |"
    yield "|---|---|---|---|---|---|---|"
    for result in results:
        ours, theirs = result["ours"], result["theirs"]
        apart = ours["mean_log_likelihood"] - theirs["mean_log_likelihood"]
        same = sum(a == b for a, b in zip(theirs["first_tokens"], ours["first_tokens"], strict=True))
        figures = f"{theirs['mean_log_likelihood']:.6f} | {ours['mean_log_likelihood']:.6f} | {apart:+.6f}"
        count = len(theirs["first_tokens"])
        yield f"| {result['title']} | {result['types']} | {ours['scored']} | {figures} | {same} of {count} |"


if __name__ == "__main__":
    main()
