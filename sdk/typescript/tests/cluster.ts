/** Clusters of real `quorate` processes on loopback, with a scripted model. */

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ClusterService } from "../src/gen/quorate/v1/cluster_pb.js";
import { Client, Conflict, QuorateError } from "../src/index.js";

/** Of the repository; tests run in sdk/typescript. */
export const ROOT = resolve("../..");
export const MODEL = "scripted";
/** The second one is what the examples ask for. */
const MODELS = [MODEL, "smollm2"];
const PATIENCE_MS = 60_000;

/** Below the range from which the system gives ports, so that a node that was killed finds its port free again. */
const PORTS = { first: 12_000, count: 18_000 };
let nextPort = (process.pid * 193) % PORTS.count;

export function binary(): string {
  const path = resolve(process.env["QUORATE_BIN"] ?? join(ROOT, "target/debug/quorate"));
  assert.ok(existsSync(path), `there is no binary at ${path}: build it with \`make build\`, or name one in QUORATE_BIN`);
  return path;
}

/** The first value that `look` gives; errors of the cluster count as none. */
export async function until<T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> {
  const giveUp = performance.now() + PATIENCE_MS;
  let pauseMs = 10;
  let last: unknown;
  while (performance.now() < giveUp) {
    try {
      const found = await look();
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      if (!(error instanceof QuorateError)) throw error;
      last = error;
    }
    await pause(pauseMs);
    pauseMs = Math.min(pauseMs * 1.5, 200);
  }
  throw new assert.AssertionError({ message: `${what}: not within ${PATIENCE_MS} ms; ${String(last)}` });
}

async function freePort(): Promise<number> {
  for (let tries = 0; tries < PORTS.count; tries += 1) {
    nextPort = (nextPort + 1) % PORTS.count;
    const port = PORTS.first + nextPort;
    const probe = createServer().listen(port, "127.0.0.1");
    const bound = await once(probe, "listening").then(() => true, () => false);
    if (!bound) continue;
    probe.close();
    await once(probe, "close");
    return port;
  }
  throw new Error("no free port on loopback");
}

/** One node. Its log is beside its configuration. */
export class Process {
  readonly name: string;
  readonly clients: string;
  readonly internal: string;
  readonly #folder: string;
  #process: ChildProcess | undefined;

  private constructor(folder: string, name: string, clients: string, internal: string) {
    this.#folder = folder;
    this.name = name;
    this.clients = clients;
    this.internal = internal;
  }

  static async of(folder: string, name: string, roles: string[], joins: string[], script: string, more = ""): Promise<Process> {
    const [clients, internal, http] = [await freePort(), await freePort(), await freePort()].map((port) => `127.0.0.1:${port}`);
    const node = new Process(folder, name, clients ?? "", internal ?? "");
    const providers = MODELS.map((model) => `[[provider]]\nname = "${model}"\nkind = "scripted"\nfile = "${script}"\n`);
    const config =
      `name = "${name}"\nroles = ${JSON.stringify(roles)}\ndata_dir = "${join(folder, name)}"\njoin = ${JSON.stringify(joins)}\n${more}` +
      `[listen]\nclients = "${clients}"\ninternal = "${internal}"\nhttp = "${http}"\n[worker]\nslots = 8\n[engine]\nmodels = []\n` +
      providers.join("");
    writeFileSync(join(folder, `${name}.toml`), config);
    return node;
  }

