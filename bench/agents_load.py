#!/usr/bin/env python3
"""A fleet of agents over an OpenAI-compatible /v1/completions, with nothing but the standard library.

Every agent's first prompt is the same background followed by a part of its own. It asks, appends the answer and
the result of a tool, pauses as if the tool ran, and asks again. All agents start at once. Prompts are made of
words that are one token each in the model's vocabulary, so that their lengths are what was asked for; the
server's own counts are reported.

Words come from a JSON list (--words) or from the model file itself (--model-file). Loopback only.
"""

import argparse
import asyncio
import json
import pathlib
import random
import statistics
import struct
import sys
import time
import urllib.parse


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="default", help="the name that requests carry")
    parser.add_argument("--agents", type=int, default=16)
    parser.add_argument("--shared", type=int, default=1500, help="tokens of the background")
    parser.add_argument("--private", type=int, default=200, help="tokens of each agent's own beginning")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--gen", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--tool", type=int, default=100, help="tokens of each tool result")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds that a tool takes")
    parser.add_argument("--stagger", type=float, default=0.0, help="seconds between the starts of two agents")
    parser.add_argument("--prime", action="store_true", help="send the background before the clock starts")
    parser.add_argument("--prime-in", action="store_true", help="send it first, with the clock running")
    parser.add_argument("--words", help="a JSON list of words that are one token each")
    parser.add_argument("--model-file", help="a GGUF file to take such words from")
    parser.add_argument("--seed", type=int, default=time.time_ns() // 1000, help="of the prompts")
    parser.add_argument("--no-ignore-eos", action="store_true")
    parser.add_argument("--extra", default="{}", help="JSON to merge into every request")
    parser.add_argument("--pin-slots", action="store_true", help="llama-server: one slot for each agent")
    parser.add_argument("--label", default="")
    parser.add_argument("--timeout", type=float, default=1200)
    parser.add_argument("--json", default="", help="append the result to this file")
    options = parser.parse_args(arguments)
    options.url = urllib.parse.urlparse(options.base_url)
    if options.url.hostname not in ("127.0.0.1", "localhost", "::1"):
        parser.error(f"{options.base_url} is not this machine; a load goes to the loopback address only")
    if not options.words and not options.model_file:
        parser.error("give --words FILE or --model-file MODEL.gguf, to make prompts from")
    return options


# Words

# So many of a vocabulary's first words, which are its most common ones: texts of rare words are answered with pieces of
# words, which are other tokens when they come back as a part of the next prompt.
COMMON = 6000


def one_token_words(options):
    if options.words:
        return json.loads(pathlib.Path(options.words).read_text())
    tokens = vocabulary(options.model_file)
    space = next((mark for mark in ("Ġ", "▁") if sum(token.startswith(mark) for token in tokens) > 1000), None)
    if space is None:
        raise SystemExit(f"{options.model_file} has no vocabulary of words with a space before them; give --words")
    words = (token[1:] for token in tokens if token.startswith(space))
    plain = [word for word in words if 4 <= len(word) <= 9 and word.isascii() and word.islower() and word.isalpha()]
    return plain[:COMMON]


SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9


def vocabulary(path):
    """The tokens in a GGUF file's metadata."""
    with open(path, "rb") as file:
        magic, version, _, pairs = read(file, "4sIQQ")
        if magic != b"GGUF" or version < 2:
            raise SystemExit(f"{path} is no GGUF file of version 2 or 3")
        for _ in range(pairs):
            key, (kind,) = read_text(file), read(file, "I")
            found = read_value(file, kind)
            if key == "tokenizer.ggml.tokens":
                return found
    raise SystemExit(f"{path} has no vocabulary")


def read(file, form):
    form = "<" + form
    return struct.unpack(form, file.read(struct.calcsize(form)))


def read_text(file):
    return file.read(*read(file, "Q")).decode("utf-8", "replace")


def read_value(file, kind):
    if kind == TEXT:
        return read_text(file)
    if kind == LIST:
        inner, count = read(file, "IQ")
        return [read_value(file, inner) for _ in range(count)]
    return read(file, SCALARS[kind])[0]


def text_of(rng, words, count):
    return "".join(" " + rng.choice(words) for _ in range(count))


# HTTP


async def request(url, method, path, body=None, on_line=None):
    """The status and the body; lines of a good answer go to `on_line` as they come."""
    data = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80, limit=1 << 22)
    try:
        head = [
            f"{method} {url.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {url.hostname}",
            "Content-Type: application/json",
            "Accept: */*",
            "Authorization: Bearer none",
            f"Content-Length: {len(data)}",
            "Connection: close",
        ]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        status = int((await reader.readline()).split()[1])
        headers = await read_headers(reader)
        lines = Lines(on_line if status == 200 else None)
        async for piece in pieces(reader, headers):
            lines.feed(piece)
        return status, lines.finish()
    finally:
        writer.close()


