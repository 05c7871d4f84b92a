/** Calls against fake nodes that refuse, break and keep silent. */

import assert from "node:assert/strict";
import { createServer } from "node:net";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { status } from "@grpc/grpc-js";
import * as quorate from "../src/index.js";
import { AskKind, SignalKind, TaskState } from "../src/gen/quorate/v1/task_pb.js";
import { LimitKind } from "../src/gen/quorate/v1/quota_pb.js";
import { Fake } from "./fake.js";

async function setUp(t: TestContext, nodes = 1, options: quorate.ClientOptions = {}) {
  const fakes = await Promise.all(Array.from({ length: nodes }, () => Fake.start()));
  const client = new quorate.Client({ endpoints: fakes.map((fake) => fake.address), project: "default", ...options });
  t.after(() => {
    client.close();
    fakes.forEach((fake) => fake.stop());
  });
  const [fake] = fakes;
  assert.ok(fake);
  return { fake, fakes, client };
}

/** An address at which nobody listens. */
async function nobody(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return `127.0.0.1:${port}`;
}

const unavailable = { refuse: { code: status.UNAVAILABLE, reason: "NO_LEADER" } };

test("a task is created as it was meant, with its key", async (t) => {
  const { fake, client } = await setUp(t, 1, { apiKey: "qk_1" });
  fake.next("CreateTask", { answer: { id: "mine", uid: "t_1", state: TaskState.RUNNING, class: 3, priority: 7, createTimeMs: 5n, labels: { a: "b" } } });
  const task = await client.tasks.create("reader", "one", {
    inputs: [{ text: "two", name: "b.md" }], taskId: "mine", labels: { a: "b" }, taskClass: "batch", priority: 7,
    limits: { tokens_total: 9 }, after: ["t_0"], deadline: new Date(9), requestId: "r",
  });
  const [sent] = fake.requests("CreateTask");
  assert.ok(sent);
  assert.deepEqual((sent["inputs"] as { name: string; text: string }[]).map(({ name, text }) => [name, text]), [["", "one"], ["b.md", "two"]]);
  assert.deepEqual([sent["class"], sent["priority"], sent["deadlineMs"], sent["limits"], sent["after"]], [3, 7, 9n, { tokens_total: 9n }, ["t_0"]]);
  assert.equal(fake.asked[0]?.authorization, "Bearer qk_1");
  assert.deepEqual([task.id, task.state, task.taskClass, task.createTime], ["mine", "RUNNING", "batch", new Date(5)]);
  assert.equal(task.node, undefined);
});

test("a call whose connection broke is repeated with one request id", async (t) => {
  const { fakes, client } = await setUp(t, 2);
  fakes[0]?.next("CreateTask", "cut");
  await client.tasks.create("reader", "one");
  const ids = fakes.flatMap((fake) => fake.requests("CreateTask")).map((it) => it["requestId"]);
  assert.equal(ids.length, 2);
  assert.equal(new Set(ids).size, 1);
});

test("a node that cannot serve now is asked again, no sooner than it asked for", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("GetTask", { refuse: { ...unavailable.refuse, retryMs: 300 } });
  const begun = performance.now();
  await client.tasks.get("t_1");
  assert.ok(performance.now() - begun >= 299);
  assert.equal(fake.requests("GetTask").length, 2);
});

test("a node that nobody reaches is passed over", async (t) => {
  const { fake } = await setUp(t);
  const client = new quorate.Client([await nobody(), fake.address]);
  t.after(() => client.close());
  await client.tasks.create("reader", "one");
  assert.equal(fake.requests("CreateTask").length, 1);
});

test("where no node takes a connection, nothing happened, and it says so", async (t) => {
  const client = new quorate.Client({ endpoints: await nobody(), connectTimeoutMs: 300 });
  t.after(() => client.close());
  await assert.rejects(client.tasks.create("reader", "one"), (error) => {
    assert.ok(error instanceof quorate.Unreachable && error instanceof quorate.Unavailable);
    return error.reason === "UNREACHABLE" && error.message.includes("next: check that a node runs");
  });
});

test("without an answer the outcome is unknown, and the request id is there", async (t) => {
  const { fake, client } = await setUp(t, 1, { timeoutMs: 400 });
  fake.next("CreateTask", "silence");
  await assert.rejects(client.tasks.create("reader", "one"), (error) => {
    assert.ok(error instanceof quorate.UnknownOutcome, String(error));
    return error.requestId !== undefined && error.requestId === fake.requests("CreateTask")[0]?.["requestId"];
  });
});