  start(): void {
    const log = openSync(join(this.#folder, `${this.name}.log`), "a");
    this.#process = spawn(binary(), ["start", "--config", join(this.#folder, `${this.name}.toml`)], { stdio: ["ignore", log, log] });
    closeSync(log);
  }

  get runs(): boolean {
    return this.#process !== undefined;
  }

  /** SIGKILL: nothing is handed over. */
  async kill(): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    if (running === undefined || running.exitCode !== null) return;
    running.kill("SIGKILL");
    await once(running, "exit");
  }

  /** SIGSTOP: its connections stay open, and nothing is answered. SIGKILL ends it, too. */
  freeze(): void {
    this.#process?.kill("SIGSTOP");
  }

  log(): string {
    const file = join(this.#folder, `${this.name}.log`);
    return [`--- ${this.name}`, ...(existsSync(file) ? readFileSync(file, "utf8").split("\n").slice(-15) : [])].join("\n");
  }
}

/** So many coordinators and workers, or one node that is both. */
export class Cluster {
  readonly nodes = new Map<string, Process>();
  readonly #folder: string;
  readonly #coordinators: number;

  private constructor(folder: string, coordinators: number) {
    this.#folder = folder;
    this.#coordinators = coordinators;
  }

  static async start(coordinators: number, workers: number, script: string): Promise<Cluster> {
    binary();
    const cluster = new Cluster(mkdtempSync(join(tmpdir(), "quorate-typescript-")), coordinators);
    try {
      await cluster.#start(workers, script);
      return cluster;
    } catch (error) {
      console.log([...cluster.nodes.values()].map((node) => node.log()).join("\n"));
      await cluster.stop();
      throw error;
    }
  }

  /** Where clients ask; a node that is named comes first. */
  addresses(first = ""): string[] {
    const nodes = [...this.nodes.values()];
    return [...nodes.filter((node) => node.name === first), ...nodes.filter((node) => node.name !== first)].map((node) => node.clients);
  }

  node(name: string): Process {
    const found = this.nodes.get(name);
    assert.ok(found, `no node ${name}`);
    return found;
  }

  async with<T>(use: (client: Client) => Promise<T>, first = ""): Promise<T> {
    const client = new Client({ endpoints: this.addresses(first), project: "default" });
    try {
      return await use(client);
    } finally {
      client.close();
    }
  }

  /** Name of the node that leads. */
  leader(): Promise<string> {
    return this.with((client) =>
      until("a leader", async () => {
        const { leader } = await client.cluster.status();
        return (await client.cluster.nodes()).find((node) => node.id === leader || node.name === leader)?.name;
      }),
    );
  }

  /** Starts again what was killed, and waits until all is as it was. */
  async revive(): Promise<void> {
    for (const node of this.nodes.values()) if (!node.runs) node.start();
    await this.#ready();
  }

  async stop(): Promise<void> {
    await Promise.all([...this.nodes.values()].map((node) => node.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start(workers: number, script: string): Promise<void> {
    const file = join(this.#folder, "script.toml");
    writeFileSync(file, script);
    const names = (kind: string, count: number) => Array.from({ length: count }, (_, n) => `${kind}-${n + 1}`);
    const joins: string[] = [];
    for (const name of [...names("coordinator", this.#coordinators), ...names("worker", workers)]) {
      mkdirSync(join(this.#folder, name));
      const roles = workers === 0 ? ["coordinator", "worker"] : [name.replace(/-.*/, "")];
      // Every node knows the coordinators before it, so that any of them may be down later.
      const node = await Process.of(this.#folder, name, roles, [...joins], file);
      this.nodes.set(name, node);
      if (roles.includes("coordinator")) joins.push(node.internal);
    }
    await this.#found();
    for (const node of this.nodes.values()) if (!node.runs) node.start();
    await this.#ready();
  }

  /** The SDK does not found clusters: that is a verb of the command line. */
  async #found(): Promise<void> {
    const first = this.node("coordinator-1");
    first.start();
    const client = new Client({ endpoints: first.clients, timeoutMs: 5_000 });
    try {
      await until("founding the cluster", async () => {
        try {
          await client.call(ClusterService.method.initCluster, {});
        } catch (error) {
          // An attempt whose answer was lost has founded it.
          if (!(error instanceof Conflict && error.reason === "ALREADY_INITIALISED")) throw error;
        }
        return true;
      });
    } finally {
      client.close();
    }
  }

  /** Every node is attached, and the coordinators vote. */
  async #ready(): Promise<void> {
    await this.with((client) =>
      until("all nodes attached", async () => {
        const ready = (await client.cluster.nodes()).filter((node) => node.state === "ready").length;
        const status = await client.cluster.status();
        return ready === this.nodes.size && status.voters.length === this.#coordinators && status.leader !== undefined;
      }),
    );
  }
}
