/** The SDK against clusters of real processes that are killed under it. */

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import * as quorate from "../src/index.js";
import { Cluster, MODEL, until } from "./cluster.js";

const WORDS = Array.from({ length: 100 }, (_, n) => `w${String(n + 1).padStart(4, "0")}`).join(" ");

const SCRIPT = `
window = 65536

[[reply]]
when_agent = "slow"
text = "${WORDS}"
tokens_per_second = 25

[[reply]]
when_agent = "large"
text = "${"0123456789abcde ".repeat(8_192)}"

[[reply]]
when_agent = "failing"
fail = "REFUSED"
retriable = false

[[reply]]
when_agent = "clerk"
when_results_below = 1
calls = [{ name = "files.write", arguments = '{"path": "a", "text": "b"}' }]

[[reply]]
when_agent = "asker"
when_results_below = 1
calls = [{ name = "ask_human", arguments = '{"question": "Which one?"}' }]

[[reply]]
when_agent = "talker"
when_message = 2
text = "Second."

[[reply]]
when_agent = "quick"
text = "Understood."

[[reply]]
text = "Said: {last}"
`;

const AGENTS: Record<string, string> = {
  quick: "", slow: "", large: "", failing: "",
  clerk: 'tools = [{ name = "files.write", approve = true }]',
  asker: 'tools = ["ask_human"]',
  talker: "conversation = true",
};