test("a final answer is not asked for again, and tells what, why and what next", async (t) => {
  const { fake, client } = await setUp(t, 2);
  const metadata = { cause: "the hash differs", next: "take another id" };
  fake.next("CreateTask", { refuse: { code: status.ALREADY_EXISTS, message: "used", reason: "REQUEST_ID_REUSED", metadata } });
  await assert.rejects(client.tasks.create("reader", "one"), (error) => {
    assert.ok(error instanceof quorate.Conflict);
    assert.deepEqual([error.code, error.reason, error.what, error.why, error.next, error.domain], ["ALREADY_EXISTS", "REQUEST_ID_REUSED", "used", metadata.cause, metadata.next, "quorate"]);
    return error.message === "used [REQUEST_ID_REUSED]\n  why: the hash differs\n  next: take another id";
  });
  assert.equal(fake.asked.length, 1);
});

const KINDS: [status, string, new (...of: never[]) => quorate.QuorateError][] = [
  [status.NOT_FOUND, "", quorate.NotFound],
  [status.UNAUTHENTICATED, "", quorate.PermissionDenied],
  [status.INVALID_ARGUMENT, "", quorate.InvalidArgument],
  [status.FAILED_PRECONDITION, "ALREADY_ANSWERED", quorate.AlreadyAnswered],
  [status.FAILED_PRECONDITION, "NOTHING_ASKED", quorate.NothingAsked],
  [status.FAILED_PRECONDITION, "TASK_BUSY", quorate.TaskBusy],
  [status.FAILED_PRECONDITION, "NOT_ENDED", quorate.NotEnded],
  [status.RESOURCE_EXHAUSTED, "QUOTA_RUNNING", quorate.QuotaExceeded],
  [status.RESOURCE_EXHAUSTED, "TOO_MANY_TASKS", quorate.ResourceExhausted],
  [status.INTERNAL, "", quorate.InternalError],
];

for (const [code, reason, raised] of KINDS) {
  test(`${status[code]} ${reason} is a ${raised.name}`, async (t) => {
    const { fake, client } = await setUp(t);
    fake.next("SignalTask", { refuse: { code, reason } });
    await assert.rejects(client.tasks.approve("t_1"), (error) => error instanceof raised && error.reason === (reason || status[code]));
  });
}

test("an error without details is read by its code", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("GetTask", { refuse: { code: status.NOT_FOUND, message: "no task t_1", bare: true } });
  await assert.rejects(client.tasks.get("t_1"), (error) => error instanceof quorate.NotFound && error.what === "no task t_1" && error.domain === "");
});

test("verdicts and messages say what was meant", async (t) => {
  const { fake, client } = await setUp(t);
  const asks = [{ id: "a1", kind: AskKind.APPROVAL, tool: "mail.send", text: "{}" }, { id: "a2", kind: 99 }];
  fake.next("GetTask", { answer: { id: "t_1", uid: "t_1", state: TaskState.WAITING_INPUT, asks } });
  const task = await client.tasks.get("t_1");
  assert.deepEqual(task.asks.map((ask) => [ask.kind, ask.tool]), [["APPROVAL", "mail.send"], ["OTHER", undefined]]);
  await task.approve(task.asks[0]);
  await client.tasks.reject("t_1", "a1");
  await client.tasks.answer("t_1", "42");
  await client.tasks.repeat("t_1");
  await client.tasks.send("t_1", "hello");
  for (const busy of ["enqueue", "interrupt", "rollback"] as const) await client.tasks.send("t_1", "again", { busy });
  await client.tasks.signal("t_1", "MESSAGE", { text: "raw" });
  const told = fake.requests("SignalTask").map((it) => [SignalKind[it["kind"] as SignalKind], it["ask"], it["text"]]);
  assert.deepEqual(told, [
    ["APPROVE", "a1", ""], ["REJECT", "a1", ""], ["ANSWER", "", "42"], ["REPEAT", "", ""], ["MESSAGE", "", "hello"],
    ["ENQUEUE", "", "again"], ["INTERRUPT", "", "again"], ["ROLLBACK", "", "again"], ["MESSAGE", "", "raw"],
  ]);
  await assert.rejects(client.tasks.send("t_1", "x", { busy: "now" as quorate.Busy }), quorate.InvalidArgument);
});

