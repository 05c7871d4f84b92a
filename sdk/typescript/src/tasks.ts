/** Tasks: create, look at, follow, talk to, stop. */

import type { Client } from "./client.js";
import type { Ask, Busy, Explanation, TaskClass, TaskData, WhatIf } from "./data.js";
import { local } from "./errors.js";
import { SignalKind, TaskService, type Task as TaskMessage } from "./gen/quorate/v1/task_pb.js";
import {
  askOf,
  busyKind,
  checkSize,
  givenOrFresh,
  idOf,
  inputsOf,
  labelsOf,
  limitChange,
  limitOf,
  momentMs,
  noResult,
  queueOf,
  u64,
  type Given,
  type Moment,
} from "./requests.js";
import { Task } from "./task.js";
import { Watch } from "./watch.js";
import { explanation, task as readTask } from "./wire.js";

const METHOD = TaskService.method;

/** A change may be repeated with the id of a request whose answer was lost; a fresh one is made when not set. */
export interface ChangeOptions {
  requestId?: string | undefined;
}

export interface CreateOptions extends ChangeOptions {
  /** Several texts, with names where they are `Input`s; after `input` where both are given. */
  inputs?: readonly Given[] | undefined;
  /** Your own key, unique in the project. */
  taskId?: string | undefined;
  /** At most 16. */
  labels?: Readonly<Record<string, string>> | undefined;
  /** Which queue it waits in; `interactive` when not set. */
  taskClass?: TaskClass | undefined;
  /** 0 to 9; higher runs earlier within its class. 5 when not set. */
  priority?: number | undefined;
  /** When patience ends and the task is EXPIRED: `30m` from now, or a Date. */
  deadline?: Moment | undefined;
  /** When it may start at the earliest, written like the deadline. */
  notBefore?: Moment | undefined;
  /** Tasks of the project that have to succeed first. Where one doesn't, this one is cancelled. */
  after?: readonly (string | TaskData)[] | undefined;
  /** For the task and everything below it, by quota key, such as `{ tokens_total: 100_000 }`. */
  limits?: Readonly<Record<string, number | bigint>> | undefined;
  /** Check everything, change nothing: the answer is the task as it would be, `pending` says what would hold it now. */
  dryRun?: boolean | undefined;
}

export interface ListOptions {
  /** At most 1,000; left to the cluster when not set. */
  pageSize?: number | undefined;
  allowStale?: boolean | undefined;
}

export interface WatchOptions {
  /** The first committed event wanted. */
  fromSequence?: number | undefined;
  /** False leaves live text out. */
  tokens?: boolean | undefined;
  /** For the whole watch; then `WaitTimeout` is thrown. No end when not set. */
  timeoutMs?: number | undefined;
}

export interface WaitOptions {
  timeoutMs?: number | undefined;
}

export interface AgainOptions extends ChangeOptions {
  /** Your own key for the new task. */
  taskId?: string | undefined;
}

export interface ForkOptions extends AgainOptions {
  /** The committed step to go on from; the newest when not set. */
  step?: number | undefined;
}

export interface SendOptions extends ChangeOptions {
  /** What becomes of it while the task is at work: `reject` when not set. */
  busy?: Busy | undefined;
}

/** What can be said to a task, as the API has it. */
export type SignalWord = Exclude<keyof typeof SignalKind, "SIGNAL_KIND_UNSPECIFIED">;

export interface SignalOptions extends ChangeOptions {
  /** The open question; may be left out where only one is open. */
  ask?: string | Ask | undefined;
  text?: string | undefined;
}

