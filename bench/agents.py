#!/usr/bin/env python3
"""Runs the fleet of agents_load.py against each server in turn and writes a table; see agents.sh."""

import argparse
import datetime
import json
import pathlib
import statistics
import sys
import tempfile

from common import Server, Watch, end_in_order, free_port, machine, probe, run, spread

HERE = pathlib.Path(__file__).resolve().parent
# Cores kept busy by other programs above which a run says more about them than about the servers.
BUSY = 0.1


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("llama", "vllm", "model", "quorate", "peak"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    names = lambda text: text.split(",")
    parser.add_argument("--only", type=names, default=["ours", "llama-q4_1", "llama-q4_0", "vllm"])
    parser.add_argument("--results", type=pathlib.Path, help="the table's file (default: bench/results/DATE-agents.md)")
    options, options.load = parser.parse_known_args()
    known = {"ours", "llama-q4_1", "llama-q4_0", "vllm"}
    if unknown := set(options.only) - known:
        parser.error(f"--only knows {', '.join(sorted(known))}, not {', '.join(sorted(unknown))}")
    options.results = options.results or HERE / "results" / f"{datetime.date.today()}-agents.md"
    return options


def main():
    options = parse()
    end_in_order()
    with tempfile.TemporaryDirectory() as scratch:
        scratch, servers = pathlib.Path(scratch), []
        try:
            for name in options.only:
                print(f"starting {name}", file=sys.stderr)
                servers.append(start(options, name, scratch))
                servers[-1].rest()
            rounds = [one_round(options, servers, number, scratch) for number in range(options.rounds)]
        finally:
            for server in servers:
                server.end()
    report = "\n".join(lines(options, rounds)) + "\n"
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(report)
    print(report)


def start(options, name, scratch):
    port, threads, model = free_port(), options.threads, options.model
    log = scratch / f"{name}.log"
    if name == "ours":
        command = [options.quorate, "engine", "serve", "-m", model, "--listen", f"127.0.0.1:{port}", "-t", threads]
        return Server(name, command, port, log, "/v1/models")
    if name == "vllm":
        command = [HERE / "peers" / "serve-vllm.sh", options.vllm, model, port]
        return Server(name, command, port, log, "/v1/models", 900, {"THREADS": str(threads)})
    if name == "llama-q4_0":
        model = scratch / "q4_0.gguf"
        run(options.llama / "bin" / "llama-quantize", "--allow-requantize", options.model, model, "Q4_0")
    # As many slots as agents, each with room for a whole conversation, and a spare one.
    command = [options.llama / "bin" / "llama-server", "-m", model, "-t", threads, "-np", options.agents]
    command += ["-c", 2560 * options.agents, "--host", "127.0.0.1", "--port", port]
    return Server(name, command, port, log, "/health")


def one_round(options, servers, number, scratch):
    """Every server once; who begins changes from round to round."""
    order = servers[number % len(servers) :] + servers[: number % len(servers)]
    return {server.name: one_run(options, server, scratch) for server in order}


def one_run(options, server, scratch):
    server.resume()
    path = scratch / "result.json"
    path.unlink(missing_ok=True)
    load = [sys.executable, HERE / "agents_load.py", "--base-url", server.url, "--model-file", options.model]
    # A server's first answer may compile or load something; a short one of other words is not measured.
    run(*load, "--agents", 1, "--shared", 40, "--private", 8, "--turns", 1, "--gen", 4)
    before_gops = probe(options.peak, options.threads)
    watch = Watch(server)
    print(f"{server.name}: {options.agents} agents", file=sys.stderr)
    run(*load, "--agents", options.agents, "--label", server.name, "--json", path, *options.load)
    outcome = json.loads(path.read_text().splitlines()[-1])
    outcome["others"] = watch.others()
    outcome["gops"] = (before_gops, probe(options.peak, options.threads))
    server.rest()
    print(f"{server.name}: {outcome['makespan_s']} s, {outcome['computed_tokens']} computed", file=sys.stderr)
    return outcome


# The table


def lines(options, rounds):
    names = list(rounds[0])
    first = rounds[0][names[0]]
    yield f"# A fleet of {options.agents} agents, {datetime.date.today()}"
    yield ""
    yield f"Machine: {machine()}. {options.threads} threads. Model: {options.model.name}; llama-q4_0 runs a requantised copy,"
    yield "vLLM the same weights in bf16."
    yield f"Versions: {versions(options)}."
    yield f"Load: {first['shared']} shared and {first['private']} private tokens, {first['turns']} turns of {first['gen']} tokens,"
    yield f"tool results of {first['tool']} tokens after {first['pause']} s. Cold caches: new words in every run."
    rest = " ".join(map(str, options.load))
    yield f"Made by `bench/agents.sh --rounds {options.rounds} --agents {options.agents} --only {','.join(names)} {rest}`".rstrip() + "."
    yield ""
    yield "Median of all rounds (least–most). Peak: int8 GOP/s of the machine before and after each run."
    yield ""
    yield "| server | makespan, s | prompt tokens | computed | answers, tok/s | first token, mean s | peak | other programs, cores |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        yield row(name, [outcomes[name] for outcomes in rounds])
    yield ""
    yield from ratios(rounds)
    yield ""
    yield "Every run, in its order:"
    yield ""
    yield "| round | server | makespan, s | computed | peak before, after | other programs, cores |"
    yield "|---|---|---|---|---|---|"
    for number, outcomes in enumerate(rounds, 1):
        for name, it in outcomes.items():
            before, after = it["gops"]
            yield f"| {number} | {name} | {it['makespan_s']} | {it['computed_tokens']} | {before:.0f}, {after:.0f} | {it['others']:.2f} |"


def row(name, outcomes):
    column = lambda key, digits=1: spread([outcome[key] for outcome in outcomes], digits)
    # A server that does not say what it found in its cache has no figure here.
    known = all(outcome["computed_tokens"] is not None for outcome in outcomes)
    peaks = spread([gops for outcome in outcomes for gops in outcome["gops"]], 0)
    cells = [column("makespan_s"), column("prompt_tokens", 0), column("computed_tokens", 0) if known else "not told"]
    cells += [column("gen_tok_s"), column("ttft_mean", 2), peaks, column("others", 2)]
    return f"| {name} | " + " | ".join(cells) + " |"


def ratios(rounds):
    middle = lambda name, key: statistics.median(outcomes[name][key] for outcomes in rounds)
    if "ours" not in rounds[0]:
        return
    for name in rounds[0]:
        if name != "ours":
            yield f"- {name}'s makespan is {middle(name, 'makespan_s') / middle('ours', 'makespan_s'):.2f} times ours."
    if "vllm" in rounds[0]:
        yield "- Must: at least 2.5 times for vLLM, and at most 10,500 computed tokens with the load as it is by default."
    others = max(outcome["others"] for outcomes in rounds for outcome in outcomes.values())
    if others > BUSY:
        yield f"- **Other programs kept up to {others:.1f} cores busy**: compare with care."


def versions(options):
    found = []
    if "ours" in options.only:
        found.append(run(options.quorate, "--version").strip())
    if any(name.startswith("llama") for name in options.only):
        found.append(f"llama.cpp from {(options.llama / 'version').read_text().strip()}")
    if "vllm" in options.only:
        found.append((options.vllm / "version").read_text().strip())
    return "; ".join(found)


if __name__ == "__main__":
    main()