async function apply(client: quorate.Client): Promise<void> {
  for (const [name, more] of Object.entries(AGENTS)) {
    await client.agents.apply(`name = "${name}"\nmodel = "${MODEL}"\nmax_tokens = 20000\n${more}\n`);
  }
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** The one thing that a task asks. */
function askOf(task: quorate.Task): Promise<quorate.Ask> {
  return until("it asks", async () => (await task.refresh()).asks[0]);
}

const fresh = (what: string) => `${what}-${process.pid}-${performance.now().toFixed(3)}`;

describe("one node that is a whole cluster", () => {
  let cluster: Cluster;
  let client: quorate.Client;

  before(async () => {
    cluster = await Cluster.start(1, 0, SCRIPT);
    client = new quorate.Client({ endpoints: cluster.addresses(), project: "default" });
    await apply(client);
  });
  after(async () => {
    client?.close();
    await cluster?.stop();
  });

  test("a task is created, watched and read", async () => {
    const task = await client.tasks.create("quick", "hi", { labels: { a: "b" }, taskClass: "batch" });
    const watch = task.watch();
    const events = await all(watch);
    const committed = events.flatMap((event) => ("sequence" in event ? [event.sequence] : []));
    assert.deepEqual(committed, committed.map((_, at) => at + 1));
    assert.equal(watch.text, "Understood.");
    assert.equal(await task.result(), "Understood.");
    const ended = await task.refresh();
    assert.deepEqual([ended.state, ended.labels, ended.taskClass, ended.step], ["SUCCEEDED", { a: "b" }, "batch", 1]);
    assert.ok(ended.usage.generatedTokens > 0 && ended.endTime !== undefined && ended.endTime >= ended.createTime);
    const context = await client.context.get(task.uid, { withText: true });
    assert.ok(context.segments.some((segment) => segment.text?.includes("Understood.")));
  });

  test("large results are whole, and failures have reasons", async () => {
    const large = await client.tasks.create("large", "hi");
    assert.equal((await large.result()).trim(), "0123456789abcde ".repeat(8_192).trim());
    const failing = await client.tasks.create("failing", "hi");
    await assert.rejects(failing.result(), (error) => error instanceof quorate.NoResult && error.why !== undefined);
  });

  test("what does not exist is not found", async () => {
    await assert.rejects(client.tasks.get("nobody"), quorate.NotFound);
    await assert.rejects(client.tasks.watch("nobody").next(), quorate.NotFound);
    await assert.rejects(client.tasks.create("no-such-agent", "hi"), quorate.NotFound);
    await assert.rejects(client.agents.apply("name = 5"), quorate.InvalidArgument);
  });

  test("a request id makes one task and not another one", async () => {
    const requestId = fresh("once");
    const first = await client.tasks.create("quick", "hi", { requestId });
    assert.equal((await client.tasks.create("quick", "hi", { requestId })).uid, first.uid);
    const reused = client.tasks.create("quick", "something else", { requestId });
    await assert.rejects(reused, (error) => error instanceof quorate.Conflict && error.reason === "REQUEST_ID_REUSED");
  });

  test("a list goes over its pages, and a check changes nothing", async () => {
    const mark = fresh("m").replaceAll(".", "-");
    const made = await Promise.all([1, 2, 3, 4, 5].map(() => client.tasks.create("quick", "hi", { labels: { mark } })));
    const listed = await all(client.tasks.list(`label.mark=${mark}`, { pageSize: 2 }));
    assert.deepEqual(listed.map((task) => task.uid).sort(), made.map((task) => task.uid).sort());
    await client.tasks.create("quick", "hi", { taskId: mark, dryRun: true });
    await assert.rejects(client.tasks.get(mark), quorate.NotFound);
  });

  test("a verdict counts once", async () => {
    const task = await client.tasks.create("clerk", "hi");
    const ask = await askOf(task);
    assert.deepEqual([ask.kind, ask.tool], ["APPROVAL", "files.write"]);
    assert.ok(ask.text?.includes('"path"'));
    await assert.rejects(task.retry(), quorate.NotEnded);
    await task.approve(ask);
    await assert.rejects(task.reject(ask), quorate.Conflict);
    assert.match(await task.result({ timeoutMs: 60_000 }), /^Said: /);
    await assert.rejects(task.approve(), quorate.NothingAsked);
  });

  test("what is rejected is not done, and a question is answered", async () => {
    const clerk = await client.tasks.create("clerk", "hi");
    await askOf(clerk);
    await clerk.reject();
    assert.match(await clerk.result({ timeoutMs: 60_000 }), /error/);
    const asker = await client.tasks.create("asker", "hi");
    const ask = await askOf(asker);
    assert.deepEqual([ask.kind, ask.text], ["QUESTION", "Which one?"]);
    await asker.answer("The left one.");
    assert.equal(await asker.result({ timeoutMs: 60_000 }), "Said: The left one.");
  });

  test("a conversation goes on, is forked and stopped", async () => {
    const task = await client.tasks.create("talker", "hi");
    assert.equal((await askOf(task)).kind, "NEXT_MESSAGE");
    const { step } = await task.refresh();
    await task.send("More, please.");
    await until("it answers", async () => (await task.refresh()).asks.some((ask) => ask.text === "Second."));
    const fork = await task.fork({ step });
    assert.deepEqual([fork.forkedFrom, fork.forkedSteps], [task.uid, step]);
    for (const each of [task, fork]) {
      await each.cancel();
      assert.equal((await each.wait({ timeoutMs: 60_000 })).state, "CANCELLED");
    }
    const again = await task.retry();
    assert.notEqual(again.uid, task.uid);
    await again.cancel();
  });

  test("a task is held still and goes on", async () => {
    const task = await client.tasks.create("slow", "hi");
    await until("it runs", async () => (await task.refresh()).state === "RUNNING");
    await task.pause();
    assert.equal((await until("it is held", async () => (await task.refresh()).state === "PAUSED" && task)).uid, task.uid);
    await task.resume();
    await until("it runs again", async () => (await task.refresh()).state === "RUNNING");
    await task.cancel();
    assert.equal((await task.wait()).state, "CANCELLED");
  });

  test("limits are set, checked and watched", async () => {
    const watch = client.quotas.watch("projects/default", { timeoutMs: 60_000 });
    const first = await watch.next();
    assert.ok(!first.done && first.value.kind === "quota");
    await client.quotas.set("projects/default", { running: 7 }, { reason: "a test" });
    for await (const event of watch) {
      if (event.kind === "quota" && event.quota.limits["running"]?.limit === 7) break;
    }
    assert.equal((await client.quotas.get("projects/default")).limits["running"]?.limit, 7);
    await client.quotas.set("projects/default", { running: null });
    const changes = await all(client.cluster.audit("projects/default"));
    assert.ok(changes.some((event) => event.action === "quota.set" && event.reason === "a test"));
    const wrong = client.quotas.set("projects/default", { running: 1 }, { etag: "nothing" });
    await assert.rejects(wrong, quorate.QuorateError);
  });

  test("memories are kept, found and forgotten", async () => {
    const memories = client.memories();
    const kept = await memories.remember("The lighthouse keeper is called Ida.", { tags: ["people"], source: "a test" });
    const found = await memories.search("lighthouse keeper", { kind: "words" });
    assert.equal(found.hits[0]?.item.id, kept.id);
    assert.deepEqual((await all(memories.list())).map((item) => item.text), [kept.text]);
    assert.equal(await memories.forget(kept.id, "TEST"), 1);
    assert.deepEqual(await all(memories.list()), []);
  });

  test("schedules are kept", async () => {
    const made = await client.schedules.set("nightly", "0 6 * * MON-FRI", "quick", "hi");
    assert.deepEqual([made.nextTime?.getUTCHours(), made.taskClass], [6, "batch"]);
    assert.deepEqual((await client.schedules.list()).map((it) => it.name), ["nightly"]);
    await client.schedules.delete("nightly");
    assert.deepEqual(await client.schedules.list(), []);
    await assert.rejects(client.schedules.set("never", "0 0 31 2 *", "quick"), quorate.InvalidArgument);
  });

  test("prices are set, and the cluster shows itself", async () => {
    await client.prices.set(MODEL, { input: 3_000_000, output: 15_000_000 });
    assert.equal((await client.prices.get(MODEL)).output, 15_000_000);
    assert.ok((await client.prices.costs("agent")).total.tasks > 0);
    const [status, [shown]] = [await client.cluster.status(), await client.cluster.nodes()];
    assert.ok(shown);
    assert.deepEqual([shown.name, shown.state, shown.clientAddr, status.copies], ["coordinator-1", "ready", cluster.addresses()[0], 1]);
    assert.equal((await client.cluster.node("coordinator-1")).id, shown.id);
  });

  test("a node that comes back is found soon, and has forgotten nothing", async () => {
    const task = await client.tasks.create("quick", "hi");
    await task.wait();
    await cluster.node("coordinator-1").kill();
    const waiting = client.tasks.get(task.uid);
    await cluster.revive();
    assert.equal((await waiting).state, "SUCCEEDED");
  });
});

describe("three coordinators and two workers", () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.start(3, 2, SCRIPT);
    await cluster.with(apply);
  });
  after(() => cluster?.stop());

  /** Watches a slow task from `first` on, and kills a node in the middle of its text. */
  async function storyOf(first: string, victim: (client: quorate.Client, task: quorate.Task) => Promise<string>) {
    return cluster.with(async (client) => {
      const task = await client.tasks.create("slow", "hi");
      const watch = task.watch();
      const told = { sequences: [] as number[], retracts: 0, killed: "", text: "" };
      for await (const event of watch) {
        assert.notEqual(event.kind, "gap");
        if ("sequence" in event) told.sequences.push(event.sequence);
        if (event.kind === "retract") told.retracts += 1;
        if (told.killed === "" && watch.text.split(" ").length > 5) {
          told.killed = await victim(client, task);
          await cluster.node(told.killed).kill();
        }
      }
      told.text = watch.text;
      assert.deepEqual(told.sequences, told.sequences.map((_, at) => at + 1), "each once, in order");
      assert.equal(told.text.trim(), WORDS);
      assert.equal((await task.result()).trim(), WORDS);
      return told;
    }, first);
  }

  test("a watch goes on when the leader, on which it hangs, is killed", async () => {
    const leader = await cluster.leader();
    const told = await storyOf(leader, () => Promise.resolve(leader));
    assert.deepEqual([told.killed, told.retracts], [leader, 0], "the worker lived, so no text was taken back");
    await cluster.revive();
  });

  test("a watch goes on when the worker is killed, and its text is taken back", async () => {
    const worker = async (client: quorate.Client, task: quorate.Task) => {
      const { node } = await task.refresh();
      return (await client.cluster.node(node ?? "")).name;
    };
    const told = await storyOf("coordinator-1", worker);
    assert.match(told.killed, /^worker-/);
    assert.equal(told.retracts, 1);
    await cluster.revive();
  });

  test("a watch goes on when the node on which it hangs is frozen", async () => {
    const [leader, names] = [await cluster.leader(), ["coordinator-1", "coordinator-2"]];
    const [follower = ""] = names.filter((name) => name !== leader);
    await cluster.with(async (client) => {
      const watch = (await client.tasks.create("slow", "hi")).watch();
      let frozen = false;
      for await (const event of watch) {
        assert.ok(event.kind !== "gap" && event.kind !== "retract", event.kind);
        if (!frozen && watch.text.split(" ").length > 5) {
          cluster.node(follower).freeze();
          frozen = true;
        }
      }
      assert.ok(frozen);
      assert.equal(watch.text.trim(), WORDS);
    }, follower);
    await cluster.node(follower).kill();
    await cluster.revive();
  });

  test("what was acknowledged while the leader died exists once", async () => {
    const [leader, mark] = [await cluster.leader(), fresh("m").replaceAll(".", "-")];
    await cluster.with(async (client) => {
      const made: string[] = [];
      let killed: Promise<void> | undefined;
      const some = async (kind: number) => {
        for (let number = kind; number < 64; number += 8) {
          const task = await client.tasks.create("quick", "hi", { taskId: `${mark}-${number}`, labels: { mark } });
          made.push(task.uid);
          if (made.length > 16) killed ??= cluster.node(leader).kill();
        }
      };
      await Promise.all([0, 1, 2, 3, 4, 5, 6, 7].map(some));
      assert.ok(killed, "the leader was killed before the end");
      const listed = await all(client.tasks.list(`label.mark=${mark}`, { pageSize: 50 }));
      assert.deepEqual(listed.map((task) => task.uid).sort(), made.sort());
      assert.equal(new Set(made).size, 64);
    }, leader);
  });
});
