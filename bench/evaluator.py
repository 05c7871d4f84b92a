#!/usr/bin/env python3
"""What `quorate context eval` finds on real data, beside exact removal and attention, and what each costs.

    bench/evaluator.py bfcl     [-m MODEL] [--wording plain|notes|asked|chat|quiz] [--rule nearest|alike] [--sample N]
    bench/evaluator.py planted  [-m MODEL] [--seeds N]
    bench/evaluator.py sessions [-m MODEL] [--of miniswe|tau] [--sample N] [--exact]
    bench/evaluator.py suggest  [-m MODEL] [--of miniswe|tau|bfcl] [--sample N]
    bench/evaluator.py masked   FILE...       masked against exact, over the files that runs with --exact wrote
    bench/evaluator.py verdicts FILE...       which part of the tokens has which verdict, over reports of sessions
    bench/evaluator.py growth   --svg FILE    how tokens grow with the context, counted
    bench/evaluator.py cost     --example target/release/examples/evaluate-cost -m GGUF

Common: --exact, --independent, --again N (see `quorate context eval --help`), --quorate BINARY, --data ../shared/data, --out FOLDER
(reports are kept there and not made twice), --seconds N (begin no new part later; run again to go on), --threads N.
Prints Markdown and one JSON object a run. `bench/evaluator.sh` runs all of it.
"""

import argparse
import json
import math
import random
import statistics
import sys
import time
from pathlib import Path

import evaluator_calls as data_sets
import evaluator_figures as figures
import evaluator_planted
from common import run, say

BEGUN = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent


def report(options, name, calls, *more, group=lambda call: None):
    """The report of these calls, in parts that are kept in the folder and not made twice: the same calls have the same
    report. Calls of a group stay together, because what was sent before is looked for among them."""
    whole = {"calls": [], "skipped": [], "seconds": 0.0}
    for number, part in enumerate(parts(calls, group)):
        if out_of_time(options) and not (Path(options.out) / f"{name}-{number}.json").exists():
            say(f"{name}: {len(whole['calls'])} of {len(calls)} calls, no time for more; run again to go on")
            break
        found = part_report(options, f"{name}-{number}", part, *more)
        whole["calls"] += found["calls"]
        whole["skipped"] += found.get("skipped", [])
        whole["seconds"] = round(whole["seconds"] + found["seconds"], 1)
    return whole


def out_of_time(options):
    return options.seconds and time.monotonic() - BEGUN > options.seconds


def parts(calls, group, most=4):
    """At most so many together, or all of a group."""
    part = []
    for place, call in enumerate(calls):
        part.append(call)
        ends = place + 1 == len(calls) or group(call) is None or group(call) != group(calls[place + 1])
        if ends and (len(part) >= most or group(call) is not None or place + 1 == len(calls)):
            yield part
            part = []


def part_report(options, name, calls, *more):
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / f"{name}.json"
    if said.exists():
        return json.loads(said.read_text())
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(call) + "\n" for call in calls))
    words = [options.quorate, "-o", "json", "context", "eval", "--calls", file, "-m", options.model]
    begun = time.monotonic()
    found = json.loads(run(*words, "--threads", options.threads, *more))
    found["seconds"] = round(time.monotonic() - begun, 1)
    said.write_text(json.dumps(found))
    say(f"{name}: {len(calls)} calls in {found['seconds']} s")
    return found


# --- figures ----------------------------------------------------------------------------------------------------------


WAYS = {
    "max(needed, enough)": lambda s: max(s["necessity"], s["sufficiency"]),
    "needed": lambda s: s["necessity"],
    "enough": lambda s: s["sufficiency"],
    "attention": lambda s: s["attention"],
    "attention a token": lambda s: s["attention"] / max(1, s["tokens"]),
    "exact leave-one-out": lambda s: s["exact"],
}


def ranked(calls, labels, worth):
    """How well a figure finds the labelled segment: first in so many calls, AUROC over all and within calls."""
    first, good, bad, within = 0, [], [], []
    for call in calls:
        label = labels[call["call"]]
        mine = [worth(s) for s in call["segments"] if s["id"] == label]
        others = [worth(s) for s in call["segments"] if s["id"] != label]
        first += mine[0] > max(others)
        good += mine
        bad += others
        within.append(figures.auroc(mine, others))
    n = max(1, len(calls))
    return {"first": first / n, "auroc": figures.auroc(good, bad), "auroc_within": statistics.fmean(within or [math.nan])}


