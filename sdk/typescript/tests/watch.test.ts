/** Watches against fake nodes that end, break and repeat themselves. */

import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { status } from "@grpc/grpc-js";
import * as quorate from "../src/index.js";
import { TaskState } from "../src/gen/quorate/v1/task_pb.js";
import { Fake, type Step } from "./fake.js";

async function setUp(t: TestContext, nodes: number) {
  const fakes = await Promise.all(Array.from({ length: nodes }, () => Fake.start()));
  const client = new quorate.Client(fakes.map((fake) => fake.address));
  t.after(() => {
    client.close();
    fakes.forEach((fake) => fake.stop());
  });
  return { fakes, first: fakes[0] as Fake, second: fakes[1] as Fake, client };
}

const event = (sequence: number, kind: object): Step => ({ answer: { task: "t_1", sequence: BigInt(sequence), kind } });
const state = (sequence: number, to: TaskState) => event(sequence, { case: "state", value: { state: to } });
const token = (attempt: string, offset: number, text: string, tokens = 1) =>
  event(0, { case: "token", value: { step: 1n, attempt, offset: BigInt(offset), tokens, text } });

async function story(watch: quorate.Watch, look: (event: quorate.TaskEvent) => void = () => undefined): Promise<string[]> {
  const told: string[] = [];
  for await (const it of watch) {
    look(it);
    if (it.kind === "state") told.push(`${it.sequence} ${it.state}`);
    else if (it.kind === "token") told.push(it.text);
    else told.push(it.kind);
  }
  return told;
}

test("a watch that is cut goes on at the next node, without a gap and without a duplicate", async (t) => {
  const { first, second, client } = await setUp(t, 2);
  first.next("WatchTask", state(1, TaskState.PENDING), state(2, TaskState.RUNNING), token("1.1.0", 0, "one "), "silence");
  second.next("WatchTask", state(2, TaskState.RUNNING), token("1.1.0", 0, "one two", 2), state(3, TaskState.SUCCEEDED));
  const watch = client.tasks.watch("t_1");
  const cut = (it: quorate.TaskEvent) => void (it.kind === "token" && it.text === "one " && first.cut());
  assert.deepEqual(await story(watch, cut), ["1 PENDING", "2 RUNNING", "one ", "two", "3 SUCCEEDED"]);
  assert.deepEqual([watch.text, watch.nextSequence], ["one two", 4]);
  assert.deepEqual([first, second].map((fake) => fake.requests("WatchTask")[0]?.["fromSequence"]), [1n, 2n]);
});

test("text of a node that was lost is taken back", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("WatchTask", state(1, TaskState.RUNNING), token("1.1.0", 0, "lost"), state(2, TaskState.RUNNING), token("1.2.0", 0, "kept"), state(3, TaskState.SUCCEEDED));
  const watch = client.tasks.watch("t_1");
  assert.deepEqual(await story(watch), ["1 RUNNING", "lost", "2 RUNNING", "retract", "kept", "3 SUCCEEDED"]);
  assert.equal(watch.text, "kept");
});

test("a stream that ends or is refused for now is opened again", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("WatchTask", state(1, TaskState.PENDING), "end");
  first.next("WatchTask", { refuse: { code: status.UNAVAILABLE, reason: "NO_LEADER" } });
  first.next("WatchTask", state(2, TaskState.CANCELLED));
  assert.deepEqual(await story(client.tasks.watch("t_1")), ["1 PENDING", "2 CANCELLED"]);
});

test("a task that ended before the sequence asked for has nothing to show", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("GetTask", { answer: { id: "t_1", state: TaskState.SUCCEEDED, sequence: 4n } });
  assert.deepEqual(await story(client.tasks.watch("t_1", { fromSequence: 9 })), []);
});

test("a watch of nothing is refused", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("WatchTask", { refuse: { code: status.NOT_FOUND, reason: "NO_TASK" } });
  await assert.rejects(client.tasks.watch("nobody").next(), quorate.NotFound);
});

test("time given for waiting ends, and the watch goes on where it was", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("WatchTask", state(1, TaskState.PENDING), "silence");
  await assert.rejects(client.tasks.wait("t_1", { timeoutMs: 300 }), (error) => error instanceof quorate.WaitTimeout && error.next !== undefined);
});

test("leaving a loop gives the stream back", async (t) => {
  const { first, client } = await setUp(t, 1);
  first.next("WatchTask", state(1, TaskState.PENDING), "silence");
  for await (const it of client.tasks.watch("t_1", { tokens: false })) {
    assert.equal(it.kind, "state");
    break;
  }
  while (first.left === 0) await new Promise(setImmediate);
  assert.equal(first.requests("WatchTask")[0]?.["noTokens"], true);
});

test("quotas are shown again only when they changed, and audit events once", async (t) => {
  const { first, second, client } = await setUp(t, 2);
  const quota = (path: string, etag: string): Step => ({ answer: { kind: { case: "quota", value: { path, etag } } } });
  const audit = (number: bigint): Step => ({ answer: { kind: { case: "audit", value: { number } } } });
  first.next("WatchQuotas", quota("cluster", "1"), audit(5n), "silence");
  second.next("WatchQuotas", quota("cluster", "1"), audit(5n), audit(6n), quota("cluster", "2"), "silence");
  const watch = client.quotas.watch("cluster", { afterAudit: 4 });
  const told: string[] = [];
  for await (const it of watch) {
    told.push(it.kind === "quota" ? `${it.quota.path} ${it.quota.etag}` : String(it.audit.number));
    if (told.length === 2) first.cut();
    if (told.length === 4) break;
  }
  assert.deepEqual(told, ["cluster 1", "5", "6", "cluster 2"]);
  assert.equal(watch.lastAudit, 6);
  assert.equal(second.requests("WatchQuotas")[0]?.["afterAudit"], 5n);
});
