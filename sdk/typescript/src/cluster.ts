/** The machines, and the consensus between them. */

import type { AuditEvent, ClusterStatus, Model, Node } from "./admin-data.js";
import { auditEvent, clusterStatus, model, node } from "./admin-wire.js";
import type { Client } from "./client.js";
import { ClusterService } from "./gen/quorate/v1/cluster_pb.js";
import { givenOrFresh, u64 } from "./requests.js";

const METHOD = ClusterService.method;

export interface NodeChangeOptions {
  reason?: string | undefined;
  requestId?: string | undefined;
}

export interface DrainOptions extends NodeChangeOptions {
  /** What a step may still take before its task is moved in the middle of it; 10,000 when not set. */
  graceMs?: number | undefined;
}

export interface AuditOptions {
  /** Only events after this number. */
  after?: number | undefined;
  /** Left to the cluster when not set. */
  pageSize?: number | undefined;
}

export class Cluster {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  async status(): Promise<ClusterStatus> {
    return clusterStatus(await this.#client.call(METHOD.getClusterStatus, {}));
  }

  /** Every member, whatever its roles. */
  async nodes(): Promise<Node[]> {
    return (await this.#client.call(METHOD.listNodes, {})).nodes.map(node);
  }

  /** One member, by an id like `n7` or its name. */
  async node(id: string): Promise<Node> {
    return node(await this.#client.call(METHOD.getNode, { id }));
  }

  /** Models that nodes hold. */
  async models(): Promise<Model[]> {
    return (await this.#client.call(METHOD.listModels, {})).models.map(model);
  }

  /** The node gets nothing new; what runs there goes on. */
  async cordon(id: string, options: NodeChangeOptions = {}): Promise<Node> {
    const request = this.#change(id, options);
    return node(await this.#client.call(METHOD.cordonNode, request, request.requestId));
  }

  /** Takes a cordon or a drain back. */
  async uncordon(id: string, options: NodeChangeOptions = {}): Promise<Node> {
    const request = this.#change(id, options);
    return node(await this.#client.call(METHOD.uncordonNode, request, request.requestId));
  }

  /** The node gets nothing new, and its tasks move to others at their next step. */
  async drain(id: string, options: DrainOptions = {}): Promise<Node> {
    const { graceMs } = options;
    const next = "give whole milliseconds, 0 to move tasks at once";
    const grace = graceMs === undefined ? {} : { graceMs: u64("the grace", "BAD_GRACE", graceMs, next) };
    const request = { ...this.#change(id, options), ...grace };
    return node(await this.#client.call(METHOD.drainNode, request, request.requestId));
  }

  /** A worker that is lost leaves the cluster for good. Refused while it is attached or holds leases. */
  async removeNode(id: string, options: NodeChangeOptions = {}): Promise<ClusterStatus> {
    const request = this.#change(id, options);
    return clusterStatus(await this.#client.call(METHOD.removeNode, request, request.requestId));
  }

  /**
   * Begins the newest feature level that every member knows: the last step of an upgrade, after which no node can go back
   * to the version before.
   */
  async raiseLevel(options: NodeChangeOptions = {}): Promise<ClusterStatus> {
    const request = this.#reason(options);
    return clusterStatus(await this.#client.call(METHOD.raiseLevel, request, request.requestId));
  }

  /**
   * Who changed limits, prices and nodes, when and why; page after page as they are taken, the oldest first. `subject`:
   * only about this or what lies below it: a quota path, `nodes/n4`, a model.
   */
  async *audit(subject = "", options: AuditOptions = {}): AsyncGenerator<AuditEvent, void, undefined> {
    let after = BigInt(options.after ?? 0);
    do {
      const page = await this.#client.call(METHOD.listAuditEvents, { after, subject, pageSize: options.pageSize ?? 0 });
      yield* page.events.map(auditEvent);
      after = page.nextAfter;
    } while (after !== 0n);
  }

  #change(id: string, options: NodeChangeOptions): { id: string; reason: string; requestId: string } {
    return { id, ...this.#reason(options) };
  }

  #reason(options: NodeChangeOptions): { reason: string; requestId: string } {
    return { reason: options.reason ?? "", requestId: givenOrFresh(options.requestId) };
  }
}