def bfcl(options):
    calls, labels = data_sets.bfcl(options.data, options.wording, options.rule)
    calls = sampled(calls, options.sample)
    random.Random(data_sets.SEED).shuffle(calls)
    suffix, more = mode(options)
    name = f"bfcl-{options.model}-{options.wording}-{options.rule}-{len(calls)}{suffix}"
    found = report(options, name, calls, *more)
    open_calls = [call for call in found["calls"] if not call["gated"]]
    gated = 1 - len(open_calls) / max(1, len(found["calls"]))
    print(f"\n{name}: {len(found['calls'])} calls, {gated:.1%} gated, {len(found.get('skipped', []))} skipped\n")
    print("| ranked by | first | AUROC, all together | AUROC within a call |\n|---|---|---|---|")
    result = {"run": name, "calls": len(found["calls"]), "gated": round(gated, 4), "seconds": found["seconds"]}
    for way, worth in WAYS.items():
        if way.startswith("exact") and not options.exact or way.startswith("attention") and options.independent:
            continue
        it = result[way] = ranked(open_calls, labels, worth)
        print(f"| {way} | {it['first']:.1%} | {it['auroc']:.3f} | {it['auroc_within']:.3f} |")
    result["tokens"] = tokens(open_calls)
    result["gain_nats"] = round(statistics.fmean(call["gain_nats"] for call in found["calls"]), 3) if found["calls"] else None
    print("\n" + json.dumps(result))


def tokens(calls):
    """Mean tokens a call: what each way computes behind a context that is in the cache."""
    mean = lambda values: round(statistics.fmean(values), 1) if values else None
    return {
        "context": mean([context_tokens(c) for c in calls]),
        "spent": mean([c["tokens_spent"] for c in calls]),
        "exact": mean([c["audit_tokens"] for c in calls if c.get("audit_tokens")]),
        "answer_based": mean([answer_based(c) for c in calls]),
    }


def mode(options):
    """What a run's files are named by, and the options that make it so."""
    chosen = [name for name in ("exact", "independent") if getattr(options, name)]
    more = [f"--{name}" for name in chosen]
    if options.again:
        chosen, more = [*chosen, f"again-{options.again}"], [*more, "--again", str(options.again)]
    return "".join(f"-{name}" for name in chosen), more


def context_tokens(call):
    return sum(segment["tokens"] for segment in call["segments"])


def answer_based(call):
    filled = sum(segment["tokens"] > 0 for segment in call["segments"])
    return (filled + 1) * 4 * (context_tokens(call) + 64)


def sampled(calls, count):
    """Some of the calls, always the same."""
    named = {call["call"]: call for call in calls}
    chosen = data_sets.sample({"": calls}, count or len(calls))
    return [named[call["call"]] for _, call in chosen]


# --- planted ----------------------------------------------------------------------------------------------------------


def planted(options):
    """What was planted is known: the part that must be found, case by case."""
    calls, labels = evaluator_planted.planted(options.seeds)
    suffix, more = mode(options)
    name = f"planted-{options.model}-{options.seeds}{suffix}"
    found = report(options, name, calls, *more)
    print(f"\n{name}: {len(found['calls'])} calls\n")
    print("| case | calls | gated | planted ones that matter | others that do | first | needed ones essential |")
    print("|---|---|---|---|---|---|---|")
    result = {"run": name, "calls": len(found["calls"]), "seconds": found["seconds"]}
    for case in evaluator_planted.CASES:
        of_case = [call for call in found["calls"] if call["call"].startswith(case.__name__ + "/")]
        result[case.__name__] = planted_row(case.__name__, of_case, labels)
    print("\n" + json.dumps(result))


