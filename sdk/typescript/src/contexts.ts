/** The text behind tasks: chains by task, segments by hash. */

import type { Client } from "./client.js";
import type { Context } from "./data.js";
import { local, refused } from "./errors.js";
import { Failed, type Failure } from "./failures.js";
import { ContextService } from "./gen/quorate/v1/context_pb.js";
import { courseOf } from "./settings.js";
import { context } from "./wire.js";

/** The largest text that is put together in memory. */
const TEXT_BYTES_MAX = 64 << 20;

const METHOD = ContextService.method;

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
