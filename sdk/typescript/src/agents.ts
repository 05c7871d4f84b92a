/** Definitions of agents and teams. */

import type { Client } from "./client.js";
import type { Agent } from "./data.js";
import { AgentService } from "./gen/quorate/v1/agent_pb.js";
import { checkSize, givenOrFresh } from "./requests.js";
import { agent } from "./wire.js";

const METHOD = AgentService.method;

export interface ApplyOptions {
  /** Refused (`Conflict`) unless it is the one in force; `0`: only if there is no such agent. */
  etag?: string | undefined;
  requestId?: string | undefined;
  /** Check everything, change nothing. */
  dryRun?: boolean | undefined;
}

export class Agents {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Takes the TOML text of an agent or a team; returns the revision in force when it is durable. */
  async apply(toml: string, options: ApplyOptions = {}): Promise<Agent> {
    const request = {
      project: this.#client.project,
      toml: checkSize("the definition", toml, "give long texts as inputs of a task"),
      etag: options.etag ?? "",
      requestId: givenOrFresh(options.requestId),
      validateOnly: options.dryRun ?? false,
    };
    return agent(await this.#client.call(METHOD.applyAgent, request, request.requestId));
  }

  async get(name: string): Promise<Agent> {
    return agent(await this.#client.call(METHOD.getAgent, { project: this.#client.project, name }));
  }

  /** All of them, by name, page after page as they are taken. */
  async *list(): AsyncGenerator<Agent, void, undefined> {
    let pageToken = "";
    do {
      const page = await this.#client.call(METHOD.listAgents, { project: this.#client.project, pageToken });
      yield* page.agents.map(agent);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }
}