async def read_headers(reader):
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, content = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = content.strip().lower()
    return headers


async def pieces(reader, headers):
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int((await reader.readline()).split(b";")[0] or b"0", 16):
            yield await reader.readexactly(size)
            await reader.readline()
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while piece := await reader.read(1 << 16):
            yield piece


class Lines:
    def __init__(self, on_line):
        self.on_line, self.rest, self.whole = on_line, b"", []

    def feed(self, piece):
        if self.on_line is None:
            self.whole.append(piece)
            return
        *lines, self.rest = (self.rest + piece).split(b"\n")
        for line in lines:
            self.on_line(line.rstrip(b"\r"))

    def finish(self):
        if self.on_line and self.rest:
            self.on_line(self.rest)
        return b"".join(self.whole)


# Agents


class Answer:
    """One streamed completion: its text, when each piece came, and what the server counted."""

    def __init__(self):
        self.start, self.times, self.texts = time.perf_counter(), [], []
        self.usage, self.timings = {}, {}

    def line(self, line):
        if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
            return
        event = json.loads(line[5:])
        self.usage = event.get("usage") or self.usage
        self.timings = event.get("timings") or self.timings
        for choice in event.get("choices") or []:
            text = choice.get("text")
            if text is None:
                text = (choice.get("delta") or {}).get("content")
            if text or (text is not None and choice.get("finish_reason") is None):
                self.times.append(time.perf_counter())
                self.texts.append(text)

    @property
    def text(self):
        return "".join(self.texts)

    @property
    def first_s(self):
        return self.times[0] - self.start if self.times else None

    @property
    def prompt(self):
        return self.usage.get("prompt_tokens") or 0

    @property
    def generated(self):
        counted = self.usage.get("completion_tokens")
        return len(self.texts) if counted is None else counted

    @property
    def cached(self):
        """Tokens of the prompt that were not computed; None when the server does not say."""
        if "cache_n" in self.timings:
            return self.timings["cache_n"]
        return (self.usage.get("prompt_tokens_details") or {}).get("cached_tokens")


class Fleet:
    def __init__(self, options, words):
        self.options, self.words = options, words
        self.answers = []  # (turn, answer)

    async def ask(self, prompt, tokens, agent=None):
        options = self.options
        body = {
            "model": options.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not options.no_ignore_eos:
            body["ignore_eos"] = True
        if options.pin_slots and agent is not None:
            body["id_slot"] = agent
        body.update(json.loads(options.extra))
        answer = Answer()
        status, error = await request(options.url, "POST", "/v1/completions", body, answer.line)
        if status != 200:
            raise SystemExit(f"{options.base_url} answered {status}: {error[:500].decode(errors='replace')}")
        return answer

    async def agent(self, number, background):
        options, rng = self.options, random.Random(self.options.seed * 1000 + number)
        context = background + text_of(rng, self.words, options.private)
        await asyncio.sleep(number * options.stagger)
        for turn in range(options.turns):
            answer = await self.ask(context, options.gen, number)
            self.answers.append((turn, answer))
            context += answer.text + text_of(rng, self.words, options.tool)
            if turn + 1 < options.turns:
                await asyncio.sleep(options.pause)

    async def run(self):
        """Seconds from the start of all agents to the end of the last."""
        options = self.options
        background = text_of(random.Random(options.seed), self.words, options.shared)
        if options.prime:
            await self.ask(background, 1)
        start = time.perf_counter()
        if options.prime_in:
            await self.ask(background, 1)
        agents = [self.agent(number, background) for number in range(options.agents)]
        await asyncio.wait_for(asyncio.gather(*agents), options.timeout)
        return time.perf_counter() - start


# The result


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, round(part * (len(values) - 1)))]


