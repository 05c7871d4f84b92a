/** What decides, without any connection. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { Cursor } from "../src/cursor.js";
import type { StepEvent, StateEvent, TaskEvent, TaskState, TokenEvent } from "../src/data.js";
import { parseEndpoints } from "../src/endpoints.js";
import { InvalidArgument } from "../src/errors.js";
import { inputsOf, labelsOf, limitChange, momentMs, projectName, queueOf } from "../src/requests.js";
import { Attempts, DEFAULT_POLICY, type FailureKind } from "../src/retry.js";
import { readSettings } from "../src/settings.js";
import { StepText } from "../src/watching.js";
import { context, event } from "../src/wire.js";
import { ContextSchema } from "../src/gen/quorate/v1/context_pb.js";
import { TaskEventSchema } from "../src/gen/quorate/v1/task_pb.js";

const attempts = (endpoints: number) => new Attempts(DEFAULT_POLICY, endpoints);

test("every node is asked at once, then it waits", () => {
  const calls = attempts(3);
  const waits = [0, 0, 0].map(() => calls.onFailure("notSent", 0, 0, 0.5));
  assert.deepEqual(waits, [0, 0, 38]);
});

test("the wait doubles within bounds and is random in its upper half", () => {
  for (const random of [0, 0.999]) {
    const calls = attempts(1);
    for (const full of [50, 100, 200, 400, 800, 1_000, 1_000]) {
      const waitMs = calls.onFailure("lost", 0, 0, random);
      assert.equal(waitMs, random === 0 ? full / 2 : full, `of ${full}`);
    }
  }
});

test("the deadline, the count and silence end it", () => {
  const once = (kind: FailureKind, retryAfterMs: number, elapsedMs: number) => attempts(1).onFailure(kind, retryAfterMs, elapsedMs, 0);
  assert.equal(once("lost", 0, 29_999), undefined);
  assert.equal(once("notSent", 0, 10_000), undefined);
  assert.equal(once("noMember", 0, 10_000), undefined);
  assert.equal(once("busy", 60_000, 0), undefined);
  assert.equal(once("final", 0, 0), undefined);
  const calls = attempts(1);
  assert.equal(Array.from({ length: 200 }, () => calls.onFailure("lost", 0, 0, 0)).filter((it) => it !== undefined).length, 63);
});

test("the server may ask for more patience", () => {
  assert.equal(attempts(3).onFailure("busy", 2_000, 0, 0), 2_000);
});

test("an attempt takes no longer than the call", () => {
  assert.deepEqual([attempts(1).attemptMs(0), attempts(1).attemptMs(29_000), attempts(1).attemptMs(40_000)], [8_000, 1_000, 1]);
});

test("addresses are read as people write them", () => {
  const read = parseEndpoints(" a:1, https://b ,http://[::1]:7/", false);
  assert.deepEqual(read.nodes, [
    { address: "a:1", tls: false },
    { address: "b:7400", tls: true },
    { address: "[::1]:7", tls: false },
  ]);
  for (const wrong of ["", "ftp://a", "a:0", "a:65536", "a b", "a@b", "::1"]) {
    assert.throws(() => parseEndpoints(wrong, false), InvalidArgument, wrong);
  }
  assert.throws(() => parseEndpoints("http://a", true), /says http/);
});

test("settings come from the environment where nothing is given", () => {
  const environment = { QUORATE_ENDPOINT: "a,b", QUORATE_PROJECT: "research", QUORATE_API_KEY: "qk_secret" };
  const settings = readSettings({}, environment);
  assert.equal(settings.endpoints.names(), "a:7400, b:7400");
  assert.deepEqual([settings.project, settings.metadata.get("authorization")], ["research", ["Bearer qk_secret"]]);
  assert.equal(readSettings({ project: "mine" }, environment).project, "mine");
});

test("credentials that can't be used are refused, and never shown", () => {
  const wrong: [object, string][] = [
    [{ apiKey: "qk_\nsecret" }, "BAD_API_KEY"],
    [{ ca: "no-such-file.crt" }, "BAD_CA"],
    [{ cert: "a.crt" }, "BAD_CREDENTIALS"],
    [{ cert: "a.crt", certKey: "a.key" }, "BAD_CREDENTIALS"],
    [{ endpoints: "https://a", cert: "a.crt", certKey: "a.key" }, "BAD_CREDENTIALS"],
  ];
  for (const [options, reason] of wrong) {
    assert.throws(() => readSettings(options, {}), (error) => {
      assert.ok(error instanceof InvalidArgument && error.reason === reason, String(error));
      return !error.message.includes("secret");
    });
  }
});

test("what no cluster would take is refused", () => {
  const wrong: [() => unknown, string][] = [
    [() => projectName("Big"), "BAD_PROJECT"],
    [() => inputsOf(undefined, Array.from({ length: 257 }, () => "x")), "TOO_MANY_INPUTS"],
    [() => inputsOf("x".repeat(5 << 20), []), "REQUEST_TOO_LARGE"],
    [() => inputsOf(undefined, ["x".repeat(4 << 20), "x".repeat(4 << 20), "x"]), "REQUEST_TOO_LARGE"],
    [() => labelsOf(Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`k${n}`, "v"]))), "TOO_MANY_LABELS"],
    [() => queueOf("urgent", undefined), "BAD_CLASS"],
    [() => queueOf("constructor", undefined), "BAD_CLASS"],
    [() => queueOf(undefined, 10), "BAD_PRIORITY"],
    [() => momentMs("soon", 0, "deadline"), "BAD_DEADLINE"],
    [() => limitChange("running", -1), "BAD_LIMIT"],
    [() => limitChange("running", 1n << 64n), "BAD_LIMIT"],
  ];
  for (const [call, reason] of wrong) {
    assert.throws(call, (error) => error instanceof InvalidArgument && error.reason === reason, reason);
  }
});

test("times and limits are read exactly", () => {
  assert.deepEqual([momentMs("20m", 5, "deadline"), momentMs(new Date(7), 5, "deadline")], [1_200_005n, 7n]);
  assert.equal(momentMs(undefined, 5, "deadline"), 0n);
  assert.deepEqual(limitChange("a", (1n << 64n) - 1n), { key: "a", limit: 18_446_744_073_709_551_615n });
  assert.deepEqual(limitChange("a", null), { key: "a" });
});

const OLD = "1.9.0";
const NEW = "1.10.0";
const base = { task: "t", atMs: 0 };
const state = (sequence: number, to: TaskState): StateEvent => ({ kind: "state", ...base, sequence, state: to, reason: "", node: undefined, epoch: undefined });
const usage = { promptTokens: 0, cachedTokens: 0, generatedTokens: 0, microUsd: 0 };
const step = (sequence: number, number: number): StepEvent => ({ kind: "step", ...base, sequence, step: number, head: "", usage, route: undefined });
const token = (number: number, attempt: string, offset: number, tokens: number, text: string): TokenEvent => ({ kind: "token", ...base, step: number, attempt, offset, tokens, text });
const retract = (number: number, attempt: string): TaskEvent => ({ kind: "retract", ...base, step: number, attempt });
const gap = (first: number, last: number): TaskEvent => ({ kind: "gap", ...base, first, last });

function show(cursor: Cursor, ...events: TaskEvent[]): TaskEvent[] {
  return events.flatMap((event) => {
    const took = cursor.take(event);
    assert.ok(took !== undefined, "asked again");
    return took;
  });
}

test("committed events come once and in order", () => {
  const cursor = new Cursor(0);
  const [pending, running] = [state(1, "PENDING"), state(2, "RUNNING")];
  assert.deepEqual(show(cursor, pending, pending, running, pending), [pending, running]);
  assert.deepEqual([cursor.next, cursor.askFrom, cursor.ended], [3, 2, false]);
  show(cursor, state(3, "SUCCEEDED"));
  assert.ok(cursor.ended);
});

test("a hole is asked for again and then named", () => {
  const cursor = new Cursor(1);
  const late = state(4, "RUNNING");
  assert.equal(cursor.take(late), undefined);
  assert.equal(cursor.next, 1);
  assert.deepEqual(show(cursor, late), [gap(1, 3), late]);
});

test("an announced gap is cut to what was not seen", () => {
  const cursor = new Cursor(3);
  assert.deepEqual(show(cursor, gap(1, 2)), []);
  assert.deepEqual(show(cursor, gap(1, 5)), [gap(3, 5)]);
  assert.equal(cursor.next, 6);
});

test("tokens sent again show only what is new", () => {
  const cursor = new Cursor(1);
  show(cursor, token(1, OLD, 0, 2, "one two"), token(1, OLD, 2, 1, " three"));
  assert.deepEqual(show(cursor, token(1, OLD, 2, 1, " three")), []);
  const again = show(cursor, token(1, OLD, 0, 5, "one two three four five"));
  assert.deepEqual(again, [token(1, OLD, 3, 2, " four five")]);
  assert.deepEqual(show(cursor, token(1, OLD, 4, 2, " five six")), [token(1, OLD, 5, 1, " six")]);
});

test("another attempt takes back the text of the last one", () => {
  const cursor = new Cursor(1);
  const kept = token(1, NEW, 0, 1, "kept");
  assert.deepEqual(show(cursor, token(1, OLD, 0, 1, "lost"), kept).slice(1), [retract(1, OLD), kept]);
  assert.deepEqual(show(cursor, token(1, OLD, 1, 1, "straggler"), retract(1, OLD)), []);
  const unreadable = token(1, "tomorrow", 0, 1, "counts as later");
  assert.deepEqual(show(cursor, unreadable), [retract(1, NEW), unreadable]);
});

test("a retract is shown once and only for text that was shown", () => {
  const cursor = new Cursor(1);
  assert.deepEqual(show(cursor, retract(1, OLD)), []);
  show(cursor, token(2, OLD, 0, 1, "x"));
  assert.deepEqual(show(cursor, retract(2, OLD), retract(2, OLD), token(2, OLD, 0, 1, "x")), [retract(2, OLD)]);
});

test("text that contradicts itself is taken back", () => {
  const cursor = new Cursor(1);
  const blue = token(1, OLD, 0, 2, "blue sky");
  assert.deepEqual(show(cursor, token(1, OLD, 0, 1, "red"), blue).slice(1), [retract(1, OLD), blue]);
});

test("the tail of a committed step is shown but not its beginning again", () => {
  const cursor = new Cursor(1);
  show(cursor, token(1, OLD, 0, 1, "head"), step(1, 1));
  assert.equal(show(cursor, token(1, OLD, 1, 1, " tail")).length, 1);
  show(cursor, token(2, OLD, 0, 1, "next"));
  assert.deepEqual(show(cursor, token(1, OLD, 0, 2, "head tail")), []);
});

test("text is put together by step, without what was taken back", () => {
  const text = new StepText();
  for (const event of [token(1, OLD, 0, 1, "lost"), retract(1, OLD), token(1, NEW, 0, 1, "ke"), token(1, NEW, 1, 1, "pt")]) text.add(event);
  assert.equal(text.text, "kept");
  text.add(token(2, NEW, 0, 1, "next"));
  assert.equal(text.text, "next");
});

/** Numbers that look random and come again for a seed, in [0, 1). */
function chances(seed: number): () => number {
  let now = seed + 1;
  return () => {
    now = (Math.imul(now, 1_664_525) + 1_013_904_223) >>> 0;
    return now / 2 ** 32;
  };
}

