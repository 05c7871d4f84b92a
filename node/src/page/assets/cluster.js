// The machines: who leads, what each node does, and where the KV of its engines lies.

import { poll } from "/page/api.js";
import { card, h, meter, redraw } from "/page/dom.js";
import { STATES, bytes, count, percent, short, stateKind, stateWords } from "/page/words.js";

const TIERS = { memory: "c2", host: "c1", disk: "c4" };

export function open(root) {
  return {
    async tick() {
      const seen = await poll("cluster", "cluster", {});
      if (seen) redraw(root, summary(seen), h("div.nodes", null, seen.nodes.map(node)));
    },
    failed(error) {
      if (error.reason !== "PROJECT_DENIED") return undefined;
      redraw(root, card("Cluster", null, h("div.empty", null, "The machines are shown to callers of every project. ", h("a", { href: "#/tasks" }, "Tasks of your project"))));
      return true;
    },
  };
}

function summary({ cluster, nodes }) {
  const ready = nodes.filter((node) => node.state === "ready").length;
  const slots = nodes.reduce((sum, node) => sum + node.slots, 0);
  const running = nodes.reduce((sum, node) => sum + node.running, 0);
  const behind = cluster.committed_index - cluster.applied_index;
  return h("section.card", null,
    h("div.facts", null,
      fact("Leader", cluster.leader || "nobody", `term ${cluster.term}`),
      fact("Voters", String(cluster.voters.length), `${cluster.voters.length > 2 ? Math.floor((cluster.voters.length - 1) / 2) : "none"} may be lost`),
      fact("Nodes ready", `${ready} of ${nodes.length}`, cluster.learners.length > 0 ? `learning: ${cluster.learners.join(", ")}` : `${cluster.copies} ${cluster.copies === 1 ? "copy" : "copies"} of all`),
      fact("Slots", `${running} of ${slots}`, "tasks at work"),
      fact("Entry", count(cluster.applied_index), behind > 0 ? `${count(behind)} behind` : "applied here"),
      tasksFact(cluster.tasks_by_state)),
    cluster.warnings.length > 0 && h("div.warnings", null, cluster.warnings.map((words) => h("div", null, words))));
}

function fact(title, value, more) {
  return h("div.fact", null, h("div.faint", null, title), h("div.big.cut", { title: value }, value), h("div.soft.cut", { title: more }, more));
}

function tasksFact(byState) {
  const all = Object.values(byState).reduce((sum, each) => sum + each, 0);
  const states = STATES.filter((name) => byState[name] > 0);
  return h("div.fact.wide", null,
    h("div.faint", null, "Tasks"),
    h("div.big", null, count(all)),
    meter(states.map((name) => [byState[name] / all, `fill-${stateKind(name)}`, stateWords(name)])),
    h("div.legend", null, states.map((name) =>
      h("a", { href: `#/tasks?state=${name}` }, h("i.dot", { class: `fill-${stateKind(name)}` }), `${stateWords(name)} ${count(byState[name])}`))));
}

function node(it) {
  const kind = { ready: "run", lost: "bad" }[it.state] || "wait";
  const device = it.device;
  const used = device.memory_bytes ? device.memory_bytes - (device.memory_free_bytes || 0) : 0;
  return h("section.card.node", { class: it.state === "lost" && "lost" },
    h("header", null,
      h("h2", null, it.name), h("span.faint.mono", null, it.id),
      h("span.state", { class: kind }, it.state),
      h("span.more", null, h("span", null, it.roles.join(", ")), h("span.mono.faint", null, it.version))),
    h("div.pad.rows", null,
      it.slots > 0 && line("Slots", meter([[it.running / it.slots, "", `${it.running} at work`]], it.running >= it.slots && "warn"), `${it.running} of ${it.slots}`),
      device.memory_bytes && line("Memory", meter([[used / device.memory_bytes, "", "in use on the machine"]], used / device.memory_bytes > 0.92 && "warn"), `${bytes(used)} of ${bytes(device.memory_bytes)}`),
      pressure(device),
      device.gpus.map((gpu) => line(gpu.name || "GPU", meter([[(gpu.utilization_percent || 0) / 100, "", "busy"]]), `${bytes(gpu.memory_used_bytes)} of ${bytes(gpu.memory_total_bytes)}`)),
      h("div.notes-line", null, [
        device.rss_bytes && ["process", bytes(device.rss_bytes)],
        ["segments", `${count(it.segments)} · ${bytes(it.segment_bytes)}`],
        it.context_bytes_full > 0 && ["context moved", `${bytes(it.context_bytes_sent + it.context_bytes_received)} instead of ${bytes(it.context_bytes_full)}`],
        it.fenced_commits > 0 && ["fenced commits", count(it.fenced_commits)],
        ["clients at", it.client_addr],
      ].filter(Boolean).map(([name, value]) => h("span", null, h("span.faint", null, `${name} `), value)))),
    it.engines.map(engine));
}

function line(name, bar, words) {
  return h("div.line", null, h("span.soft.cut", { title: name }, name), bar, h("span.num", null, words));
}

function pressure(device) {
  if (device.cpu_pressure_milli === null) return undefined;
  const milli = device.cpu_pressure_milli;
  return line(`CPU wait${device.cpus ? ` (${device.cpus})` : ""}`, meter([[milli / 1000, "", "of the last 10 s some task waited for a CPU"]], milli > 600 && "warn"), `${(milli / 10).toFixed(1)}\u2009%`);
}

// The pool is one bar; tiers below it have no common size, so that they are numbers.
function engine(it) {
  const tiers = Object.fromEntries(it.kv_tiers.map(({ tier, bytes: size }) => [tier, size]));
  const used = it.kv_blocks > 0 ? it.kv_blocks_used / it.kv_blocks : 0;
  const kept = it.kv_bytes > 0 ? Math.max(0, (tiers.memory || 0) / it.kv_bytes - used) : 0;
  const asked = it.tokens_computed + it.tokens_cached;
  // A model that others compute has no KV here.
  if (it.kv_blocks === 0) return h("div.engine", null, h("div.row", null, h("h3", null, it.model), h("span.faint.mono", null, it.kernels), h("span.more.soft", null, "computed elsewhere")));
  return h("div.engine", null,
    h("div.row", null, h("h3", null, it.model), h("span.faint.mono", null, it.kernels), h("span.more.soft", null, `window ${count(it.window)}`)),
    h("div.line", null, h("span.soft", null, "KV pool"),
      meter([[used, "c2", "held by sequences"], [kept, "c2 thin", "kept for reuse"]], used > 0.95 && "warn"),
      h("span.num", null, `${count(it.kv_blocks_used)} of ${count(it.kv_blocks)} blocks`)),
    h("div.notes-line", null,
      Object.entries(TIERS).map(([tier, colour]) => h("span", null, h("i.dot", { class: colour }), h("span.faint", null, ` ${tier} `), bytes(tiers[tier] || 0))),
      h("span", null, h("span.faint", null, "computed "), short(it.tokens_computed)),
      h("span", null, h("span.faint", null, "from cache "), `${short(it.tokens_cached)} (${percent(it.tokens_cached, asked)})`),
      h("span", null, h("span.faint", null, "generated "), short(it.tokens_generated))));
}