def planted_row(case, calls, labels):
    judged = [call for call in calls if not call["gated"]]
    mattering = lambda s: s["verdict"] in ("essential", "redundant-with")
    share = lambda some: sum(some) / len(some) if some else math.nan
    row = {"calls": len(calls), "gated": share([call["gated"] for call in calls])}
    inside = [mattering(s) for call in judged for s in call["segments"] if s["id"] in labels[call["call"]]]
    outside = [mattering(s) for call in judged for s in call["segments"] if s["id"] not in labels[call["call"]]]
    row["planted_matter"], row["others_matter"] = share(inside), share(outside)
    best = lambda call: max(call["segments"], key=WAYS["max(needed, enough)"])["id"]
    row["first"] = share([best(call) in labels[call["call"]] for call in judged])
    needed = lambda call: [labels[call["call"]][at] for at in evaluator_planted.NEEDED.get(case, [])]
    essential = [s["verdict"] == "essential" for call in judged for s in call["segments"] if s["id"] in needed(call)]
    row["needed_essential"] = share(essential)
    shown = [f"{row[key]:.0%}" for key in ("gated", "planted_matter", "others_matter", "first", "needed_essential")]
    print(f"| {case} | {row['calls']} | " + " | ".join(shown).replace("nan%", "-") + " |")
    return row


# --- sessions ---------------------------------------------------------------------------------------------------------


def session_calls(options):
    source = data_sets.miniswe if options.of == "miniswe" else data_sets.tau
    return data_sets.sample(source(options.data), options.sample or 40)


