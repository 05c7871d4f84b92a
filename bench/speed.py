"""The speeds of engines on one machine, taking turns: prompts of 512, single answers, 16 answers together."""

import asyncio
import json
import os
import pathlib
import random
import statistics
import time
import types

import agents_load
from common import Server, Watch, free_port, probe, run, say, spread

HERE = pathlib.Path(__file__).resolve().parent
# Cores kept busy by other programs above which a ratio of speeds says more about them than about the engines.
BUSY = 0.1
PROMPT, ANSWER = 512, 128
# Answers together: so many sequences, each behind so many tokens, so many answered tokens each.
TOGETHER, DEPTH, ANSWERS = 16, 512, 64
MEASURES = {
    "prompt": f"prompt of {PROMPT}",
    "answer": "answer, 1 at a time",
    "together": f"answers, {TOGETHER} together behind {DEPTH}",
}


class Engine:
    """One row of the table: a model run by a program."""

    def __init__(self, name, group, measure, server=None):
        self.name, self.group, self.measure, self.server, self.rounds = name, group, measure, server, []

    def middle(self, what):
        return statistics.median(figures[what] for figures in self.rounds)


def measure(options, scratch):
    """By number of threads, the engines with the figures of every round."""
    smaller = scratch / "q4_0.gguf"
    run(options.llama / "bin" / "llama-quantize", "--allow-requantize", options.model, smaller, "Q4_0")
    models = {"Q4_1": options.model, "Q4_0": smaller}
    if options.gemma:
        models["gemma"] = options.gemma
    found = {}
    for threads in options.threads:
        engines = list(engines_of(options, models, threads, scratch))
        try:
            for number in range(options.repeats):
                for engine in engines[number % len(engines) :] + engines[: number % len(engines)]:
                    engine.rounds.append(one_run(options, engine, threads))
                    say(f"round {number + 1} of {options.repeats}, {threads} threads: {engine.name}: {told(engine)}")
        finally:
            for engine in engines:
                if engine.server:
                    engine.server.end()
        found[threads] = engines
    return found


def told(engine):
    return ", ".join(f"{what} {engine.rounds[-1][what]:.1f}" for what in MEASURES)


def engines_of(options, models, threads, scratch):
    for group, model in models.items():
        yield Engine(f"ours, {group}", group, lambda model=model: of_ours(options, model, threads))
        yield Engine(f"llama.cpp, {group}", group, lambda model=model: of_llama(options, model, threads))
    if options.vllm:
        port = free_port()
        say("vLLM starts: minutes, more at its first start")
        command = [HERE / "peers" / "serve-vllm.sh", options.vllm, options.model, port]
        server = Server("vllm", command, port, scratch / "vllm.log", "/v1/models", 900, {"THREADS": str(threads)})
        words = agents_load.one_token_words(types.SimpleNamespace(words=None, model_file=options.model))
        of_server(server, words)  # Once unmeasured: the first requests of each shape are slow.
        server.rest()
        yield Engine("vLLM, bf16", "bf16", lambda: of_server(server, words), server)


def one_run(options, engine, threads):
    """Its figures, the machine's peak just before, and the cores that other programs kept busy meanwhile."""
    if engine.server:
        engine.server.resume()
    gops = probe(options.peak, threads)
    watch = Watch(engine.server)
    figures = engine.measure()
    others = watch.others()
    if engine.server:
        engine.server.rest()
    return {**figures, "gops": gops, "others": others}


def of_ours(options, model, threads):
    bench = lambda *arguments: json.loads(
        run(options.quorate, "engine", "bench", "-m", model, "-t", threads, "-r", 1, "-o", "json", *arguments, nice=options.nice)
    )
    alone = bench("-p", PROMPT, "-n", ANSWER, "-d", 0, "-b", 1)
    together = bench("-p", 0, "-n", ANSWERS, "-d", DEPTH, "-b", TOGETHER)
    by_kind = {("prompt" if row["n_prompt"] else "answer"): row["avg_ts"] for row in alone}
    return {**by_kind, "together": together[0]["avg_ts"]}


