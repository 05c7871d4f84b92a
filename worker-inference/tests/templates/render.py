"""Renders the conversations with Python's jinja2, set up as the `transformers` package sets it up, and writes
what our own renderer must give: one line for each template and conversation, with a hash of the text or the
word "refuses".

    python3 render.py FOLDER_OF_TEMPLATES > expected.txt        (needs the package jinja2)
"""

import datetime
import hashlib
import json
import pathlib
import sys

from jinja2.exceptions import TemplateError
from jinja2.ext import LoopControlExtension as loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATES = """
HuggingFaceTB-SmolLM3-3B Mistral-Small-3.2-24B-Instruct-2506 NousResearch-Hermes-3-Llama-3.1-8B-tool_use
Qwen-QwQ-32B Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B Qwen3-Coder Qwen3.5-4B
deepseek-ai-DeepSeek-R1-Distill-Llama-8B deepseek-ai-DeepSeek-R1-Distill-Qwen-32B google-gemma-2-2b-it
meta-llama-Llama-3.1-8B-Instruct meta-llama-Llama-3.2-3B-Instruct meta-llama-Llama-3.3-70B-Instruct
microsoft-Phi-3.5-mini-instruct mistralai-Ministral-3-14B-Reasoning-2512 mistralai-Mistral-Nemo-Instruct-2407
unsloth-mistral-Devstral-Small-2507
""".split()
NOW = 1_721_952_000


def environment():
    def raise_exception(message):
        raise TemplateError(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(format):
        return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(format)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    made.globals["strftime_now"] = strftime_now
    return made


def main():
    folder = pathlib.Path(sys.argv[1])
    data = json.loads((pathlib.Path(__file__).parent / "conversations.json").read_text())
    names = TEMPLATES if len(sys.argv) < 3 else sorted(path.stem for path in folder.glob("*.jinja"))
    for name in names:
        template = environment().from_string((folder / f"{name}.jinja").read_text())
        for kind, messages in data["conversations"].items():
            if name.endswith("tool_use") and kind not in ("tools", "parallel"):
                continue  # for conversations with tools alone
            tools = data["tools"] if kind in ("tools", "parallel") else None
            for opened in (False, True):
                shown = messages if opened else messages[:-1]
                given = dict(messages=shown, tools=tools, documents=None, add_generation_prompt=opened)
                try:
                    text = template.render(bos_token="<BOS>", eos_token="<EOS>", **given)
                    result = hashlib.sha256(text.encode()).hexdigest()[:32]
                except (TemplateError, TypeError, KeyError) as error:
                    result = "refuses"
                    print(f"{name} {kind}: {error}", file=sys.stderr)
                print(name, kind, "opened" if opened else "closed", result)


main()