def rounded(value, digits):
    return None if value is None else round(value, digits)


def mean(values):
    values = [value for value in values if value is not None]
    return statistics.mean(values) if values else None


def result(options, answers, seconds):
    every = [answer for _, answer in answers]
    first = [answer.first_s for answer in every if answer.first_s is not None]
    between = [later - earlier for answer in every for earlier, later in zip(answer.times, answer.times[1:])]
    generated = sum(answer.generated for answer in every)
    prompt = sum(answer.prompt for answer in every)
    known = [answer.cached for answer in every if answer.cached is not None]
    cached = sum(known) if known else None
    ms = lambda part: round(1000 * percentile(between, part), 1) if between else None
    names = ("label", "agents", "shared", "private", "turns", "gen", "tool", "pause", "seed", "prime")
    return {
        **{name: getattr(options, name) for name in names},
        "makespan_s": round(seconds, 2),
        "gen_tokens": generated,
        "gen_tok_s": round(generated / seconds, 1),
        "ttft_mean": rounded(mean(first), 3),
        "ttft_p50": round(percentile(first, 0.5), 3),
        "ttft_p95": round(percentile(first, 0.95), 3),
        "prompt_tokens": prompt,
        "cached_tokens": cached,
        "computed_tokens": None if cached is None else prompt - cached,
        "itl_p50_ms": ms(0.5),
        "itl_p95_ms": ms(0.95),
        "per_turn": [turn_of(answers, turn) for turn in range(options.turns)],
    }


def turn_of(answers, turn):
    these = [answer for its, answer in answers if its == turn]
    first = [answer.first_s for answer in these if answer.first_s is not None]
    return {
        "turn": turn + 1,
        "ttft_mean": rounded(mean(first), 3),
        "ttft_p95": round(percentile(first, 0.95), 3),
        "prompt_tokens_mean": rounded(mean(answer.prompt for answer in these), 1),
        "cached_mean": rounded(mean(answer.cached for answer in these), 1),
        "gen_mean": rounded(mean(answer.generated for answer in these), 1),
    }


async def counters(url):
    """What the server's /metrics counts about prompts, caches and answers; nothing where it has no such page."""
    try:
        status, body = await asyncio.wait_for(request(url, "GET", "/metrics"), 5)
    except (OSError, asyncio.TimeoutError, ValueError, IndexError):
        return {}
    found = {}
    for line in body.decode(errors="replace").splitlines() if status == 200 else []:
        name, _, number = line.rpartition(" ")
        name = name.split("{")[0]
        wanted = any(part in name for part in ("prompt", "prefix_cache", "generation_tokens", "tokens_"))
        if line.startswith("#") or not wanted or "bucket" in name or "created" in name:
            continue
        try:
            found[name] = found.get(name, 0) + float(number)
        except ValueError:
            pass
    return found


async def main():
    options = parse()
    fleet = Fleet(options, one_token_words(options))
    before = await counters(options.url)
    seconds = await fleet.run()
    after = await counters(options.url)
    outcome = result(options, fleet.answers, seconds)
    changes = {name: round(count - before.get(name, 0), 2) for name, count in after.items()}
    outcome["metrics_delta"] = {name: change for name, change in changes.items() if change}
    parts = ("per_turn", "metrics_delta")
    print(json.dumps({name: value for name, value in outcome.items() if name not in parts}))
    for turn in outcome["per_turn"]:
        print("   ", json.dumps(turn))
    if outcome["metrics_delta"]:
        print("    metrics:", json.dumps(outcome["metrics_delta"]))
    if options.json:
        with open(options.json, "a") as file:
            file.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (OSError, asyncio.TimeoutError) as error:
        sys.exit(f"the load did not end well: {error or type(error).__name__}; does the server run, and is --timeout enough?")