test("tasks are stopped, retried, forked and explained", async (t) => {
  const { fake, client } = await setUp(t);
  await client.tasks.cancel("t_1", { requestId: "r1" });
  await client.tasks.pause("t_1");
  await client.tasks.resume("t_1");
  await client.tasks.retry("t_1", { taskId: "again" });
  await client.tasks.fork("t_1", { step: 0 });
  await client.tasks.fork("t_1");
  assert.deepEqual(fake.asked.map((it) => it.method), ["CancelTask", "PauseTask", "ResumeTask", "RetryTask", "ForkTask", "ForkTask"]);
  assert.equal(fake.asked[0]?.request["requestId"], "r1");
  assert.deepEqual(fake.requests("ForkTask").map((it) => it["step"]), [0n, undefined]);
  fake.next("ExplainTask", { answer: { task: { id: "t_1" }, tasksAhead: 3n, position: 4n, etaMs: 0n, blockers: [{ reason: "QUOTA_RUNNING", borrowedBy: [{ path: "p", amount: 2n }] }] } });
  const why = await client.tasks.explain("t_1", { whatIf: [{ path: "cluster", key: "running", limit: null }] });
  assert.deepEqual([why.position, why.tasksAhead, why.etaMs, why.etaErrorMs], [4, 3, 0, undefined]);
  assert.deepEqual(why.blockers[0]?.borrowedBy, [{ path: "p", amount: 2 }]);
});

test("a list goes over its pages", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("ListTasks", { answer: { tasks: [{ id: "a" }, { id: "b" }], nextPageToken: "2" } });
  fake.next("ListTasks", { answer: { tasks: [{ id: "c" }] } });
  const ids: string[] = [];
  for await (const task of client.tasks.list("state=RUNNING", { pageSize: 2 })) ids.push(task.id);
  assert.deepEqual(ids, ["a", "b", "c"]);
  assert.deepEqual(fake.requests("ListTasks").map((it) => it["pageToken"]), ["", "2"]);
});

test("a segment is read over a node that dies in the middle", async (t) => {
  const { fakes, client } = await setUp(t, 2);
  const [first, second] = fakes;
  first?.next("ReadSegment", { answer: { chunk: Buffer.from("one t") } }, "silence");
  second?.next("ReadSegment", { answer: { chunk: Buffer.from("one") } }, { answer: { chunk: Buffer.from(" two three") } }, "end");
  const chunks: string[] = [];
  for await (const chunk of client.context.read("h")) {
    chunks.push(Buffer.from(chunk).toString());
    if (chunks.length === 1) first?.cut();
  }
  assert.deepEqual(chunks, ["one t", "wo three"]);
});

test("a large result is read by its hash, and has to be text", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("WatchTask", { answer: { task: "t_1", sequence: 1n, kind: { case: "state", value: { state: TaskState.SUCCEEDED } } } });
  fake.next("GetTask", { answer: { id: "t_1", state: TaskState.SUCCEEDED, resultHash: "h" } });
  fake.next("ReadSegment", { answer: { chunk: Buffer.from([0x73, 0xc3]) } }, { answer: { chunk: Buffer.from([0xb6]) } }, "end");
  assert.equal(await client.tasks.result("t_1"), "s\u00f6");
  fake.next("ReadSegment", { answer: { chunk: Buffer.from([0xff]) } }, "end");
  await assert.rejects(client.context.readText("h"), (error) => error instanceof quorate.QuorateError && error.reason === "NOT_TEXT");
});

test("a task that ended otherwise has no result, and says why", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("WatchTask", { answer: { task: "t_1", sequence: 1n, kind: { case: "state", value: { state: TaskState.FAILED } } } });
  fake.next("GetTask", { answer: { id: "t_1", state: TaskState.FAILED, error: "the model refused" } });
  await assert.rejects(client.tasks.result("t_1"), (error) => error instanceof quorate.NoResult && error.why === "the model refused");
});

test("quotas are read and set key by key", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("SetQuota", { answer: { path: "projects/x", limits: [{ key: "running", limit: 4n, used: 1n, kind: LimitKind.HOLDING }, { key: "tokens_total" }], wouldWait: ["t_9"] } });
  const quota = await client.quotas.set("projects/x", { running: 4, tokens_total: null }, { reason: "night", dryRun: true });
  const [sent] = fake.requests("SetQuota");
  assert.deepEqual((sent?.["changes"] as { key: string; limit?: bigint }[]).map((it) => [it.key, it.limit]), [["running", 4n], ["tokens_total", undefined]]);
  assert.equal(quota.limits["running"]?.kind, "holding");
  assert.deepEqual([quota.limits["running"]?.limit, quota.limits["tokens_total"]?.limit, quota.wouldWait], [4, null, ["t_9"]]);
});

