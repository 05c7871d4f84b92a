"""The official client against the nodes of a cluster, with API keys. Run by front.rs: a scenario, and what it needs as JSON.

What it used, by the answers' own words, is printed as JSON for the test to compare with the ledger."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import openai

HELLO = [{"role": "user", "content": "Say something."}]
SCRIPTED = "scripted"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def client(url, key, **more):
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120, **more)


def refused(kind, call):
    try:
        call()
    except kind as error:
        check(error.body["message"] and error.body["type"], error.body)
        return error
    raise AssertionError(f"{kind.__name__} was expected")


class Used:
    """Sums of what answers say they used."""

    def __init__(self):
        self.prompt = self.cached = self.generated = self.calls = 0

    def add(self, usage):
        check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage)
        self.prompt += usage.prompt_tokens
        self.cached += usage.prompt_tokens_details.cached_tokens
        self.generated += usage.completion_tokens
        self.calls += 1

    def told(self):
        return {"new_tokens": self.prompt - self.cached + self.generated, "cached_tokens": self.cached, "calls": self.calls}


def say(client, used, model=SCRIPTED, **more):
    made = client.chat.completions.create(model=model, messages=HELLO, **more)
    used.add(made.usage)
    return made


def keys(urls, submitter, other, viewer, everybody):
    """Who may ask, and at whose expense."""
    used, others = Used(), Used()
    for url in urls:
        mine = client(url, submitter)
        check(SCRIPTED in [model.id for model in mine.models.list()], "every node knows every model")
        check(say(mine, used, max_tokens=4).usage.completion_tokens == 4, "an answer, whoever was asked")
        refused(openai.AuthenticationError, lambda: say(client(url, "qk_nobody"), used))
        check(refused(openai.PermissionDeniedError, lambda: say(client(url, viewer), used)).status_code == 403, "viewer")
        check(client(url, viewer).models.list().data, "a viewer may look")
        missing = refused(openai.NotFoundError, lambda: say(mine, used, model="nothing"))
        check(missing.code == "model_not_found", missing)
    say(client(urls[0], other), others, max_tokens=3)
    # A key for every project says which one it means.
    say(client(urls[0], everybody, project="b"), others, max_tokens=3)
    denied = refused(openai.PermissionDeniedError, lambda: say(client(urls[0], submitter, project="b"), used))
    check(denied.status_code == 403, denied)
    stream = client(urls[-1], submitter).chat.completions.create(
        model=SCRIPTED, messages=HELLO, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    check(len(chunks) > 4 and chunks[-1].usage.completion_tokens == 5, chunks)
    used.add(chunks[-1].usage)
    unsupported = refused(openai.BadRequestError, lambda: say(client(urls[0], submitter), used, top_p=0.5))
    check(unsupported.param == "top_p" and unsupported.code == "unsupported_parameter", unsupported)
    return {"a": used.told(), "b": others.told()}


def tools(urls, submitter):
    """Calls that a model makes elsewhere, and what comes behind them."""
    used, mine = Used(), client(urls[0], submitter)
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    ask = [{"role": "user", "content": "How late is it? Use the clock."}]
    made = mine.chat.completions.create(model=SCRIPTED, messages=ask, tools=[tool], max_tokens=50)
    used.add(made.usage)
    call = made.choices[0].message.tool_calls[0]
    check(call.function.name == "clock" and made.choices[0].finish_reason == "tool_calls", made)
    ask += [made.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "noon"}]
    made = mine.chat.completions.create(model=SCRIPTED, messages=ask, tools=[tool], max_tokens=50)
    used.add(made.usage)
    check(made.choices[0].message.content == "It is noon.", made)
    return {"a": used.told()}


def budget(urls, submitter, at_once):
    """Until the budget is used up, from several clients and nodes at the same time."""
    used, refusals = Used(), []

    def until_refused(number):
        mine = client(urls[number % len(urls)], submitter)
        made = []
        while True:
            try:
                made.append(mine.chat.completions.create(model=SCRIPTED, messages=HELLO, max_tokens=7).usage)
            except openai.RateLimitError as error:
                return made, error

    with ThreadPoolExecutor(at_once) as pool:
        for made, error in pool.map(until_refused, range(at_once)):
            for usage in made:
                used.add(usage)
            refusals.append(error)
    for error in refusals:
        check(error.code == "insufficient_quota" and error.type == "insufficient_quota", error.body)
        check(error.response.headers["x-should-retry"] == "false", "clients are told not to try again")
    return {"a": used.told()}


def rate(urls, submitter):
    """So many requests a minute: the next one is told when to come back."""
    used, mine = Used(), client(urls[0], submitter)
    for _ in range(2):
        say(mine, used, max_tokens=2)
    error = refused(openai.RateLimitError, lambda: say(mine, used, max_tokens=2))
    check(error.code == "rate_limit_exceeded" and int(error.response.headers["retry-after"]) > 1, error.body)
    return {"a": used.told()}


def money(urls, submitter):
    """A model without a price is refused where money is limited."""
    used, mine = Used(), client(urls[0], submitter)
    error = refused(openai.PermissionDeniedError, lambda: say(mine, used, max_tokens=2))
    check(error.code == "model_not_priced", error.body)
    return {"a": used.told()}


def engine(urls, submitter):
    """The engine of another node: forms, calls, a cached beginning."""
    model, used = "smollm2", Used()
    nodes = [client(url, submitter) for url in urls]
    asked = dict(model=model, messages=HELLO, max_tokens=24, temperature=0)
    raw = nodes[0].chat.completions.with_raw_response.create(**asked)
    first = raw.parse()
    used.add(first.usage)
    for mine in nodes:
        raw = mine.chat.completions.with_raw_response.create(**asked)
        again = raw.parse()
        used.add(again.usage)
        check(again.choices[0].message.content == first.choices[0].message.content, "the same words from every node")
        check(again.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens // 16 * 16 - 16, again)
        check(raw.headers["x-quorate-node"].startswith("worker"), raw.headers)
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 12}, "length": {"type": "integer"}},
        "required": ["word", "length"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "word", "schema": schema, "strict": True}}
    made = nodes[0].chat.completions.create(model=model, messages=HELLO, response_format=form, max_tokens=200, seed=1)
    used.add(made.usage)
    check(set(json.loads(made.choices[0].message.content)) == {"word", "length"}, made)
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    made = nodes[0].chat.completions.create(
        model=model, messages=HELLO, tools=[tool], tool_choice="required", max_tokens=60, temperature=0
    )
    used.add(made.usage)
    check(made.choices[0].message.tool_calls[0].function.name == "clock", made)
    two = nodes[0].completions.create(model=model, prompt=["One, two,", "The sea"], max_tokens=6, temperature=0)
    used.add(two.usage)
    check(two.usage.completion_tokens == 12 and len(two.choices) == 2, two)
    chunks = list(nodes[-1].completions.create(
        model=model, prompt="The sea", max_tokens=6, temperature=0, stream=True, stream_options={"include_usage": True}
    ))
    used.add(chunks[-1].usage)
    check("".join(chunk.choices[0].text for chunk in chunks[:-1]) == two.choices[1].text, chunks)
    refused(openai.BadRequestError, lambda: say(nodes[0], used, model=model, max_tokens=100000))
    return {"a": used.told()}


if __name__ == "__main__":
    scenario, given = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(globals()[scenario](**given)))
