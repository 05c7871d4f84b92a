/** The SDK against a node with certificates and keys. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import * as quorate from "../src/index.js";
import { ClusterService } from "../src/gen/quorate/v1/cluster_pb.js";
import { binary, Process, until } from "./cluster.js";

describe("a node with certificates and keys", () => {
  let folder: string;
  let node: Process;
  let key: string;
  const file = (name: string) => join(folder, name);
  const cert = (name: string, ...more: string[]) => execFileSync(binary(), ["cert", name, "--dir", folder, ...more], { stdio: "pipe" });
  const client = (options: quorate.ClientOptions) => new quorate.Client({ endpoints: node.clients, project: "default", ...options });
  const certificates = (name: string) => ({ ca: file("ca.crt"), cert: file(`${name}.crt`), certKey: file(`${name}.key`) });

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "quorate-typescript-tls-"));
    cert("init", "--cluster", "ours");
    cert("node", "--name", "one", "--addr", "127.0.0.1");
    cert("client", "--name", "ann", "--role", "admin", "--project", "*");
    cert("client", "--name", "vic", "--role", "viewer", "--project", "default");
    const newKey = ["key", "new", "--project", "default", "--role", "submitter", "--subject", "ci", "--file", file("keys.toml")];
    key = execFileSync(binary(), newKey, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
    writeFileSync(file("script.toml"), '[[reply]]\ntext = "Understood."\n');
    const tls = `[tls]\nca = "${file("ca.crt")}"\ncert = "${file("one.crt")}"\nkey = "${file("one.key")}"\n`;
    node = await Process.of(folder, "one", ["coordinator", "worker"], [], file("script.toml"), `keys = "${file("keys.toml")}"\n${tls}`);
    node.start();
    const admin = client(certificates("ann"));
    try {
      await until("founding the cluster", async () => (await admin.call(ClusterService.method.initCluster, {})).clusterId);
      await until("a leader", async () => (await admin.cluster.status()).leader);
      await until("the agent", () => admin.agents.apply('name = "quick"\nmodel = "scripted"\n'));
    } catch (error) {
      console.log(node.log());
      throw error;
    } finally {
      admin.close();
    }
  });
  after(async () => {
    await node?.kill();
    rmSync(folder, { recursive: true, force: true });
  });

  test("a client certificate says who asks, and its role counts", async () => {
    const viewer = client(certificates("vic"));
    try {
      assert.equal((await viewer.agents.get("quick")).name, "quick");
      await assert.rejects(viewer.tasks.create("quick", "hi"), quorate.PermissionDenied);
    } finally {
      viewer.close();
    }
  });

  test("so does an API key", async () => {
    const submitter = client({ ca: file("ca.crt"), apiKey: key });
    try {
      const task = await submitter.tasks.create("quick", "hi");
      assert.equal(await task.result({ timeoutMs: 60_000 }), "Understood.");
      await assert.rejects(submitter.quotas.set("cluster", { running: 1 }), quorate.PermissionDenied);
    } finally {
      submitter.close();
    }
  });

  test("strangers, and clients that trust another CA, get nowhere", async () => {
    const stranger = client({ ca: file("ca.crt") });
    const wrongKey = client({ ca: file("ca.crt"), apiKey: `${key.slice(0, -1)}${key.endsWith("A") ? "B" : "A"}` });
    const other = mkdtempSync(join(tmpdir(), "quorate-typescript-ca-"));
    execFileSync(binary(), ["cert", "init", "--dir", other, "--cluster", "theirs"], { stdio: "pipe" });
    const deceived = client({ ca: join(other, "ca.crt"), connectTimeoutMs: 300 });
    try {
      await assert.rejects(stranger.tasks.get("t_1"), quorate.PermissionDenied);
      await assert.rejects(wrongKey.tasks.get("t_1"), quorate.PermissionDenied);
      await assert.rejects(deceived.tasks.get("t_1"), (error) => error instanceof quorate.Unreachable && /certificate/.test(error.why ?? ""));
    } finally {
      [stranger, wrongKey, deceived].forEach((each) => each.close());
      rmSync(other, { recursive: true });
    }
  });
});