def sessions(options):
    chosen = session_calls(options)
    suffix, more = mode(options)
    name = f"{options.of}-{options.model}-{len(chosen)}{suffix}"
    session_of = {call["call"]: session for session, call in chosen}
    found = report(options, name, [call for _, call in chosen], *more, group=lambda call: session_of[call["call"]])
    by_session = {}
    for call in found["calls"]:
        by_session.setdefault(session_of[call["call"]], []).append(call)
    print(f"\n{name}: {len(found['calls'])} calls, {len(found.get('skipped', []))} skipped\n")
    print(
        "| session | calls | blind | tokens a call | twice in a call | sent before | inert | removable | own cost | of answer-based |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = by_session.items() if options.of == "miniswe" else []
    for session, calls in rows:
        session_row(session, calls)
    every = [call for calls in by_session.values() for call in calls]
    result = {"run": name, "seconds": found["seconds"], **session_row("all", every), "tokens": tokens(every)}
    print("\n" + json.dumps(result))


def session_row(name, calls):
    judged = [call for call in calls if not call["gated"]]
    share = lambda part, of: part / of if of else math.nan
    total = sum(map(context_tokens, calls))
    known = sum(map(context_tokens, judged))
    inert = sum(s["tokens"] for c in judged for s in c["segments"] if s["verdict"] in ("inert", "foreign-inert"))
    row = {
        "calls": len(calls),
        "blind": share(len(calls) - len(judged), len(calls)),
        "tokens": share(total, len(calls)),
        "twice": share(sum(twice(call) for call in calls), total),
        "before": share(sum(s["tokens"] for c in calls for s in c["segments"] if s["dup_of"]), total),
        "inert": share(inert, known),
        "removable": share(sum(c["removable_tokens"] for c in judged), known),
        "spent": share(sum(c["tokens_spent"] for c in judged), len(judged)),
        "of_answer_based": share(sum(c["tokens_spent"] for c in judged), sum(map(answer_based, judged))),
    }
    print(
        f"| {name} | {row['calls']} | {row['blind']:.0%} | {row['tokens']:.0f} | {row['twice']:.1%} | {row['before']:.1%}"
        f" | {row['inert']:.0%} | {row['removable']:.0%} | {row['spent']:.0f} | {row['of_answer_based']:.2%} |"
    )
    return row


def twice(call):
    """Tokens of segments that repeat another of the same call."""
    ids = {segment["id"] for segment in call["segments"]}
    return sum(s["tokens"] for s in call["segments"] if s["dup_of"] in ids and s["dup_of"] != s["id"])


# --- masked against exact ---------------------------------------------------------------------------------------------


def masked(options):
    """Each set of files by the name before its first digit, and all together."""
    sets = {}
    for file in map(Path, options.files):
        sets.setdefault(file.stem.split("-")[0], []).extend(json.loads(file.read_text())["calls"])
    every = [call for calls in sets.values() for call in calls]
    print("\n| set | calls | segments | above 1 nat | Pearson | signs agree | RMS | Pearson, all | RMS, all | > 2 nats apart |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, calls in [*sets.items(), ("together", every)]:
        masked_row(name, calls)
    if options.svg:
        pairs = pairs_of(every)
        title = f"Leaving a segment out: masked against exact ({len(pairs)} segments of {len(every)} calls)"
        scatter(options.svg, title, "exact removal, nats", "masked, nats", pairs)


def pairs_of(calls):
    return [(s["necessity"], s["exact"]) for c in calls if not c["gated"] for s in c["segments"] if "exact" in s]


def masked_row(name, calls):
    it = figures.agreement(pairs_of(calls))
    judged = sum(not call["gated"] for call in calls)
    print(
        f"| {name} | {judged} | {it['segments']} | {it['above_1_nat']} | {it['pearson']:.3f} | {it['signs']:.1%}"
        f" | {it['rms']:.2f} | {it['pearson_all']:.3f} | {it['rms_all']:.2f} | {it['above_2_apart']} |"
    )


# --- tokens by verdict ------------------------------------------------------------------------------------------------

VERDICTS = {
    "essential": "#2e8b57",
    "redundant-with": "#8fbc5a",
    "inert": "#b9c0c8",
    "foreign-inert": "#8d99a6",
    "harmful": "#c0392b",
    "blind": "#ece7d8",
}


def verdicts(options):
    """Of each set of files: which part of the context's tokens has which verdict."""
    rows = {}
    for file in map(Path, options.files):
        of_set = rows.setdefault(file.stem.split("-")[0], dict.fromkeys(VERDICTS, 0))
        for call in json.loads(file.read_text())["calls"]:
            for segment in call["segments"]:
                of_set[segment["verdict"]] += segment["tokens"]
    shares = {name: {v: n / max(1, sum(of_set.values())) for v, n in of_set.items()} for name, of_set in rows.items()}
    print("\n| set | tokens | " + " | ".join(VERDICTS) + " |\n|---|---|" + "---|" * len(VERDICTS))
    for name, of_set in shares.items():
        print(f"| {name} | {sum(rows[name].values())} | " + " | ".join(f"{share:.1%}" for share in of_set.values()) + " |")
    if options.svg:
        Path(options.svg).write_text(bars("Tokens by verdict", shares))


def bars(title, shares):
    height = 80 + 44 * len(shares) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/><text x="{EDGE}" y="22" font-size="14">{title}</text>',
    ]
    for number, (verdict, colour) in enumerate(VERDICTS.items()):
        x = EDGE + 95 * number
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}" stroke="#777"/>')
        parts.append(f'<text x="{x + 16}" y="46">{verdict}</text>')
    for number, (name, of_set) in enumerate(shares.items()):
        x, y = float(EDGE + 10), 66 + 44 * number
        parts.append(f'<text x="{EDGE + 4}" y="{y + 20}" text-anchor="end">{name}</text>')
        for verdict, share in of_set.items():
            width = share * (WIDTH - EDGE - 30)
            bar = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="32" fill="{VERDICTS[verdict]}" stroke="#777"/>'
            label = f'<text x="{x + width / 2:.1f}" y="{y + 20}" text-anchor="middle">{share:.0%}</text>'
            parts += [bar, label] if share > 0.04 else [bar]
            x += width
    return "\n".join([*parts, "</svg>", ""])


# --- what removing by value does --------------------------------------------------------------------------------------


