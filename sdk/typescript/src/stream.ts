/** What a node streams, taken one message at a time. */

import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { endedHere, Failed, failureOf, type Failure } from "./failures.js";

/** Messages that may wait for whoever takes them, before the node is held back. */
const WAITING_MAX = 256;

export class Stream<T> {
  readonly #call: ClientReadableStream<T>;
  readonly #waiting: T[] = [];
  #accepted = false;
  #ended = false;
  #failure: Failure | undefined;
  #wake: () => void = () => undefined;

  constructor(call: ClientReadableStream<T>) {
    this.#call = call;
    call.on("metadata", () => this.#changed(() => (this.#accepted = true)));
    call.on("end", () => this.#changed(() => (this.#ended = true)));
    call.on("error", (raised) => this.#changed(() => (this.#failure ??= failureOf(raised as ServiceError))));
    call.on("data", (message: T) => this.#changed(() => this.#push(message)));
  }

  /** Waits until the node has taken the call; it is cancelled when that takes too long. */
  async accepted(patienceMs: number): Promise<void> {
    const silent = endedHere("lost", "the node did not take the call in time");
    const late = () => this.#changed(() => (this.#failure ??= silent));
    const impatience = setTimeout(late, patienceMs);
    while (!this.#accepted && !this.#ended && this.#failure === undefined) await this.#change();
    clearTimeout(impatience);
    if (this.#failure === undefined) return;
    this.cancel();
    throw new Failed(this.#failure);
  }

  /** The next message; undefined when the node ended the stream in good order. */
  async next(): Promise<T | undefined> {
    for (;;) {
      const message = this.#waiting.shift();
      if (this.#waiting.length === 0 && this.#call.isPaused()) this.#call.resume();
      if (message !== undefined) return message;
      if (this.#failure !== undefined) throw new Failed(this.#failure);
      if (this.#ended) return undefined;
      await this.#change();
    }
  }

  cancel(): void {
    this.#call.cancel();
  }

  #push(message: T): void {
    this.#waiting.push(message);
    if (this.#waiting.length >= WAITING_MAX) this.#call.pause();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve));
  }

  #changed(what: () => void): void {
    what();
    this.#wake();
  }
}