test("memories are kept, found and forgotten in their scope", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("Search", { answer: { hits: [{ item: { id: "m1", text: "green" }, score: 0.5 }], kind: 1, items: 7n } });
  fake.next("Forget", { answer: { items: 2n } });
  const memories = client.memories("projects/default/agents/reader");
  await memories.remember("The door is green.", { tags: ["house"] });
  const found = await memories.search("which colour?", { most: 3, kind: "words", tags: ["house"] });
  assert.deepEqual([found.hits[0]?.item.text, found.hits[0]?.cosine, found.kind, found.items], ["green", undefined, "words", 7]);
  assert.equal(await memories.forget("m1"), 2);
  assert.ok(fake.asked.every((it) => it.request["scope"] === "projects/default/agents/reader"));
});

test("the audit log goes over its pages", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("ListAuditEvents", { answer: { events: [{ number: 1n }, { number: 2n, author: "ann" }], nextAfter: 2n } });
  fake.next("ListAuditEvents", { answer: { events: [{ number: 3n }] } });
  const numbers: number[] = [];
  for await (const event of client.cluster.audit("cluster")) numbers.push(event.number);
  assert.deepEqual(numbers, [1, 2, 3]);
  assert.deepEqual(fake.requests("ListAuditEvents").map((it) => it["after"]), [0n, 2n]);
});

test("a client that was closed says so, also to calls under way", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("GetTask", "silence");
  const waiting = client.tasks.get("t_1");
  while (fake.asked.length === 0) await new Promise(setImmediate);
  client.close();
  const closed = (error: unknown) => error instanceof quorate.Conflict && error.reason === "CLIENT_CLOSED";
  await assert.rejects(waiting, closed);
  await assert.rejects(client.tasks.get("t_1"), closed);
});

test("a context is evaluated with its own patience, by task or as recorded calls", async (t) => {
  const { fake, client } = await setUp(t, 1, { timeoutMs: 1 });
  const answer = { report: "{}", suggestions: ['{"call":"1"}'], model: "m", node: "w1", tokensSpent: 9n };
  fake.next("EvaluateContext", { answer }).next("EvaluateContext", { answer });
  const found = await client.context.evaluate("t_1", { step: 3, budgetTokens: 9, suggest: true, timeoutMs: 20_000 });
  assert.deepEqual([found.report, found.suggestions, found.node, found.tokensSpent, found.page], ["{}", ['{"call":"1"}'], "w1", 9, undefined]);
  const segments = [{ id: "a1", owner: "anna", text: "seven" }];
  await client.context.evaluateCalls([{ segments, reader: "bert", probe: "How many?", action: " 7" }], { model: "m", page: true, timeoutMs: 20_000 });
  const [first, second] = fake.requests("EvaluateContext");
  const task = (first?.["of"] as { value: { task: string; step: bigint; team: boolean } }).value;
  assert.deepEqual([task.task, task.step, task.team, first?.["budgetTokens"]], ["t_1", 3n, false, 9n]);
  const calls = (second?.["of"] as { value: { calls: { reader: string; segments: { kind: string }[] }[] } }).value.calls;
  assert.deepEqual([calls[0]?.reader, calls[0]?.segments[0]?.kind, second?.["model"], second?.["page"]], ["bert", "message", "m", true]);
});

test("a lost node leaves, and a level begins", async (t) => {
  const { fake, client } = await setUp(t);
  fake.next("RemoveNode", { answer: { leader: "n1" } }).next("RaiseLevel", { answer: { leader: "n1" } });
  const removed = await client.cluster.removeNode("n4", { reason: "burnt", requestId: "mine" });
  const raised = await client.cluster.raiseLevel({ reason: "done" });
  assert.deepEqual([removed.leader, raised.leader], ["n1", "n1"]);
  const [remove] = fake.requests("RemoveNode");
  const [raise] = fake.requests("RaiseLevel");
  assert.deepEqual([remove?.["id"], remove?.["reason"], remove?.["requestId"], raise?.["reason"]], ["n4", "burnt", "mine", "done"]);
  assert.match(String(raise?.["requestId"]), /^r_/);
});