def of_llama(options, model, threads):
    tool = lambda name, *arguments: run(options.llama / "bin" / name, "-m", model, "-t", threads, *arguments, nice=options.nice)
    alone = json.loads(tool("llama-bench", "-p", PROMPT, "-n", ANSWER, "-r", 1, "-o", "json"))
    # Its own count of room for every sequence is rounded up to 256.
    room = TOGETHER * (DEPTH + ANSWERS + 255) // 256 * 256
    arguments = ["-c", room, "-fa", "on", "-npp", DEPTH, "-ntg", ANSWERS, "-npl", TOGETHER, "--output-format", "jsonl"]
    out = tool("llama-batched-bench", *arguments)
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    if not rows:
        raise SystemExit(f"llama-batched-bench printed no figures; has its output changed?\n{out[-1000:]}")
    by_kind = {("prompt" if row["n_prompt"] else "answer"): row["avg_ts"] for row in alone}
    return {**by_kind, "together": rows[0]["speed_tg"]}


def of_server(server, words):
    return asyncio.run(ask_server(server, words))


async def ask_server(server, words):
    """What a client of /v1/completions sees; prompts are new words each time, so that no cache knows them."""
    fleet = agents_load.Fleet(agents_load.parse(["--base-url", server.url, "--model-file", "none"]), words)
    rng = random.Random(time.time_ns())
    new = lambda count: agents_load.text_of(rng, words, count)
    prompt = await fleet.ask(new(PROMPT), 1)
    answer = await fleet.ask(new(16), ANSWER)
    together = await asyncio.gather(*(fleet.ask(new(DEPTH), ANSWERS) for _ in range(TOGETHER)))
    return {
        "prompt": prompt.prompt / prompt.first_s,
        "answer": (len(answer.times) - 1) / (answer.times[-1] - answer.times[0]),
        "together": rate_together(together),
    }


def rate_together(answers):
    """Tokens a second while all of them were being answered."""
    begin, end = max(answer.times[0] for answer in answers), min(answer.times[-1] for answer in answers)
    if end <= begin:
        # The first was through before the last began: the whole span, then.
        begin, end = min(answer.times[0] for answer in answers), max(answer.times[-1] for answer in answers)
    return sum(begin < at <= end for answer in answers for at in answer.times) / (end - begin)


# The table


def lines(options, found):
    yield ""
    yield f"## Speed, tokens a second (median of {options.repeats}, least–most)"
    yield ""
    yield "All engines take turns in every round. Q4_0 is a requantised copy, for speed only: llama.cpp has its"
    yield "fastest kernels there, so its Q4_0 row is the fair peer. Peak: int8 GOP/s of the machine before each run."
    if options.vllm:
        yield "vLLM runs the same weights in bf16 behind HTTP, which its figures include."
    for threads, engines in found.items():
        yield from table(options, threads, engines)


def table(options, threads, engines):
    yield ""
    yield f"| threads: {threads} | {' | '.join(MEASURES.values())} | peak | other programs, cores |"
    yield "|---|---|---|---|---|---|"
    for engine in engines:
        cells = [spread([figures[what] for figures in engine.rounds]) for what in MEASURES]
        cells.append(spread([figures["gops"] for figures in engine.rounds], 0))
        cells.append(spread([figures["others"] for figures in engine.rounds], 2))
        yield f"| {engine.name} | {' | '.join(cells)} |"
    yield ""
    others = max(engine.middle("others") for engine in engines)
    # Threads that wait for each other by spinning stand still while another program has a core of theirs.
    if others + threads > os.cpu_count() + BUSY:
        yield f"**No ratio**: other programs kept {others:.1f} cores busy, so that the {threads} threads had to share"
        yield "cores with them, and an engine whose threads spin while they wait suffers out of proportion."
        yield "Measure again on a quiet machine."
        return
    yield from ratios(engines)
    if others > BUSY:
        yield f"Other programs kept {others:.1f} cores busy; they share memory and caches with all engines."


def ratios(engines):
    named = {engine.name: engine for engine in engines}
    pairs = [(f"ours, {group}", f"llama.cpp, {group}") for group in ("Q4_1", "Q4_0", "gemma")]
    pairs += [("ours, Q4_1", "llama.cpp, Q4_0"), ("ours, Q4_1", "vLLM, bf16")]
    yield f"| times as fast | {' | '.join(MEASURES.values())} |"
    yield "|---|---|---|---|"
    for ours, peer in pairs:
        if ours in named and peer in named:
            times = [f"{named[ours].middle(what) / named[peer].middle(what):.2f}" for what in MEASURES]
            yield f"| {ours} to {peer} | {' | '.join(times)} |"
    yield ""
    yield "Must, on the same file: Q4_1 to llama.cpp 4.5, 1.6 and 4 times, prompts at least as fast as vLLM's; gemma 1.5 and 1.5."
