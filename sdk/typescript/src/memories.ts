/** What agents and people remember, in one scope. */

import type { Client } from "./client.js";
import type { Found, Memory, SearchKind } from "./data.js";
import { refused } from "./errors.js";
import { MemoryService } from "./gen/quorate/v1/memory_pb.js";
import { checkSize, givenOrFresh } from "./requests.js";
import { found, memory, SEARCH_NAMES, searchToWire } from "./wire.js";

const METHOD = MemoryService.method;

export interface RememberOptions {
  /** Words to find and to filter it by; 16 at most. */
  tags?: readonly string[] | undefined;
  /** Where it comes from. */
  source?: string | undefined;
  requestId?: string | undefined;
}

export interface SearchOptions {
  /** Hits wanted, at most 100; 5 when not set. */
  most?: number | undefined;
  /** By words, by meaning or by both, the default where the node can. */
  kind?: SearchKind | undefined;
  /** Every hit has all of these. */
  tags?: readonly string[] | undefined;
}

export class Memories {
  readonly #client: Client;
  readonly #scope: { project: string; scope: string };

  constructor(client: Client, scope: string) {
    this.#client = client;
    this.#scope = { project: client.project, scope };
  }

  /** Keeps a text. A text that is there already is not added twice. */
  async remember(text: string, options: RememberOptions = {}): Promise<Memory> {
    const request = {
      ...this.#scope,
      text: checkSize("the text", text, "split it"),
      tags: [...(options.tags ?? [])],
      source: options.source ?? "",
      requestId: givenOrFresh(options.requestId),
    };
    return memory(await this.#client.call(METHOD.remember, request, request.requestId));
  }

  /** The best hits, best first. */
  async search(query: string, options: SearchOptions = {}): Promise<Found> {
    const kind = options.kind === undefined ? 0 : searchToWire(options.kind);
    if (kind === undefined) {
      throw refused("BAD_SEARCH", `there is no search by ${JSON.stringify(options.kind)}`, `use one of ${SEARCH_NAMES}`);
    }
    const request = { ...this.#scope, query, k: options.most ?? 0, kind, tags: [...(options.tags ?? [])] };
    return found(await this.#client.call(METHOD.search, request));
  }

  /** Everything in the scope, oldest first, page after page as they are taken. */
  async *list(): AsyncGenerator<Memory, void, undefined> {
    let pageToken = "";
    do {
      const page = await this.#client.call(METHOD.listMemories, { ...this.#scope, pageToken });
      yield* page.items.map(memory);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  }

  /** One item, by its id or the beginning of it, 8 characters at least. */
  async get(id: string): Promise<Memory> {
    return memory(await this.#client.call(METHOD.getMemory, { ...this.#scope, id }));
  }

  /**
   * Erases one item, with every summary that was made from it, on every node and for good. `reason` is one word for the
   * record. Answers how many items are gone.
   */
  async forget(id: string, reason = ""): Promise<number> {
    return Number((await this.#client.call(METHOD.forget, { ...this.#scope, id, reason })).items);
  }

  /** Erases everything in the scope. */
  async forgetAll(reason = ""): Promise<number> {
    return Number((await this.#client.call(METHOD.forget, { ...this.#scope, all: true, reason })).items);
  }
}
