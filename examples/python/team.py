"""A team reads documents: applies `examples/team`, creates a task, follows it, prints the report.

    quorate dev &                                   # or a cluster, named in QUORATE_ENDPOINT
    pip install ./sdk/python
    python examples/python/team.py docs/quotas.md docs/watch.md

The report is on stdout, everything about it on stderr. Kill nodes as you like: it goes on at another one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quorate import Client, Input, QuorateError, RetractEvent, StateEvent, StepEvent, Task, TokenEvent

TEAM = Path(__file__).parent.parent / "team"


def apply_team(client: Client) -> None:
    """The members first: a team that names somebody unknown is refused when a task is made."""
    for name in ("reader", "writer", "team"):
        agent = client.agents.apply((TEAM / f"{name}.toml").read_text())
        note(f"{agent.kind} {agent.name}, revision {agent.revision[:12]}")


def follow(task: Task) -> None:
    """Shows what happens to a task until nothing more will."""
    for event in task.watch():
        if isinstance(event, StateEvent):
            note(f"{task.agent} {event.state} {event.node or ''} {event.reason}")
        elif isinstance(event, StepEvent):
            note(f"{task.agent} step {event.step}: {event.usage.generated_tokens} tokens")
        elif isinstance(event, TokenEvent):
            print(event.text, end="", file=sys.stderr, flush=True)
        elif isinstance(event, RetractEvent):
            note("(forget that text: its node was lost)")


def main(files: list[str]) -> None:
    with Client() as client:
        apply_team(client)
        inputs = [Input(Path(file).read_text(), name=file) for file in files]
        task = client.tasks.create("team", inputs=inputs, labels={"from": "team.py"})
        follow(task)
        for member in client.tasks.list(f"parent={task.uid}"):
            usage = member.usage
            note(f"{member.agent} {member.id}: {usage.prompt_tokens} prompt tokens, {usage.cached_tokens} cached")
        print(task.result())


def note(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("no document is given: name some text files")
    try:
        main(sys.argv[1:])
    except QuorateError as error:
        sys.exit(f"{error}")
