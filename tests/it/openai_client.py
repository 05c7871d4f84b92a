"""The official client against `quorate engine serve`: what its users do, unchanged. Run by openai.rs."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0, timeout=120)
MODEL = "smollm2"
HELLO = [{"role": "user", "content": "Say hello in one short sentence."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def models():
    names = [model.id for model in client.models.list()]
    check(names == [MODEL], names)
    check(client.models.retrieve(MODEL).object == "model", "the model by its name")


def chat():
    made = client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=24, temperature=0)
    choice = made.choices[0]
    check(choice.message.role == "assistant" and choice.message.content, made)
    check(choice.finish_reason in ("stop", "length"), made)
    usage = made.usage
    check(0 < usage.completion_tokens <= 24 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, made)
    again = client.chat.completions.create(model="any name", messages=HELLO, max_tokens=24, temperature=0)
    check(again.choices[0].message.content == choice.message.content, "the same words again")
    # The last token's row must run in any case; all full blocks before it are found.
    check(again.usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens // 16 * 16 - 16, again)
    return choice.message.content


def streaming(whole):
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    check(chunks[0].choices[0].delta.role == "assistant", chunks[0])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(text == whole, (text, whole))
    ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    check(len(ends) == 1 and len(chunks) > 4, chunks)
    check(chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices, chunks[-1])
    check(all(chunk.usage is None for chunk in chunks[:-1]), "usage comes once")


def completions():
    asked = dict(model=MODEL, max_tokens=12, temperature=0)
    made = client.completions.create(prompt="The capital of France is", **asked)
    check(made.object == "text_completion" and made.choices[0].text, made)
    two = client.completions.create(prompt=["The capital of France is", "One, two, three,"], **asked)
    check([choice.index for choice in two.choices] == [0, 1], two)
    check(two.choices[0].text == made.choices[0].text, "alone or beside another: the same words")
    pieces = client.completions.create(prompt="The capital of France is", stream=True, **asked)
    check("".join(piece.choices[0].text for piece in pieces) == made.choices[0].text, "in pieces: the same words")
    stopped = client.completions.create(prompt="One, two, three,", stop=["five", "six"], **asked)
    check("five" not in stopped.choices[0].text and stopped.choices[0].finish_reason == "stop", stopped)
    tokens = client.completions.create(prompt=[504, 3575, 282, 4649, 314], **asked)
    check(tokens.usage.prompt_tokens == 5, tokens)
    on = client.completions.create(prompt="The end.", extra_body={"ignore_eos": True}, **asked)
    check(on.usage.completion_tokens == 12, on)


def seeds():
    asked = dict(model=MODEL, messages=HELLO, max_tokens=16, temperature=1.5, top_p=0.95)
    say = lambda **more: client.chat.completions.create(**asked, **more).choices[0].message.content
    check(say(seed=7) == say(seed=7), "a seed repeats itself")
    check(len({say(seed=seed) for seed in range(4)}) > 1, "other seeds, other words")


def logprobs():
    made = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    )
    told = made.choices[0].logprobs.content
    check(len(told) == 5, told)
    for token in told:
        check(token.logprob <= 0 and len(token.top_logprobs) == 3, token)
        check(token.logprob == token.top_logprobs[0].logprob and token.token == token.top_logprobs[0].token, token)
    check("".join(token.token for token in told) == made.choices[0].message.content, told)
    old = client.completions.create(model=MODEL, prompt="One, two,", max_tokens=4, temperature=0, logprobs=2).choices[0]
    check(len(old.logprobs.tokens) == len(old.logprobs.token_logprobs) == len(old.logprobs.text_offset) == 4, old)
    check(old.logprobs.text_offset[0] == 0 and len(old.logprobs.top_logprobs[0]) == 2, old)
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, max_tokens=5, temperature=0, logprobs=True, stream=True
    )
    seen = [token for chunk in stream if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    check([token.token for token in seen] == [token.token for token in told], seen)


def forms():
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 12}, "length": {"type": "integer"}, "good": {"type": "boolean"}},
        "required": ["word", "length", "good"],
        "additionalProperties": False,
    }
    named = {"type": "json_schema", "json_schema": {"name": "word", "schema": schema, "strict": True}}
    for seed in range(3):
        made = client.chat.completions.create(
            model=MODEL, messages=HELLO, response_format=named, max_tokens=200, temperature=1, seed=seed
        )
        value = json.loads(made.choices[0].message.content)
        check(set(value) == {"word", "length", "good"} and isinstance(value["length"], int), value)
        check(made.choices[0].finish_reason == "stop", made)
    made = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "An empty JSON object, please."}],
        response_format={"type": "json_object"},
        max_tokens=60,
        temperature=0,
    )
    check(made.choices[0].message.content.startswith("{"), made)


def tools():
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = dict(model=MODEL, messages=ask, tools=[WEATHER, CLOCK], max_tokens=120, temperature=0)
    named = {"type": "function", "function": {"name": "get_weather"}}
    made = client.chat.completions.create(tool_choice=named, **asked)
    check(made.choices[0].finish_reason == "tool_calls", made)
    call = made.choices[0].message.tool_calls[0]
    check(call.function.name == "get_weather" and call.id.startswith("call_"), call)
    check(json.loads(call.function.arguments)["unit"] in ("celsius", "fahrenheit"), call)
    required = client.chat.completions.create(tool_choice="required", **asked).choices[0].message.tool_calls[0]
    check(required.function.name in ("get_weather", "get_time"), required)
    stream = client.chat.completions.create(tool_choice=named, stream=True, **asked)
    deltas = [chunk.choices[0] for chunk in stream]
    pieces = [piece for choice in deltas for piece in choice.delta.tool_calls or []]
    check(pieces[0].index == 0 and pieces[0].function.name == "get_weather", pieces)
    arguments = "".join(piece.function.arguments or "" for piece in pieces)
    check(arguments == call.function.arguments and deltas[-1].finish_reason == "tool_calls", deltas)
    check(not any(choice.delta.content for choice in deltas), "no text beside the call")
    # The conversation goes on behind the call.
    ask += [made.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"}]
    after = client.chat.completions.create(model=MODEL, messages=ask, tools=[WEATHER], max_tokens=20, temperature=0)
    check(after.choices[0].message.content, after)
    free = client.chat.completions.create(tool_choice="auto", **asked)
    check(free.choices[0].message.content or free.choices[0].message.tool_calls, free)
    none = client.chat.completions.create(tool_choice="none", **asked)
    check(none.choices[0].message.tool_calls is None, none)


def refused(kind, **request):
    try:
        client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **request})
    except kind as error:
        check(error.body["message"] and error.body["type"], error.body)
        return error
    raise AssertionError(f"{request} was not refused")


def errors():
    bad = openai.BadRequestError
    check(refused(bad, messages=[]).param == "messages", "the field is named")
    check(refused(bad, temperature=-1).param == "temperature", "the field is named")
    check(refused(bad, n=2).param == "n", "the field is named")
    long = [{"role": "user", "content": "word " * 20000}]
    check(refused(bad, messages=long).code == "context_length_exceeded", "a code that clients know")
    check(refused(bad, max_tokens=100000).code == "context_length_exceeded", "a code that clients know")
    cannot = {"type": "string", "minLength": 5, "maxLength": 2}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": cannot}}
    check(refused(bad, response_format=form).code == "invalid_json_schema", "a schema that can't be met")
    too_large = [{"role": "user", "content": "x" * (5 << 20)}]
    check(refused(openai.APIStatusError, messages=too_large).status_code == 413, "too large")
    try:
        client.embeddings.create(model=MODEL, input="x")
        raise AssertionError("there are no embeddings")
    except openai.NotFoundError as error:
        check(error.code == "unknown_url", error)


models()
streaming(chat())
for part in (completions, seeds, logprobs, forms, tools, errors):
    part()
    print("ok", part.__name__)
