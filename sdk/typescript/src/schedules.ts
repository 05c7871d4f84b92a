/** Tasks that are created again and again. */

import type { Client } from "./client.js";
import type { Schedule, TaskClass } from "./data.js";
import { TaskService } from "./gen/quorate/v1/task_pb.js";
import { givenOrFresh, inputsOf, queueOf, type Given } from "./requests.js";
import { schedule } from "./wire.js";

const METHOD = TaskService.method;

export interface ScheduleOptions {
  inputs?: readonly Given[] | undefined;
  /** Which queue its tasks wait in; `batch` when not set. */
  taskClass?: TaskClass | undefined;
  /** 0 to 9; 5 when not set. */
  priority?: number | undefined;
  requestId?: string | undefined;
}

/** Schedules of the client's project. */
export class Schedules {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /**
   * Puts a schedule, in place of the one that had its name. `cron`: minute, hour, day of the month, month, day of the
   * week, in UTC: `0 6 * * MON-FRI`.
   */
  async set(name: string, cron: string, agent: string, input?: string, options: ScheduleOptions = {}): Promise<Schedule> {
    const request = {
      project: this.#client.project,
      name,
      cron,
      agent,
      inputs: inputsOf(input, options.inputs ?? []),
      ...queueOf(options.taskClass, options.priority),
      requestId: givenOrFresh(options.requestId),
    };
    return schedule(await this.#client.call(METHOD.setSchedule, request, request.requestId));
  }

  async list(): Promise<Schedule[]> {
    return (await this.#client.call(METHOD.listSchedules, { project: this.#client.project })).schedules.map(schedule);
  }

  /** Ends a schedule; tasks that it created go on. */
  async delete(name: string, options: { requestId?: string } = {}): Promise<void> {
    const request = { project: this.#client.project, name, requestId: givenOrFresh(options.requestId) };
    await this.#client.call(METHOD.deleteSchedule, request, request.requestId);
  }
}
