#!/usr/bin/env python3
"""Runs our engine and llama.cpp's tools in turn and writes a table of both; see engine-vs-llama.sh.

Every round runs each engine once, so that a slow minute of the machine meets all of them. Medians and the
whole spread are written down, beside how many cores other programs kept busy meanwhile.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import sys
import tempfile

import common
import speed
from common import Server, free_port, machine, post

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "worker-inference" / "tests"
TEXT, PROMPTS = TESTS / "data" / "harbour.txt", TESTS / "data" / "prompts.txt"
GOLDEN = TESTS / "golden" / "llama.json"
PERPLEXITY = "llama-perplexity -m MODEL -f harbour.txt -c 512 --ppl-output-type 1"
FIRST_TOKEN = 'llama-server -m MODEL -c 2048 -np 1; POST /completion {"prompt": LINE, "n_predict": 1, "temperature": 0}'


def main():
    options = parse()
    common.end_in_order()
    options.version = (options.llama / "version").read_text().strip()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        quality = None if options.no_quality else measure_quality(options, scratch)
        speeds = speed.measure(options, scratch) if options.repeats else {}
    report = "\n".join(lines(options, quality, speeds)) + "\n"
    path = ROOT / "bench" / "results" / f"{datetime.date.today()}-engine.md"
    path.write_text(report)
    print(report)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--figures", type=pathlib.Path, required=True)
    parser.add_argument("--quorate", type=pathlib.Path, required=True)
    parser.add_argument("--peak", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--gemma", type=pathlib.Path, help="a second model, for speed only")
    parser.add_argument("--vllm", type=pathlib.Path, help="where install-vllm.sh put vLLM; without it, it is left out")
    parser.add_argument("--no-quality", action="store_true", help="speed only")
    every = sorted({1, os.cpu_count()})
    counts = lambda text: [int(count) for count in text.split(",")]
    parser.add_argument("--threads", type=counts, default=every, help="numbers of threads to measure: 1,2")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of speed; 0: quality only")
    parser.add_argument("--nice", type=int, default=0, help="for both engines, where others use the machine")
    parser.add_argument("--kl", action="store_true")
    parser.add_argument("--golden", action="store_true")
    return parser.parse_args()


def run(options, *command):
    """The standard output of a command that must succeed."""
    return common.run(*command, nice=options.nice)


def tool(options, name):
    return options.llama / "bin" / name


# Quality


def measure_quality(options, scratch):
    """llama.cpp's figures, ours, and the divergence of both from 32-bit floats."""
    theirs = {**likelihood_of_llama(options, scratch), **answers_of_llama(options, scratch)}
    ours = quality_of_ours(options, scratch)
    if options.golden:
        write_golden(options, theirs)
    return theirs, ours, divergences(options, scratch) if options.kl else None


def likelihood_of_llama(options, scratch):
    """The last row of llama-perplexity's table: tokens done, perplexity, mean negative log-likelihood, error."""
    logits = ["--kl-divergence-base", scratch / "llama.logits"] if options.kl else []
    arguments = ["-m", options.model, "-f", TEXT, "-c", 512, "-t", max(options.threads), "--ppl-output-type", 1]
    out = run(options, tool(options, "llama-perplexity"), *arguments, *logits)
    rows = [row for row in map(str.split, out.splitlines()) if len(row) == 4 and row[0].isdigit()]
    if not rows:
        raise SystemExit("llama-perplexity printed no table; has its output changed?")
    return {"mean_log_likelihood": -float(rows[-1][2]), "standard_error": float(rows[-1][3])}


def quality_of_ours(options, scratch):
    extra = [scratch / "ours.logits"] if options.kl else []
    return json.loads(run(options, options.figures, "quality", options.model, TEXT, PROMPTS, *extra))