/** Tasks of the client's project. Ids are task ids or uids. */
export class Tasks {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /**
   * Returns when the task and its inputs are durable. `agent` names an agent or a team.
   *
   * Throws `InvalidArgument` (a field can't be used; bounds are checked before anything is sent), `NotFound` (there is no
   * such agent), `Conflict` (the task id is taken, or the request id was used with another body), `UnknownOutcome` (no
   * answer came; it has the request id to repeat with).
   */
  async create(agent: string, input?: string, options: CreateOptions = {}): Promise<Task> {
    const nowMs = Date.now();
    const limits = Object.entries(options.limits ?? {}).map(([key, limit]) => [key, limitOf(key, limit)] as const);
    const requestId = givenOrFresh(options.requestId);
    const request = {
      project: this.#client.project,
      agent,
      inputs: inputsOf(input, options.inputs ?? []),
      taskId: options.taskId ?? "",
      requestId,
      ...queueOf(options.taskClass, options.priority),
      labels: labelsOf(options.labels),
      deadlineMs: momentMs(options.deadline, nowMs, "deadline"),
      validateOnly: options.dryRun ?? false,
      limits: Object.fromEntries(limits),
      notBeforeMs: momentMs(options.notBefore, nowMs, "not_before"),
      after: (options.after ?? []).map(idOf),
    };
    return this.#task(await this.#client.call(METHOD.createTask, request, requestId));
  }

