/** The text behind tasks: chains by task, segments by hash. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "./client.js";
import type { Context, Evaluation, RecordedCall, RecordedSegment } from "./data.js";
import { local, refused } from "./errors.js";
import { Failed, type Failure } from "./failures.js";
import { ContextService, type EvaluateContextRequestSchema } from "./gen/quorate/v1/context_pb.js";
import { courseOf } from "./settings.js";
import { context, evaluation } from "./wire.js";

/** The largest text that is put together in memory. */
const TEXT_BYTES_MAX = 64 << 20;

const METHOD = ContextService.method;

/** As long as an evaluation is waited for, where nobody says how long. */
const EVALUATION_MS = 3_600_000;

type Of = NonNullable<MessageInitShape<typeof EvaluateContextRequestSchema>["of"]>;

export interface EvaluateOptions {
  /** A model that a node has loaded. Else the task's own, else any. */
  model?: string;
  /** At most so many computed tokens; calls beyond are listed as skipped. Else a million. */
  budgetTokens?: number;
  /** Every call is audited by exact removal, not one in twenty. */
  auditAll?: boolean;
  /** Also the smallest context of each call. */
  suggest?: boolean;
  /** Also a page of HTML. It holds the texts. */
  page?: boolean;
  /** Giving up ends the work: an hour. */
  timeoutMs?: number;
}

export interface EvaluateTaskOptions extends EvaluateOptions {
  /** The step that called the model. Else the last one that did. */
  step?: number;
  /** All calls of the task and of every task below it, and what readers did not get. */
  team?: boolean;
}

export class Contexts {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** The committed chain of a task; texts only where asked for. */
  async get(task: string, options: { withText?: boolean } = {}): Promise<Context> {
    const request = { project: this.#client.project, task, withText: options.withText ?? false };
    return context(await this.#client.call(METHOD.getContext, request));
  }

  /**
   * What each part of what a task's agent read was worth for what it did: scored by an engine of the cluster, with nothing
   * generated. Takes seconds to minutes.
   */
  async evaluate(task: string, options: EvaluateTaskOptions = {}): Promise<Evaluation> {
    const { step = 0, team = false } = options;
    return this.#evaluate({ case: "task", value: { task, step: BigInt(step), team } }, options);
  }

  /** The same of calls that were recorded elsewhere. */
  async evaluateCalls(calls: readonly RecordedCall[], options: EvaluateOptions = {}): Promise<Evaluation> {
    return this.#evaluate({ case: "calls", value: { calls: calls.map(recorded) } }, options);
  }

  async #evaluate(of: Of, options: EvaluateOptions): Promise<Evaluation> {
    const { model = "", budgetTokens = 0, auditAll = false, suggest = false, page = false } = options;
    const request = { project: this.#client.project, of, model, budgetTokens: BigInt(budgetTokens), auditAll, suggest, page };
    const timeoutMs = options.timeoutMs ?? EVALUATION_MS;
    return evaluation(await this.#client.call(METHOD.evaluateContext, request, undefined, timeoutMs));
  }

  /** A segment's text in one piece, at most 64 MiB. */
  async readText(hash: string): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of this.read(hash)) {
      bytes += chunk.length;
      if (bytes > TEXT_BYTES_MAX) {
        const what = `segment ${hash} is larger than ${TEXT_BYTES_MAX >> 20} MiB`;
        throw refused("SEGMENT_TOO_LARGE", what, "read it piece by piece with `context.read`");
      }
      chunks.push(chunk);
    }
    return decoded(hash, Buffer.concat(chunks));
  }

  /** A segment's bytes, piece by piece, though a node may die in the middle: the next one's are the same. */
  async *read(hash: string): AsyncGenerator<Uint8Array, void, undefined> {
    const course = courseOf(this.#client.settings);
    const request = { project: this.#client.project, hash };
    let given = 0;
    for (;;) {
      const node = course.node();
      let failure: Failure;
      try {
        for await (const chunk of this.#from(node, request, given, course.patienceMs(), course.remainingMs())) {
          given += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
        failure = error.failure;
      }
      const waitMs = course.onFailure(node, failure);
      await this.#client.nodes.rest(course.node(), failure, waitMs);
    }
  }

  /** What one node sends beyond what is known already. */
  async *#from(
    node: number,
    request: { project: string; hash: string },
    known: number,
    patienceMs: number,
    timeoutMs: number,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const stream = await this.#client.nodes.stream(node, METHOD.readSegment, request, patienceMs, timeoutMs);
    let skip = known;
    try {
      for (let answer = await stream.next(); answer !== undefined; answer = await stream.next()) {
        const rest = answer.chunk.subarray(Math.min(skip, answer.chunk.length));
        skip -= answer.chunk.length - rest.length;
        if (rest.length > 0) yield rest;
      }
    } finally {
      stream.cancel();
    }
  }
}

function decoded(hash: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw local("DATA_LOSS", "NOT_TEXT", `segment ${hash} is not UTF-8 text`, "read its bytes with `context.read`");
  }
}

function recorded(call: RecordedCall) {
  const { reader, probe, action, name = "", withheld = [] } = call;
  return { reader, probe, action, name, segments: call.segments.map(piece), withheld: withheld.map(piece) };
}

function piece({ id, owner, text, kind = "message", replaces = [] }: RecordedSegment) {
  return { id, owner, text, kind, replaces: [...replaces] };
}
