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
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TESTS = ROOT / "worker-inference" / "tests"
TEXT, PROMPTS = TESTS / "data" / "harbour.txt", TESTS / "data" / "prompts.txt"
GOLDEN = TESTS / "golden" / "llama.json"
# Cores kept busy by other programs above which a ratio of speeds says more about them than about the engines.
BUSY = 0.1
PERPLEXITY = "llama-perplexity -m MODEL -f harbour.txt -c 512 --ppl-output-type 1"
FIRST_TOKEN = 'llama-server -m MODEL -c 2048 -np 1; POST /completion {"prompt": LINE, "n_predict": 1, "temperature": 0}'


def main():
    options = parse()
    options.version = (options.llama / "version").read_text().strip()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        theirs = {**likelihood_of_llama(options, scratch), **answers_of_llama(options, scratch)}
        ours = quality_of_ours(options, scratch)
        if options.golden:
            write_golden(options, theirs)
        divergence = divergences(options, scratch) if options.kl else None
        speeds = measure_speeds(options, scratch) if options.repeats else {}
    report = "\n".join(lines(options, theirs, ours, divergence, speeds)) + "\n"
    path = ROOT / "bench" / "results" / f"{datetime.date.today()}-engine.md"
    path.write_text(report)
    print(report)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama", type=pathlib.Path, required=True)
    parser.add_argument("--figures", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
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
    command = ["nice", "-n", str(options.nice), *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def tool(options, name):
    return options.llama / "bin" / name


# Quality


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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [tool(options, "llama-server"), "-m", options.model, "-t", max(options.threads), "-c", 2048, "-np", 1]
    command += ["--host", "127.0.0.1", "--port", port]
    with open(scratch / "server.log", "w") as log:
        server = subprocess.Popen(["nice", "-n", str(options.nice), *map(str, command)], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", server)
            text = TEXT.read_text(encoding="utf-8").removesuffix("\n")
            tokens = post(f"{url}/tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]
            first = [first_token(f"{url}/completion", prompt) for prompt in PROMPTS.read_text().splitlines()]
            checksum = sum(place * token for place, token in enumerate(tokens, 1))
            return {"text_tokens": len(tokens), "tokens_checksum": checksum, "first_tokens": first}
        finally:
            server.terminate()
            server.wait()


def wait_for(url, server):
    for _ in range(300):
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError:
            if server.poll() is not None:
                raise SystemExit("llama-server ended by itself; try it by hand")
            time.sleep(0.2)
    raise SystemExit("llama-server did not get ready in a minute")


def first_token(url, prompt):
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 1, "cache_prompt": False}
    return post(url, body)["completion_probabilities"][0]["id"]


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))


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


# Speed


def measure_speeds(options, scratch):
    """By number of threads: (name, figures of every round) of each engine. All take turns in every round."""
    smaller = scratch / "q4_0.gguf"
    run(options, tool(options, "llama-quantize"), "--allow-requantize", options.model, smaller, "Q4_0")
    engines = [
        ("ours, Q4_1", speed_of_ours, options.model),
        ("llama.cpp, Q4_1", speed_of_llama, options.model),
        ("ours, Q4_0", speed_of_ours, smaller),
        ("llama.cpp, Q4_0", speed_of_llama, smaller),
    ]
    speeds = {threads: [(name, []) for name, _, _ in engines] for threads in options.threads}
    for _ in range(options.repeats):
        for threads in options.threads:
            for (_, measure, model), (_, rounds) in zip(engines, speeds[threads]):
                rounds.append(watched(lambda: measure(options, model, threads)))
    return speeds


def speed_of_ours(options, model, threads):
    return json.loads(run(options, options.figures, "speed", model, threads))


def speed_of_llama(options, model, threads):
    arguments = ["-m", model, "-p", 512, "-n", 128, "-t", threads, "-r", 1, "-o", "json"]
    tests = json.loads(run(options, tool(options, "llama-bench"), *arguments))
    return {("pp512" if test["n_prompt"] else "tg128"): test["avg_ts"] for test in tests}


def watched(engine):
    """Its figures, with the cores that other programs kept busy while it ran."""
    before, busy, start = os.times(), busy_seconds(), time.monotonic()
    figures = engine()
    after, wall = os.times(), time.monotonic() - start
    own = after.children_user + after.children_system - before.children_user - before.children_system
    return {**figures, "others": max(0.0, (busy_seconds() - busy - own) / wall)}


def busy_seconds():
    """Processor seconds of all programs since the machine started (user, nice, system)."""
    with open("/proc/stat") as file:
        return sum(map(int, file.readline().split()[1:4])) / os.sysconf("SC_CLK_TCK")


# The table


def lines(options, theirs, ours, divergence, speeds):
    same = sum(a == b for a, b in zip(theirs["first_tokens"], ours["first_tokens"], strict=True))
    apart = ours["mean_log_likelihood"] - theirs["mean_log_likelihood"]
    yield f"# Engine beside llama.cpp, {datetime.date.today()}"
    yield ""
    yield f"Machine: {machine()}. Kernels: {ours['kernels']}. Model: {options.model.name}, Q4_1 as shipped."
    yield f"Peer: llama.cpp from {options.version}, built for this machine by `bench/peers/install-llama.sh`."
    flags = "".join(f" --{name}" for name in ("kl", "golden") if getattr(options, name))
    threads = ",".join(map(str, options.threads))
    settings = f"--repeats {options.repeats} --threads {threads} --nice {options.nice}{flags}"
    yield f"Made by `bench/engine-vs-llama.sh {settings}`."
    yield ""
    yield "## Quality"
    yield ""
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
    if speeds:
        yield from speed_lines(options, speeds)


def speed_lines(options, speeds):
    yield ""
    yield f"## Speed, tokens a second (median of {options.repeats}, least to most)"
    yield ""
    yield "All engines take turns in every round. Q4_0 is a requantised copy, for speed only: llama.cpp has its"
    yield "fastest kernels there, so its Q4_0 row is the fair peer."
    for threads, engines in speeds.items():
        yield from table(threads, engines)


def table(threads, engines):
    yield ""
    yield f"| threads: {threads} | prompt of 512 | answer, 1 at a time | other programs, cores |"
    yield "|---|---|---|---|"
    for name, rounds in engines:
        cells = [spread([figures[what] for figures in rounds]) for what in ("pp512", "tg128")]
        yield f"| {name} | {cells[0]} | {cells[1]} | {spread([f['others'] for f in rounds], 2)} |"
    yield ""
    others = max(middle(rounds, "others") for _, rounds in engines)
    # Threads that wait for each other by spinning stand still while another program has a core of theirs.
    if others + threads > os.cpu_count() + BUSY:
        yield f"**No ratio**: other programs kept {others:.1f} cores busy, so that the {threads} threads had to share"
        yield "cores with them, and an engine whose threads spin while they wait suffers out of proportion."
        yield "Measure again on a quiet machine."
        return
    ours, peer = (dict(engines)[name] for name in ("ours, Q4_1", "llama.cpp, Q4_0"))
    ratios = [middle(ours, what) / middle(peer, what) for what in ("pp512", "tg128")]
    yield f"Ours (Q4_1) to llama.cpp's Q4_0: {ratios[0]:.2f} for prompts, {ratios[1]:.2f} for answers."
    if others > BUSY:
        yield f"Other programs kept {others:.1f} cores busy; they share memory and caches with both engines."


def middle(rounds, what):
    return statistics.median(figures[what] for figures in rounds)


def spread(values, digits=1):
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def machine():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


if __name__ == "__main__":
    main()