  /**
   * The task as it is now (linearizable); with `allowStale` as the asked node last saw it: quick, also without a leader,
   * maybe old.
   */
  async get(id: string, options: { allowStale?: boolean } = {}): Promise<Task> {
    const request = { project: this.#client.project, id, allowStale: options.allowStale ?? false };
    return this.#task(await this.#client.call(METHOD.getTask, request));
  }

  /**
   * Every task, page after page as they are taken. `filter` has terms joined by AND: `state=RUNNING`, `agent=reader`,
   * `label.team=x`, `parent=t_...`, `class=batch`.
   */
  async *list(filter = "", options: ListOptions = {}): AsyncGenerator<Task, void, undefined> {
    const { pageSize = 0, allowStale = false } = options;
    const asked = { project: this.#client.project, filter, pageSize, allowStale };
    let pageToken = "";
    do {
      const page = await this.#client.call(METHOD.listTasks, { ...asked, pageToken });
      yield* page.tasks.map((it) => this.#task(it));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /**
   * Follows a task until its final state: committed events in order, live text between them. A stream that breaks is
   * taken up at the next node, without a gap and without a duplicate. Events that the cluster no longer keeps are named
   * by a gap.
   */
  watch(id: string, options: WatchOptions = {}): Watch {
    return new Watch(this.#client, id, options.fromSequence ?? 1, options.tokens ?? true, options.timeoutMs);
  }

  /** Waits, however long, until nothing more will happen to the task, and gives it. Throws `WaitTimeout`. */
  async wait(id: string, options: WaitOptions = {}): Promise<Task> {
    const watch = this.watch(id, { ...options, tokens: false });
    while (!(await watch.next()).done);
    return this.get(id);
  }

  /** Waits until the task has ended and gives its text, small or large. Throws `NoResult` where it ended otherwise. */
  async result(id: string, options: WaitOptions = {}): Promise<string> {
    const task = await this.wait(id, options);
    if (task.state !== "SUCCEEDED") throw noResult(task);
    return task.resultText ?? this.#client.context.readText(task.resultHash ?? "");
  }

  /** Returns when CANCELLING is durable. CANCELLED is the proof that nothing runs any more. */
  async cancel(id: string, options: ChangeOptions = {}): Promise<Task> {
    const request = this.#change(id, options);
    return this.#task(await this.#client.call(METHOD.cancelTask, request, request.requestId));
  }

  /** Holds the task still at once. A step that is not committed is decided again after resuming. */
  async pause(id: string, options: ChangeOptions = {}): Promise<Task> {
    const request = this.#change(id, options);
    return this.#task(await this.#client.call(METHOD.pauseTask, request, request.requestId));
  }

  /** Puts a paused task back into its queue. */
  async resume(id: string, options: ChangeOptions = {}): Promise<Task> {
    const request = this.#change(id, options);
    return this.#task(await this.#client.call(METHOD.resumeTask, request, request.requestId));
  }

  /**
   * Lets a tool call be made. `ask` as it came in `asks`, or its id; may be left out where only one is open. Throws
   * `AlreadyAnswered` (somebody was quicker), `NothingAsked`.
   */
  approve(id: string, ask?: string | Ask, options: ChangeOptions = {}): Promise<Task> {
    return this.signal(id, "APPROVE", { ...options, ask });
  }

  /** Does not let a tool call be made, or says of an unknown outcome that the call failed; its model hears so. */
  reject(id: string, ask?: string | Ask, options: ChangeOptions = {}): Promise<Task> {
    return this.signal(id, "REJECT", { ...options, ask });
  }

  /** Answers a question, or says how a call ended of which nobody knows. */
  answer(id: string, text: string, ask?: string | Ask, options: ChangeOptions = {}): Promise<Task> {
    return this.signal(id, "ANSWER", { ...options, ask, text });
  }

  /** Has a call whose outcome is unknown made again; only of tools whose policy is `ask`. */
  repeat(id: string, ask?: string | Ask, options: ChangeOptions = {}): Promise<Task> {
    return this.signal(id, "REPEAT", { ...options, ask });
  }

  /** Sends a message to a conversation. Throws `TaskBusy` where it is at work and `busy` does not say what then. */
  async send(id: string, text: string, options: SendOptions = {}): Promise<Task> {
    return this.#say(id, busyKind(options.busy ?? "reject"), { ...options, text });
  }

  /** Tells a task something in the API's own words. Durable when it returns, and heard once. */
  async signal(id: string, kind: SignalWord, options: SignalOptions = {}): Promise<Task> {
    return this.#say(id, SignalKind[kind], options);
  }

  /** A new task of the same agent's revision and inputs as one that has ended. Throws `NotEnded`. */
  async retry(id: string, options: AgainOptions = {}): Promise<Task> {
    const request = { ...this.#change(id, options), taskId: options.taskId ?? "" };
    return this.#task(await this.#client.call(METHOD.retryTask, request, request.requestId));
  }

  /** A new task that goes on from a committed step of another one. */
  async fork(id: string, options: ForkOptions = {}): Promise<Task> {
    const next = "name a committed step, or none";
    const step = options.step === undefined ? {} : { step: u64("step", "BAD_STEP", options.step, next) };
    const request = { ...this.#change(id, options), taskId: options.taskId ?? "", ...step };
    return this.#task(await this.#client.call(METHOD.forkTask, request, request.requestId));
  }

  /**
   * Why a task waits, with numbers, its place in the queue, and when it will start. With `whatIf` as if these limits were
   * set; nothing changes. Refused in a cluster of more than 10,000 tasks.
   */
  async explain(id: string, options: { whatIf?: readonly WhatIf[] } = {}): Promise<Explanation> {
    const whatIf = (options.whatIf ?? []).map(({ path, key, limit }) => ({ path, ...limitChange(key, limit) }));
    const answer = await this.#client.call(METHOD.explainTask, { project: this.#client.project, id, whatIf });
    const told = explanation(answer);
    if (told !== undefined) return told;
    throw local("INTERNAL", "BAD_ANSWER", "the node explained no task", "look at the log of the node that answered");
  }

  async #say(id: string, kind: SignalKind, options: SignalOptions): Promise<Task> {
    const text = checkSize("the text", options.text ?? "", "split it");
    const request = { ...this.#change(id, options), kind, ask: askOf(options.ask), text };
    return this.#task(await this.#client.call(METHOD.signalTask, request, request.requestId));
  }

  #change(id: string, options: ChangeOptions): { project: string; id: string; requestId: string } {
    return { project: this.#client.project, id, requestId: givenOrFresh(options.requestId) };
  }

  #task(it: TaskMessage): Task {
    return new Task(readTask(it), this);
  }
}