test("any stream from nodes that die reads the same", () => {
  for (let seed = 0; seed < 1_000; seed += 1) {
    const chance = chances(seed);
    const below = (n: number) => Math.floor(chance() * n);
    const words = Array.from({ length: 1 + below(30) }, () => ["Ein ", "schö", "ner ", "Tag", ".", "a", "a"][below(7)] ?? "");
    const cursor = new Cursor(1);
    const text = new StepText();
    const streams = below(5);
    for (let stream = 0; stream <= streams; stream += 1) {
      const end = stream === streams ? words.length : below(words.length + 1);
      for (let at = 0; at < end; ) {
        const more = Math.min(1 + below(6), end - at);
        show(cursor, token(1, OLD, at, more, words.slice(at, at + more).join(""))).forEach((event) => text.add(event));
        at += more;
      }
    }
    assert.equal(text.text, words.join(""), `seed ${seed}`);
  }
});

test("which of several models was asked is said with its reason", () => {
  const step = { case: "step", value: { step: 1n, route: { model: "m", reason: "CHEAPER" } } } as const;
  const shown = event(create(TaskEventSchema, { task: "t", sequence: 4n, kind: step })) as StepEvent;
  assert.deepEqual(shown.route, { model: "m", reason: "CHEAPER" });
  const plain = event(create(TaskEventSchema, { task: "t", sequence: 5n, kind: { case: "step", value: { step: 2n } } })) as StepEvent;
  assert.equal(plain.route, undefined);
  const candidates = [{ model: "m", expectedMicroUsd: 5n, expectedMs: 7n, verdict: "FITS" }];
  const read = context(create(ContextSchema, { task: "t", routes: [{ step: 1n, model: "m", reason: "CHEAPER", candidates }] }));
  const expected = { model: "m", expectedMicroUsd: 5, expectedMs: 7, verdict: "FITS" };
  assert.deepEqual(read.routes, [{ step: 1, model: "m", reason: "CHEAPER", candidates: [expected] }]);
});
