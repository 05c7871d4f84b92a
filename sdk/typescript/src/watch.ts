/** Following over connections that break: the stream is opened again elsewhere, and reads as one. */

import type { QuotaEvent } from "./admin-data.js";
import type { Client } from "./client.js";
import type { TaskEvent } from "./data.js";
import { Failed, type Failure } from "./failures.js";
import { QuotaService, type QuotaEvent as QuotaMessage } from "./gen/quorate/v1/quota_pb.js";
import { TaskService, type TaskEvent as TaskMessage } from "./gen/quorate/v1/task_pb.js";
import type { Stream } from "./stream.js";
import { Following, QuotaFollowing, stopped, type Keeping } from "./watching.js";

/** A stream that is open, and the node that sends it. */
interface Open<M> {
  readonly node: number;
  readonly stream: Stream<M>;
}

/** What both watches share: one message after the other, from whichever node sends it. */
abstract class Watching<M, E> implements AsyncIterableIterator<E> {
  protected readonly client: Client;
  #open: Open<M> | undefined;

  constructor(client: Client) {
    this.client = client;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** After an error it may be asked again: it goes on where it was. */
  abstract next(): Promise<IteratorResult<E>>;

  /** Leaving a `for await` closes the stream; asking for the next event opens another one. */
  return(): Promise<IteratorResult<E>> {
    this.close();
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Gives the stream back. */
  close(): void {
    this.#open?.stream.cancel();
    this.#open = undefined;
  }

  protected abstract readonly following: Keeping;
  protected abstract openAt(node: number): Promise<Stream<M>>;
  /** False: drop the stream and ask again. */
  protected abstract take(message: M): boolean;

  /** True when nothing more will come although the stream ended without a word. */
  protected isOver(): Promise<boolean> {
    return Promise.resolve(false);
  }

  /** Opens the stream if it is not, and takes one message from it. */
  protected async receive(): Promise<void> {
    const node = this.#open?.node ?? this.following.node();
    let failure: Failure;
    try {
      this.#open ??= { node, stream: await this.openAt(node) };
      const message = await this.#open.stream.next();
      if (message !== undefined) return this.take(message) ? undefined : this.close();
      failure = stopped();
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      failure = error.failure;
    }
    this.close();
    if (failure.kind === "busy" && (await this.isOver())) return;
    const waitMs = this.following.onFailure(node, failure);
    await this.client.nodes.rest(this.following.node(), failure, waitMs);
  }
}

/** A task being followed. Ends by itself after the event that brings the final state. */
export class Watch extends Watching<TaskMessage, TaskEvent> {
  protected readonly following: Following;
  readonly #request: { project: string; id: string; noTokens: boolean };

  /** @internal */
  constructor(client: Client, id: string, fromSequence: number, tokens: boolean, timeoutMs: number | undefined) {
    super(client);
    const { endpoints, policy } = client.settings;
    this.following = new Following(endpoints, policy, { id, fromSequence }, timeoutMs);
    this.#request = { project: client.project, id, noTokens: !tokens };
  }

  /** Where to go on later: the sequence of the next committed event. */
  get nextSequence(): number {
    return this.following.nextSequence;
  }

  /** The live text of the newest step as shown so far, without what was taken back. */
  get text(): string {
    return this.following.text;
  }

  override async next(): Promise<IteratorResult<TaskEvent>> {
    for (;;) {
      const event = this.following.pop();
      if (event !== undefined) return { done: false, value: event };
      if (this.following.ended) return this.return();
      await this.receive();
    }
  }

  protected override openAt(node: number): Promise<Stream<TaskMessage>> {
    const request = { ...this.#request, fromSequence: this.following.begin() };
    const patienceMs = this.following.openPatienceMs();
    // Without a timeout no deadline travels with it: a task may take days.
    return this.client.nodes.stream(node, TaskService.method.watchTask, request, patienceMs, this.following.leftMs());
  }

  protected override take(message: TaskMessage): boolean {
    return this.following.take(message);
  }

  protected override async isOver(): Promise<boolean> {
    return this.following.mustLook && this.following.looked(await this.client.tasks.get(this.#request.id));
  }
}

/** Quotas being followed. Never ends by itself. */
export class QuotaWatch extends Watching<QuotaMessage, QuotaEvent> {
  protected readonly following: QuotaFollowing;
  readonly #path: string;
  #shown: QuotaEvent | undefined;

  /** @internal */
  constructor(client: Client, path: string, afterAudit: number, timeoutMs: number | undefined) {
    super(client);
    const { endpoints, policy } = client.settings;
    this.following = new QuotaFollowing(endpoints, policy, afterAudit, timeoutMs);
    this.#path = path;
  }

  /** Where to go on later: the number of the last audit event shown. */
  get lastAudit(): number {
    return this.following.lastAudit;
  }

  override async next(): Promise<IteratorResult<QuotaEvent>> {
    this.#shown = undefined;
    while (this.#shown === undefined) await this.receive();
    return { done: false, value: this.#shown };
  }

  protected override openAt(node: number): Promise<Stream<QuotaMessage>> {
    const request = { path: this.#path, afterAudit: BigInt(this.following.lastAudit) };
    const patienceMs = this.following.openPatienceMs();
    return this.client.nodes.stream(node, QuotaService.method.watchQuotas, request, patienceMs, this.following.leftMs());
  }

  protected override take(message: QuotaMessage): boolean {
    this.#shown = this.following.take(message);
    return true;
  }
}