def suggest(options):
    """Calls without what the evaluator would drop, and without as many tokens of the oldest segments: is what was done still
    as likely? Both are read anew, as one text each, so that nothing is believed that the search said."""
    if options.of == "bfcl":
        calls = sampled(data_sets.bfcl(options.data, options.wording, options.rule)[0], options.sample or 40)
    else:
        calls = [call for _, call in session_calls(options)]
    name = f"suggest-{options.of}-{options.model}-{len(calls)}"
    found = [row for row in suggestions(options, name, calls) if "kept" in row]
    by_name = {call["call"]: call for call in calls}
    versions = []
    for row in found:
        call = by_name[row["call"]]
        kept = set(row["kept"])
        by_value = [segment for segment in call["segments"] if segment["id"] in kept]
        for way, segments in (("whole", call["segments"]), ("value", by_value), ("age", newest(call, by_value))):
            text = "".join(segment["text"] for segment in segments)
            whole = [{"id": "all", "owner": "x", "kind": "message", "text": text}]
            versions.append({**call, "call": f"{call['call']} {way}", "segments": whole})
    scored = report(options, f"{name}-versions", versions)
    gains = {call["call"]: call["gain_nats"] for call in scored["calls"]}
    loss = lambda row, way: gains[f"{row['call']} whole"] - gains[f"{row['call']} {way}"]
    all_there = lambda row: all(f"{row['call']} {way}" in gains for way in ("whole", "value", "age"))
    found = [row for row in found if all_there(row)]
    result = {"run": name, "asked": len(calls), "suggested": len(found)}
    before, after = (sum(row[key] for row in found) for key in ("tokens_before", "tokens_after"))
    result["tokens_saved"] = round(1 - after / max(1, before), 4)
    for way in ("value", "age"):
        losses = [loss(row, way) for row in found]
        result[way] = {
            "kept_within_half_a_nat": round(sum(l <= 0.5 for l in losses) / max(1, len(losses)), 4),
            "kept_within_one_nat": round(sum(l <= 1 for l in losses) / max(1, len(losses)), 4),
            "median_loss_nats": round(statistics.median(losses), 3) if losses else None,
            "mean_loss_nats": round(statistics.fmean(losses), 3) if losses else None,
        }
    print(json.dumps(result))


def suggestions(options, name, calls):
    whole = []
    for number, part in enumerate(parts(calls, lambda call: None)):
        whole += part_suggestions(options, f"{name}-{number}", part)
    return whole


def part_suggestions(options, name, calls):
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / f"{name}.out.jsonl"
    if not said.exists():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(call) + "\n" for call in calls))
        words = [options.quorate, "-o", "json", "context", "suggest", "--calls", file, "-m", options.model]
        said.write_text(run(*words, "--threads", options.threads))
    return [json.loads(line) for line in said.read_text().splitlines()]


def newest(call, by_value):
    """The newest segments, no fewer characters than the others kept."""
    room, kept = sum(len(segment["text"]) for segment in by_value), []
    for segment in reversed(call["segments"]):
        if room <= 0:
            break
        kept.insert(0, segment)
        room -= len(segment["text"])
    return kept


# --- cost -------------------------------------------------------------------------------------------------------------


def cost(options):
    """Rows and seconds of the example, and how they grow."""
    rows = []
    for size in options.sizes:
        segments = max(4, size // 125)
        said = run(options.example, options.model, size, segments, options.threads)
        row = {"tokens": size, "segments": segments}
        probe = None
        for line in said.splitlines():
            if line.endswith("tokens of probe and action"):
                probe = int(line.split()[0])
            elif "children, warm" in line:
                row[f"warm_rows_{probe}"], row[f"warm_s_{probe}"] = int(line.split()[-4]), float(line.split()[-2])
            elif "removed exactly" in line:
                row[f"exact_rows_{probe}"], row[f"exact_s_{probe}"] = int(line.split()[-4]), float(line.split()[-2])
        rows.append(row)
        print(json.dumps(row), flush=True)
    if options.svg:
        for what, unit in (("rows", "tokens computed"), ("s", "seconds on two cores")):
            lines = {
                "exact leave-one-out, prefix reused": [(r["tokens"], r[f"exact_{what}_96"]) for r in rows],
                "needed, enough, cluster (ours)": [(r["tokens"], r[f"warm_{what}_96"]) for r in rows],
            }
            file = str(options.svg).replace(".svg", f"-{'tokens' if what == 'rows' else 'seconds'}.svg")
            title = f"{unit}, one segment each 125 tokens, 96 of probe and action"
            curves(file, title, "tokens of context", unit, lines)


def growth(options):
    """How tokens grow to the window of SmolLM2, counted by the rule of docs/evaluation.md."""
    t, sizes = 96, range(500, 8193, 250)
    segments = lambda size: size // 125
    exact = lambda size: (segments(size) - 1) * size // 2 + segments(size) * t
    ours = lambda size: (2 * segments(size) + 3) * t
    lines = {
        "exact leave-one-out, prefix reused": [(size, exact(size)) for size in sizes],
        "the context, read once": [(size, size) for size in sizes],
        "needed, enough, cluster (ours)": [(size, ours(size)) for size in sizes],
    }
    for name, line in lines.items():
        print(f"{name}: {dict(line[2::5])}")
    title = "Tokens computed, one segment each 125 tokens, 96 of probe and action"
    curves(options.svg or "growth.svg", title, "tokens of context", "tokens computed", lines)


# --- plots ------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, EDGE = 640, 420, 60
COLOURS = ["#c0392b", "#1f6fb2", "#2e8b57"]


def frame(title, across, up, span_x, span_y, body):
    x, y = axis(span_x, EDGE, WIDTH - 20), axis(span_y, HEIGHT - EDGE, 40)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{EDGE}" y="22" font-size="14">{title}</text>',
    ]
    for value in ticks(span_x):
        parts.append(f'<path d="M{x(value):.1f} 40V{HEIGHT - EDGE}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{HEIGHT - EDGE + 16}" text-anchor="middle">{value:g}</text>')
    for value in ticks(span_y):
        parts.append(f'<path d="M{EDGE} {y(value):.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{EDGE - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 18}" text-anchor="middle">{across}</text>')
    middle = HEIGHT / 2
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{up}</text>')
    return "\n".join([*parts, *body(x, y), "</svg>", ""])


