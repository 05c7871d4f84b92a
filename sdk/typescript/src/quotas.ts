/** The quota tree of the cluster. Paths: `cluster`, `projects/NAME`, `projects/NAME/agents/NAME`, `tasks/ID`. */

import type { Quota } from "./admin-data.js";
import { quota } from "./admin-wire.js";
import type { Client } from "./client.js";
import { QuotaService } from "./gen/quorate/v1/quota_pb.js";
import { givenOrFresh, limitChange } from "./requests.js";
import { QuotaWatch } from "./watch.js";

const METHOD = QuotaService.method;

export interface SetQuotaOptions {
  /** For whoever reads it later. */
  reason?: string | undefined;
  /** Refused (`Conflict`) unless it is the one in force. */
  etag?: string | undefined;
  requestId?: string | undefined;
  /** Nothing changes; `wouldWait` names the running tasks that would have to wait. */
  dryRun?: boolean | undefined;
}

export interface QuotaWatchOptions {
  /** Audit events after this number; 0: only those from now on. */
  afterAudit?: number | undefined;
  /** For the whole watch; then `WaitTimeout` is thrown. No end when not set. */
  timeoutMs?: number | undefined;
}

export class Quotas {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  async get(path: string): Promise<Quota> {
    return quota(await this.#client.call(METHOD.getQuota, { path }));
  }

  /** Every place with limits or use; with `prefix` only that place and those below it. */
  async list(prefix = ""): Promise<Quota[]> {
    return (await this.#client.call(METHOD.listQuotas, { prefix })).quotas.map(quota);
  }

  /**
   * Changes only the keys that are named, such as `{ running: 4 }`; null takes a limit away. Returns the limits in force
   * when the change is durable.
   */
  async set(
    path: string,
    limits: Readonly<Record<string, number | bigint | null>>,
    options: SetQuotaOptions = {},
  ): Promise<Quota> {
    const request = {
      path,
      changes: Object.entries(limits).map(([key, limit]) => limitChange(key, limit)),
      reason: options.reason ?? "",
      etag: options.etag ?? "",
      requestId: givenOrFresh(options.requestId),
      validateOnly: options.dryRun ?? false,
    };
    return quota(await this.#client.call(METHOD.setQuota, request, request.requestId));
  }

  /**
   * Shows every place at and below a path (empty: all), then each of them again when it changes, and audit events
   * between. A stream that breaks is taken up at the next node: each place is shown again only if it changed.
   */
  watch(path = "", options: QuotaWatchOptions = {}): QuotaWatch {
    return new QuotaWatch(this.#client, path, options.afterAudit ?? 0, options.timeoutMs);
  }
}
