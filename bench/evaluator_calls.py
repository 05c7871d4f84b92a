"""Recorded calls from the data sets of `../shared/data`, in the form that `quorate context eval --calls` reads.

Everything is picked by rules that are written here: nothing is random but the samples, and those have a fixed seed.
"""

import json
import random
import re
import unicodedata
from pathlib import Path

SEED = 6
SEGMENTS = 10


# --- bfcl-memory: a question, its answer, and the message of the user that has it -------------------------------------


def words(text):
    """Words alone, in lower case: quotes and dashes of the two texts are written in different ways."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower()))


def quotes(source):
    """The parts of a source between its ellipses."""
    parts = source if isinstance(source, list) else re.split(r"\.\.\.|…", source)
    return [part for part in map(words, parts) if part]


def conversation(folder, scenario):
    """What the user said in all sessions of a scenario, in order."""
    with open(folder / "conversations" / f"memory_{scenario}.json") as file:
        sessions = [json.loads(line)["question"] for line in file]
    return [turn["content"] for session in sessions for turns in session for turn in turns]


def nearest(messages, source):
    """The places of the source and the nine messages nearest to it in the conversation, the earlier one first."""
    order = sorted(range(len(messages)), key=lambda place: (abs(place - source), place))
    return sorted(order[:SEGMENTS])


def alike(messages, source):
    """The source and the nine messages that share the most words with it, by Jaccard's measure: harder."""
    of = [set(words(message).split()) for message in messages]
    share = lambda place: len(of[place] & of[source]) / max(1, len(of[place] | of[source]))
    order = sorted(range(len(messages)), key=lambda place: (-share(place), place))
    return sorted(order[:SEGMENTS])


def bfcl_questions(data):
    """(id, question, answers, messages, place of the source) of the questions whose quote is in one message."""
    folder = Path(data) / "bfcl-memory"
    with open(folder / "questions.json") as file:
        asked = {row["id"]: row for row in map(json.loads, file)}
    with open(folder / "answers.json") as file:
        answers = [json.loads(line) for line in file]
    for answer in answers:
        row = asked[answer["id"]]
        messages = conversation(folder, row["scenario"])
        parts = quotes(answer["source"])
        holds = [place for place, message in enumerate(messages) if all(p in words(message) for p in parts)]
        if holds:
            yield answer["id"], row["question"][0][0]["content"], answer["ground_truth"], messages, holds[0]


# How the question is put. The action is the reference answer, the first of them.
WORDINGS = {
    "plain": ("{text}\n\n", "Question: {question}\nAnswer:", " {answer}"),
    "notes": ('The user said: "{text}"\n', "\nQuestion about the user: {question}\nShort answer:", " {answer}\n"),
    "asked": ('The user said: "{text}"\n', "\nQuestion: {question}\nAnswer:", " {answer}\n"),
    "chat": (
        "<|im_start|>user\n{text}<|im_end|>\n",
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        "{answer}",
    ),
    "quiz": (
        "{text}\n\n",
        "According to the messages above, answer in a few words.\nQ: {question}\nA:",
        " {answer}\n",
    ),
}


def bfcl(data, wording="plain", rule="nearest"):
    """(calls, labels): one call a question; the label is the id of the segment that has the evidence."""
    segment_form, probe_form, action_form = WORDINGS[wording]
    pick = {"nearest": nearest, "alike": alike}[rule]
    calls, labels = [], {}
    for name, question, answers, messages, source in bfcl_questions(data):
        segments = [
            {"id": f"m{place}", "owner": "user", "kind": "message", "text": segment_form.format(text=messages[place])}
            for place in pick(messages, source)
        ]
        probe = probe_form.format(question=question)
        action = action_form.format(answer=answers[0])
        calls.append({"call": name, "segments": segments, "reader": "assistant", "probe": probe, "action": action})
        labels[name] = f"m{source}"
    return calls, labels


# --- miniswe and tau-airline: whole sessions of agents ----------------------------------------------------------------


def turns(text, least=200):
    """A prompt of miniswe is one text; its parts stand between blank lines, short ones together."""
    parts, begun = [], ""
    for part in re.split(r"(?<=\n)\n", text):
        begun += part + "\n"
        if len(begun) >= least:
            parts.append(begun)
            begun = ""
    return parts + [begun] if begun else parts