def answers_of_llama(options, scratch):
    """The text's tokens (their number, and the sum of place times id) and the first token after each prompt."""
    port = free_port()
    command = ["nice", "-n", options.nice, tool(options, "llama-server"), "-m", options.model]
    command += ["-t", max(options.threads), "-c", 2048, "-np", 1, "--host", "127.0.0.1", "--port", port]
    server = Server("llama-server", command, port, scratch / "server.log", "/health")
    try:
        text = TEXT.read_text(encoding="utf-8").removesuffix("\n")
        tokens = post(f"{server.url}/tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]
        first = [first_token(f"{server.url}/completion", prompt) for prompt in PROMPTS.read_text().splitlines()]
        checksum = sum(place * token for place, token in enumerate(tokens, 1))
        return {"text_tokens": len(tokens), "tokens_checksum": checksum, "first_tokens": first}
    finally:
        server.end()


def first_token(url, prompt):
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 1, "cache_prompt": False}
    return post(url, body)["completion_probabilities"][0]["id"]


def write_golden(options, theirs):
    """What the test in CI compares with; it says itself how it was made."""
    digest = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()
    golden = {
        "made": {
            "by": "bench/engine-vs-llama.sh --golden",
            "likelihood": PERPLEXITY,
            "first_tokens": FIRST_TOKEN,
            "version": options.version,
            "date": str(datetime.date.today()),
            "machine": machine(),
        },
        "model_sha256": digest(options.model),
        "text_sha256": digest(TEXT),
        "prompts_sha256": digest(PROMPTS),
        "window": 512,
        "skip": 256,
        **theirs,
    }
    write_figures(GOLDEN, golden)


def write_figures(path, figures):
    path.parent.mkdir(exist_ok=True)
    first = json.dumps(figures.pop("first_tokens"))
    text = json.dumps(figures, indent=2).removesuffix("\n}")
    path.write_text(f'{text},\n  "first_tokens": {first}\n}}\n')


def reference():
    """The numpy model of the tests, which also reads files."""
    sys.path.insert(0, str(TESTS))
    import reference

    return reference


def divergences(options, scratch):
    import divergence

    return divergence.compare(options.model, TEXT, scratch / "ours.logits", scratch / "llama.logits")


# The table


def lines(options, quality, speeds):
    yield f"# Engine beside its peers, {datetime.date.today()}"
    yield ""
    yield f"Machine: {machine()}. Model: {options.model.name}, Q4_1 as shipped{gemma(options)}."
    yield f"Peer: llama.cpp from {options.version}, built for this machine by `bench/peers/install-llama.sh`."
    if options.vllm:
        yield f"Peer: {(options.vllm / 'version').read_text().strip()}, installed by `bench/peers/install-vllm.sh`."
    flags = "".join(f" --{name}" for name in ("kl", "golden", "no-quality") if getattr(options, name.replace("-", "_")))
    threads = ",".join(map(str, options.threads))
    settings = f"--repeats {options.repeats} --threads {threads} --nice {options.nice}{flags}"
    yield f"Made by `bench/engine-vs-llama.sh {settings}`."
    if quality:
        yield from quality_lines(*quality)
    if speeds:
        yield from speed.lines(options, speeds)


def gemma(options):
    return f"; gemma: {options.gemma.name}" if options.gemma else ""


def quality_lines(theirs, ours, divergence):
    same = sum(a == b for a, b in zip(theirs["first_tokens"], ours["first_tokens"], strict=True))
    apart = ours["mean_log_likelihood"] - theirs["mean_log_likelihood"]
    yield ""
    yield "## Quality"
    yield ""
    yield f"Kernels: {ours['kernels']}."
    yield f"`{PERPLEXITY}`; ours: `figures quality` ({ours['text_tokens']} tokens, {ours['scored']} scored)."
    yield ""
    yield "| | ours | llama.cpp | must |"
    yield "|---|---|---|---|"
    mine, other = ours["mean_log_likelihood"], theirs["mean_log_likelihood"]
    yield f"| mean log-likelihood | {mine:.6f} | {other:.6f} | apart at most 0.005; is {abs(apart):.6f} |"
    yield f"| greedy first token the same | {same} of {len(ours['first_tokens'])} | | at least 95 of 100 |"
    if divergence:
        my, its = divergence["ours"], divergence["llama"]
        yield f"| KL from 32-bit floats, mean | {my['mean']:.6f} | {its['mean']:.6f} | {my['mean'] / its['mean']:.2f} times |"
        yield f"| KL, 99th of 100 | {my['p99']:.6f} | {its['p99']:.6f} | |"
        yield f"| likeliest token as in floats | {my['same']:.1%} | {its['same']:.1%} | |"


if __name__ == "__main__":
    main()