def axis(span, low, high):
    return lambda value: low + (value - span[0]) / (span[1] - span[0]) * (high - low)


def ticks(span):
    step = 10 ** math.floor(math.log10((span[1] - span[0]) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if (span[1] - span[0]) / (step * factor) <= 8)
    return [step * n for n in range(math.ceil(span[0] / step), math.floor(span[1] / step) + 1)]


def scatter(file, title, across, up, pairs):
    every = [value for pair in pairs for value in pair]
    span = (min(every) - 0.5, max(every) + 0.5)

    def body(x, y):
        yield f'<path d="M{x(span[0]):.1f} {y(span[0]):.1f}L{x(span[1]):.1f} {y(span[1]):.1f}" stroke="#999"/>'
        for m, e in pairs:
            yield f'<circle cx="{x(e):.1f}" cy="{y(m):.1f}" r="2.5" fill="{COLOURS[1]}" fill-opacity="0.45"/>'

    Path(file).write_text(frame(title, across, up, span, span, body))


def curves(file, title, across, up, lines):
    points = [point for line in lines.values() for point in line]
    span_x, span_y = (0, max(x for x, _ in points) * 1.05), (0, max(y for _, y in points) * 1.05)

    def body(x, y):
        for number, (name, line) in enumerate(lines.items()):
            colour = COLOURS[number]
            path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in line)
            yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
            yield f'<text x="{EDGE + 10}" y="{60 + 18 * number}" fill="{colour}">{name}</text>'

    Path(file).write_text(frame(title, across, up, span_x, span_y, body))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bfcl", "planted", "sessions", "suggest", "masked", "verdicts", "growth", "cost"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("-m", "--model", default="smollm2")
    parser.add_argument("--quorate", default=ROOT / "target/release/quorate")
    parser.add_argument("--example", default=ROOT / "target/release/examples/evaluate-cost")
    parser.add_argument("--data", default=ROOT.parent / "shared/data")
    parser.add_argument("--out", default=ROOT / "target/evaluator")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wording", choices=data_sets.WORDINGS, default="asked")
    parser.add_argument("--rule", choices=["nearest", "alike"], default="nearest")
    parser.add_argument("--of", choices=["miniswe", "tau", "bfcl"], default="miniswe")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 6000, 8000])
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--independent", action="store_true")
    parser.add_argument("--again", type=int, default=0, help="with --independent: tokens of each segment read once more")
    parser.add_argument("--seconds", type=int, default=0, help="begin no new part after so many")
    parser.add_argument("--svg")
    options = parser.parse_args()
    if options.what not in ("masked", "verdicts", "growth", "cost") and not Path(options.data).is_dir():
        sys.exit(f"{options.data} is not there: give the folder of the data sets with --data")
    {"bfcl": bfcl, "planted": planted, "sessions": sessions, "suggest": suggest, "masked": masked, "verdicts": verdicts, "growth": growth, "cost": cost}[options.what](options)


if __name__ == "__main__":
    main()
