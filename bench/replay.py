"""Tables of what `quorate engine replay -o json` measured, and an independent look at LRU and Belady.

Usage: replay.py FOLDER_OF_RESULTS FOLDER_OF_TRACES > page.md
"""

import collections
import heapq
import json
import sys


def lru(requests, room):
    """Hits of least recently used; a request's blocks are touched from its end, so that tails go first."""
    kept, hits = collections.OrderedDict(), 0
    for ids in requests:
        for block in ids:
            if block not in kept:
                break
            hits += 1
        for block in reversed(ids):
            kept[block] = True
            kept.move_to_end(block)
        while len(kept) > room:
            kept.popitem(last=False)
    return hits


def belady(requests, room):
    """Hits when the block that is needed last goes first."""
    accesses = [block for ids in requests for block in ids]
    following, last = [0] * len(accesses), {}
    for place in range(len(accesses) - 1, -1, -1):
        following[place] = last.get(accesses[place], 1 << 60)
        last[accesses[place]] = place
    kept, line, hits = {}, [], 0
    for place, block in enumerate(accesses):
        if block in kept:
            hits += 1
        elif len(kept) >= room:
            while True:
                when, other = heapq.heappop(line)
                if kept.get(other) == -when:
                    break
            del kept[other]
        kept[block] = following[place]
        heapq.heappush(line, (-following[place], block))
    return hits


def rows(folder, name):
    with open(f"{folder}/{name}.json") as file:
        return json.load(file)


def seconds(folder, name):
    with open(f"{folder}/{name}.seconds") as file:
        return file.read()


def mooncake(folder, data):
    found = rows(folder, "mooncake")
    sizes = sorted({row["blocks"] for row in found})
    policies = list(dict.fromkeys(row["policy"] for row in found))
    with open(f"{data}/mooncake/synthetic_trace.jsonl") as file:
        requests = [json.loads(line)["hash_ids"] for line in file]
    asked = sum(map(len, requests))
    hit = {(row["policy"], row["blocks"]): row["hit"] for row in found}
    print("\n## Which block goes: Mooncake's synthetic trace\n")
    print(f"{len(requests)} requests, {asked} blocks of 512 tokens asked for. Hit = found blocks of all asked for.")
    print(f"All policies at all sizes took {seconds(folder, 'mooncake')} s.\n")
    print("| policy |" + "".join(f" {size} blocks |" for size in sizes))
    print("|---|" + "---|" * len(sizes))
    for policy in policies:
        print(f"| {policy} |" + "".join(f" {hit[policy, size]:.4f} |" for size in sizes))
    for name, reference in (("lru", lru), ("belady", belady)):
        values = [reference(requests, size) / asked for size in sizes]
        print(f"| *{name}, by bench/replay.py* |" + "".join(f" {value:.4f} |" for value in values))
    gap = [(hit["ours", s] - hit["lru", s]) / (hit["belady", s] - hit["lru", s]) for s in sizes]
    print("| ours: part of the way from lru to belady |" + "".join(f" {value:.2f} |" for value in gap))
    print("\nAt 5,000 blocks:\n")
    print("| policy | hit | re-prefilled tokens | new tokens | evictions |")
    print("|---|---|---|---|---|")
    for row in found:
        if row["blocks"] == 5000:
            print(f"| {row['policy']} | {row['hit']:.4f} | {row['reprefilled']} | {row['new']} | {row['evictions']} |")


def sessions(folder, name, title):
    found = rows(folder, name)
    print(f"\n### {title}\n")
    print(f"Pool of {found[0]['blocks']} blocks of 16 tokens, {found[0]['requests']} calls; "
          f"the run took {seconds(folder, name)} s.\n")
    print("| policy | tiers | computed / new | re-prefilled | new | hit | restored bytes | evictions | makespan s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in found:
        print(f"| {row['policy']} | {row['tiers']} | {row['computed_per_new']:.3f} | {row['reprefilled']} | "
              f"{row['new']} | {row['hit']:.4f} | {row['restored_bytes']} | {row['evictions']} | "
              f"{row['makespan_ms'] / 1000:.1f} |")


def queue(folder, name, title):
    found = rows(folder, name)
    print(f"\n### {title}\n\n| policy | requests | hit | new tokens | wait p50 / p95 / max, s | makespan s |")
    print("|---|---|---|---|---|---|")
    for row in found:
        waits = " / ".join(f"{row['waits'][key] / 1000:.1f}" for key in ("p50_ms", "p95_ms", "max_ms"))
        print(f"| {row['policy']} | {row['requests']} | {row['hit']:.4f} | {row['new']} | {waits} | "
              f"{row['makespan_ms'] / 1000:.0f} |")


def main():
    folder, data = sys.argv[1:]
    print("# Replays in virtual time\n")
    print("Made by `bench/replay.sh`; no clock is read, so that the figures are the same on every machine (the")
    print("seconds that runs took are not). What the rows mean: docs/decisions/0012.")
    mooncake(folder, data)
    print("\n## Agents that pause: mini-swe sessions with half of the room\n")
    print("The sessions start together; gaps are the trace's own, 5 % of them 10 to 120 s longer (seeded). The pool")
    print("has half of the blocks that the prompts have. A session ends before its first call over 8,192 tokens.")
    print("1,000 prompt tokens/s, 100 steps/s, 1 GB/s from below. Computed / new: 1 is the least.")
    sessions(folder, "tokens", "With the model's tokenizer")
    sessions(folder, "miniswe", "Four bytes a token")
    sessions(folder, "seed", "Four bytes a token, other pauses (seed 2)")
    print("\n## Queues: Azure's arrivals\n")
    print("The trace says nothing of contents: every request is a chain of its own, so nothing can be found, and")
    print("policies cannot differ. Waits are from arrival to the first computed row, of one engine.")
    queue(folder, "azure", "1,000 prompt tokens/s: overloaded")
    queue(folder, "azure-fast", "8,000 prompt tokens/s")


main()
