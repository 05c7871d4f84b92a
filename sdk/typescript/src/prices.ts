/** What models cost, and what was spent. */

import type { CostGroup, Costs, Price } from "./admin-data.js";
import { costs, GROUP_NAMES, groupToWire, price } from "./admin-wire.js";
import type { Client } from "./client.js";
import { refused } from "./errors.js";
import { PriceBookService } from "./gen/quorate/v1/price_pb.js";
import { givenOrFresh, momentMs, u64 } from "./requests.js";

const METHOD = PriceBookService.method;

/** Micro-dollars a million tokens: 3_000_000 are 3 dollars. */
export interface Amounts {
  /** New tokens of the prompt. */
  input: number;
  /** Generated tokens. */
  output: number;
  /** Tokens of the prompt that were in the chain before. */
  cached?: number | undefined;
}

export interface SetPriceOptions {
  reason?: string | undefined;
  /** Refused (`Conflict`) unless it is the one in force; `0`: the model must have no price yet. */
  etag?: string | undefined;
  requestId?: string | undefined;
}

export interface CostOptions {
  /** Tasks whose last step (or creation, before the first) is not before this moment, and before `until`. */
  since?: Date | undefined;
  until?: Date | undefined;
  /** Only this one; all when not set. */
  project?: string | undefined;
}

export class Prices {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** Counts from the next reservation on. What is under way settles at the price it began with. */
  async set(model: string, amounts: Amounts, options: SetPriceOptions = {}): Promise<Price> {
    const request = {
      model,
      input: amount("input", amounts.input),
      cached: amount("cached", amounts.cached ?? 0),
      output: amount("output", amounts.output),
      etag: options.etag ?? "",
      reason: options.reason ?? "",
      requestId: givenOrFresh(options.requestId),
    };
    return price(await this.#client.call(METHOD.setPrice, request, request.requestId));
  }

  async get(model: string): Promise<Price> {
    return price(await this.#client.call(METHOD.getPrice, { model }));
  }

  /** Of every model that has one. */
  async list(): Promise<Price[]> {
    return (await this.#client.call(METHOD.listPrices, {})).prices.map(price);
  }

  /** What tasks used, summed over those that the cluster still keeps: ended ones for 7 days. */
  async costs(by: CostGroup = "project", options: CostOptions = {}): Promise<Costs> {
    const groupBy = groupToWire(by);
    if (groupBy === undefined) {
      throw refused("BAD_GROUP", `costs can't be summed by ${JSON.stringify(by)}`, `use one of ${GROUP_NAMES}`);
    }
    const sinceMs = momentMs(options.since, 0, "since");
    const untilMs = momentMs(options.until, 0, "until");
    return costs(await this.#client.call(METHOD.queryCost, { groupBy, sinceMs, untilMs, project: options.project ?? "" }));
  }
}

function amount(name: string, value: number): bigint {
  return u64(`the price ${name}`, "BAD_PRICE", value, "give whole micro-dollars a million tokens");
}
