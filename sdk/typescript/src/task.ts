/** One task, and what can be done with it. */

import type { Ask, Explanation, TaskData, WhatIf } from "./data.js";
import type {
  AgainOptions,
  ChangeOptions,
  ForkOptions,
  SendOptions,
  Tasks,
  WaitOptions,
  WatchOptions,
} from "./tasks.js";
import type { Watch } from "./watch.js";

/** A task as it was when the cluster answered, and what can be done with it. `refresh` gives it anew. */
export interface Task extends TaskData {}

export class Task {
  readonly #tasks: Tasks;

  constructor(data: TaskData, tasks: Tasks) {
    this.#tasks = tasks;
    Object.assign(this, data);
  }

  /** The task as it is now (linearizable). */
  refresh(): Promise<Task> {
    return this.#tasks.get(this.#key);
  }

  /** Follows it; see `Tasks.watch`. */
  watch(options?: WatchOptions): Watch {
    return this.#tasks.watch(this.#key, options);
  }

  /** Waits until nothing more will happen to it; see `Tasks.wait`. */
  wait(options?: WaitOptions): Promise<Task> {
    return this.#tasks.wait(this.#key, options);
  }

  /** Waits for the end and gives the text, small or large; see `Tasks.result`. */
  result(options?: WaitOptions): Promise<string> {
    return this.#tasks.result(this.#key, options);
  }

  /** Returns when CANCELLING is durable. CANCELLED is the proof that nothing runs any more. */
  cancel(options?: ChangeOptions): Promise<Task> {
    return this.#tasks.cancel(this.#key, options);
  }

  /** Holds it still at once; see `Tasks.pause`. */
  pause(options?: ChangeOptions): Promise<Task> {
    return this.#tasks.pause(this.#key, options);
  }

  /** Puts a paused task back into its queue. */
  resume(options?: ChangeOptions): Promise<Task> {
    return this.#tasks.resume(this.#key, options);
  }

  /** Lets a tool call be made; see `Tasks.approve`. */
  approve(ask?: string | Ask, options?: ChangeOptions): Promise<Task> {
    return this.#tasks.approve(this.#key, ask, options);
  }

  /** Does not let a tool call be made; see `Tasks.reject`. */
  reject(ask?: string | Ask, options?: ChangeOptions): Promise<Task> {
    return this.#tasks.reject(this.#key, ask, options);
  }

  /** Answers a question; see `Tasks.answer`. */
  answer(text: string, ask?: string | Ask, options?: ChangeOptions): Promise<Task> {
    return this.#tasks.answer(this.#key, text, ask, options);
  }

  /** Has a call whose outcome is unknown made again; see `Tasks.repeat`. */
  repeat(ask?: string | Ask, options?: ChangeOptions): Promise<Task> {
    return this.#tasks.repeat(this.#key, ask, options);
  }

  /** Sends a message; see `Tasks.send`. */
  send(text: string, options?: SendOptions): Promise<Task> {
    return this.#tasks.send(this.#key, text, options);
  }

  /** A new task like this one, which has ended; see `Tasks.retry`. */
  retry(options?: AgainOptions): Promise<Task> {
    return this.#tasks.retry(this.#key, options);
  }

  /** A new task that goes on from a committed step of this one; see `Tasks.fork`. */
  fork(options?: ForkOptions): Promise<Task> {
    return this.#tasks.fork(this.#key, options);
  }

  /** Why it waits, with numbers; see `Tasks.explain`. */
  explain(options?: { whatIf?: readonly WhatIf[] }): Promise<Explanation> {
    return this.#tasks.explain(this.#key, options);
  }

  get #key(): string {
    return this.uid || this.id;
  }
}
