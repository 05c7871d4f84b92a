/** What is written down works, and what is generated is what the protos say. */

import assert from "node:assert/strict";
import { spawn, execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, describe, test } from "node:test";
import { Client } from "../src/index.js";
import { Cluster, ROOT } from "./cluster.js";

const SCRIPT = `
[[reply]]
when_agent = "clerk"
when_results_below = 1
calls = [{ name = "files.write", arguments = '{"path": "note.txt", "text": "two of three"}' }]

[[reply]]
when_agent = "talker"
text = "Hello."

[[reply]]
text = "Understood."
`;

/** Runs a program that imports the package as users do; what it printed. */
async function run(folder: string, program: string): Promise<string> {
  const file = join(folder, "program.mjs");
  writeFileSync(file, program);
  const running = spawn(process.execPath, [file], { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"], timeout: 60_000 });
  let [told, complained] = ["", ""];
  running.stdout.on("data", (text: Buffer) => (told += text.toString()));
  running.stderr.on("data", (text: Buffer) => (complained += text.toString()));
  const code = await new Promise((done) => running.on("close", done));
  assert.equal(code, 0, complained);
  return told;
}

function blocks(page: string): string[] {
  return [...readFileSync(page, "utf8").matchAll(/```ts\n(.*?)```/gs)].map(([, block = ""]) => block);
}

describe("what is written down", () => {
  let cluster: Cluster;
  let folder: string;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "quorate-typescript-docs-"));
    // The package as it is published: only what `dist` has can be imported.
    execFileSync("npm", ["run", "--silent", "build"], { stdio: "inherit" });
    mkdirSync(join(folder, "node_modules"));
    symlinkSync(resolve("."), join(folder, "node_modules/quorate"));
    cluster = await Cluster.start(1, 0, SCRIPT);
  });
  after(async () => {
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const address = () => cluster.addresses()[0] ?? "";

  test("the README of the package works as written", async () => {
    const [block, ...more] = blocks("README.md");
    assert.ok(block !== undefined && more.length === 0);
    const [asked = "", answered, result, cancelled] = (await run(folder, block.replace("127.0.0.1:7400", address()))).split("\n");
    assert.ok(asked.startsWith("APPROVAL: files.write ") && asked.includes("two of three"), asked);
    assert.deepEqual([answered, result, cancelled], ["Understood.", "The result: Understood.", "CANCELLED"]);
  });

  test("the page works from top to bottom", async () => {
    const client = new Client({ endpoints: address(), project: "default" });
    await client.agents.apply('name = "talker"\nmodel = "smollm2"\nconversation = true\n');
    client.close();
    const shown = blocks(join(ROOT, "docs/typescript.md"));
    assert.equal(shown.length, 4);
    const told = await run(folder, shown.join("\n").replace("127.0.0.1:7400", address()));
    assert.ok(told.startsWith("Understood.\n") && told.endsWith("done\n"), told);
  });
});

test("the generated code is what the protos say", () => {
  const made = mkdtempSync(join(tmpdir(), "quorate-typescript-gen-"));
  try {
    execFileSync("./generate.sh", [join(made, "gen")], { stdio: "inherit" });
    const files = (of: string) => readdirSync(of, { recursive: true, withFileTypes: true }).filter((it) => it.isFile());
    const text = (of: string) => Object.fromEntries(files(of).map((it) => [it.name, readFileSync(join(it.path, it.name), "utf8")]));
    assert.deepEqual(text("src/gen"), text(join(made, "gen")), "run sdk/typescript/generate.sh");
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
});

test("the version is said once", async () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  assert.equal((await import("../src/index.js")).VERSION, version);
});
