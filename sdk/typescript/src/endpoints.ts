/** Where the cluster is: any node will do, so a list of them, tried in turn. */

import { refused } from "./errors.js";

export const DEFAULT_PORT = 7400;
const HOST_PORT = /^(\[[0-9A-Fa-f:.%]+\]|[^\s/@:[\]]+)(?::([0-9]{1,5}))?$/;

export interface Endpoint {
  readonly address: string;
  readonly tls: boolean;
}

/** Addresses, and which of them is preferred now. */
export class Endpoints {
  readonly nodes: readonly Endpoint[];
  #preferred = 0;

  constructor(nodes: readonly Endpoint[]) {
    if (nodes.length === 0) {
      throw refused("NO_ENDPOINT", "no endpoint is given", "name at least one node, like 127.0.0.1:7400");
    }
    this.nodes = nodes;
  }

  /** The node to ask now. */
  pick(): number {
    return this.#preferred;
  }

  /** Moves on from a node that failed, unless another call has done so already. */
  failed(index: number): void {
    if (this.#preferred === index) this.#preferred = (index + 1) % this.nodes.length;
  }

  at(index: number): Endpoint {
    const node = this.nodes[index];
    if (node === undefined) throw new RangeError(`there is no endpoint ${index}`);
    return node;
  }

  /** All addresses, for messages. */
  names(): string {
    return this.nodes.map((node) => node.address).join(", ");
  }
}

/**
 * Reads `host:7400`, `host`, `http://host:7400`, `https://host:7400`; a text may hold several, by commas. With `tls`
 * (a CA is given) every node is asked over TLS.
 */
export function parseEndpoints(addresses: string | readonly string[], tls: boolean): Endpoints {
  const texts = typeof addresses === "string" ? addresses.split(",") : addresses;
  const given = texts.map((text) => text.trim()).filter((text) => text !== "");
  return new Endpoints(given.map((text) => parseOne(text, tls)));
}

function parseOne(text: string, tls: boolean): Endpoint {
  const refuse = (why: string) =>
    refused("BAD_ENDPOINT", `the endpoint ${JSON.stringify(text)} ${why}`, "write it like 127.0.0.1:7400");
  const [, scheme, rest = ""] = /^(?:(.*?):\/\/)?(.*?)\/*$/.exec(text) ?? [];
  if (scheme !== undefined && scheme !== "http" && scheme !== "https") throw refuse("is neither http nor https");
  if (scheme === "http" && tls) throw refuse("says http, but a CA is given");
  const match = HOST_PORT.exec(rest);
  if (match === null) throw refuse("is not host:port");
  const port = Number(match[2] ?? DEFAULT_PORT);
  if (port < 1 || port > 65_535) throw refuse("has no such port");
  return { address: `${match[1]}:${port}`, tls: tls || scheme === "https" };
}
