/** The client: who is asked, until there is an answer. */

import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Agents } from "./agents.js";
import { Cluster } from "./cluster.js";
import { Contexts } from "./contexts.js";
import { Failed, type Failure } from "./failures.js";
import { Memories } from "./memories.js";
import { Nodes } from "./nodes.js";
import { Prices } from "./prices.js";
import { Quotas } from "./quotas.js";
import { Schedules } from "./schedules.js";
import { courseOf, readSettings, type ClientOptions, type Settings } from "./settings.js";
import { Tasks } from "./tasks.js";

/** A handle to a cluster. Opens no connection: the first call does. Close it, or the process waits for its connections. */
export class Client {
  readonly tasks = new Tasks(this);
  readonly agents = new Agents(this);
  readonly schedules = new Schedules(this);
  readonly quotas = new Quotas(this);
  readonly prices = new Prices(this);
  readonly cluster = new Cluster(this);
  readonly context = new Contexts(this);
  /** @internal */
  readonly settings: Settings;
  /** @internal */
  readonly nodes: Nodes;

  /** Throws `InvalidArgument` where an address, the project, a key or a certificate can't be used. */
  constructor(options: ClientOptions | string | readonly string[] = {}) {
    const named = typeof options === "string" || isList(options) ? { endpoints: options } : options;
    this.settings = readSettings(named);
    this.nodes = new Nodes(this.settings);
  }

  get project(): string {
    return this.settings.project;
  }

  /** What is remembered: `projects/NAME/agents/NAME`, `tasks/ID`, or the project's own where no scope is given. */
  memories(scope = ""): Memories {
    return new Memories(this, scope);
  }

  /** Ends calls and watches that go on, and closes the connections. */
  close(): void {
    this.nodes.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Asks until there is an answer, the time is up, or the answer is final.
   * @internal
   */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    requestId?: string,
    timeoutMs?: number,
  ): Promise<MessageShape<O>> {
    const course = courseOf(this.settings, requestId, timeoutMs);
    for (;;) {
      const node = course.node();
      let failure: Failure;
      try {
        return await this.nodes.unary(node, method, request, course.patienceMs());
      } catch (error) {
        if (!(error instanceof Failed)) throw error;
        failure = error.failure;
      }
      const waitMs = course.onFailure(node, failure);
      await this.nodes.rest(course.node(), failure, waitMs);
    }
  }
}

function isList(given: ClientOptions | readonly string[]): given is readonly string[] {
  return Array.isArray(given);
}