def named(text):
    """A name by content, so that the same text is the same segment in every call."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:12]


def miniswe(data, most_chars=24000):
    """{session: calls}: the sessions of a coding agent. Its prompt grows by what it did and what came of it, so a call's
    segments are what each earlier call added; the probe is the end of the last one. Longer prompts are left out."""
    sessions = {}
    for file in sorted((Path(data) / "miniswe").glob("*.jsonl")):
        rows = [json.loads(line) for line in open(file)]
        calls, before, known = [], "", []
        for number, row in enumerate(rows):
            prompt = row["input"]
            if not prompt.startswith(before):
                before, known = "", []
            added = prompt[len(before) :]
            known = known + [split for split in ([added] if before else turns(added, 600)) if split]
            before = prompt
            if len(prompt) <= most_chars and number:
                calls.append(swe_call(f"{file.stem[:6]}/{number}", known, row["output"]))
        sessions[file.stem[:6]] = calls
    return sessions


def swe_call(name, known, output):
    segments, seen = [], {}
    for text in known[:-1]:
        count = seen[text] = seen.get(text, 0) + 1
        segments.append(
            {
                "id": named(text) + (f"+{count}" if count > 1 else ""),
                "owner": "harness",
                "kind": "tool-result",
                "text": text,
            }
        )
    front, probe = known[-1][:-300], known[-1][-300:]
    if front:
        segments.append({"id": f"{named(front)}-last", "owner": "harness", "kind": "tool-result", "text": front})
    # What was decided is the command, not the prose before it.
    command = re.search(r"```bash\n(.*?)\n```", output, re.S)
    before, action = (output[: command.start()] + "```bash\n", command[1]) if command else ("", output)
    return {
        "call": name,
        "segments": segments,
        "reader": "coder",
        "probe": probe + "\n" + before[-200:],
        "action": action,
    }


def tau(data, trials=(0,)):
    """{conversation: calls}: one call each time that the agent used a tool. The policy is cut at its headings."""
    sessions = {}
    for row in map(json.loads, open(Path(data) / "tau-airline" / "trajectories.jsonl")):
        if row["trial"] not in trials:
            continue
        session = f"{row['trial']}-{row['task_id']}"
        calls = []
        for place, message in enumerate(row["traj"]):
            if message["role"] == "assistant" and message.get("tool_calls") and place > 2:
                calls.append(tau_call(f"{session}/{place}", row["traj"][:place], message))
        sessions[session] = calls
    return sessions


def tau_text(message):
    calls = message.get("tool_calls") or []
    said = [f"{call['function']['name']}({call['function']['arguments']})" for call in calls]
    return f"{message['role']}: " + "\n".join([message.get("content") or "", *said]).strip() + "\n"


def tau_call(name, before, message):
    segments, seen = [], {}

    def add(owner, kind, text):
        count = seen[text] = seen.get(text, 0) + 1
        ident = named(text) + (f"+{count}" if count > 1 else "")
        segments.append({"id": ident, "owner": owner, "kind": kind, "text": text})

    for part in re.split(r"\n(?=#)", before[0]["content"]):
        add("policy", "system", part + "\n")
    owners = {"user": "customer", "tool": "tools", "assistant": "agent"}
    for earlier in before[1:-1]:
        kind = "tool-result" if earlier["role"] == "tool" else "message"
        add(owners[earlier["role"]], kind, tau_text(earlier))
    call = message["tool_calls"][0]["function"]
    last = tau_text(before[-1])
    if len(last) > 300:
        add(owners[before[-1]["role"]], "message", last[:-300])
        last = last[-300:]
    return {
        "call": name,
        "segments": segments,
        "reader": "agent",
        "probe": f"{last}assistant: {call['name']}(",
        "action": call["arguments"],
    }


def sample(sessions, count, seed=SEED):
    """Some calls of all sessions together, always the same, in their order."""
    every = [(session, call) for session, calls in sessions.items() for call in calls]
    chosen = sorted(random.Random(seed).sample(range(len(every)), min(count, len(every))))
    return [every[place] for place in chosen]
