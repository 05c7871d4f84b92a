// The frame: which view is open, who looks, and one beat a second for the view that is seen.

import { Refused, act, get, key, poll } from "/page/api.js";
import { fill, h } from "/page/dom.js";
import * as cluster from "/page/cluster.js";
import * as queue from "/page/queue.js";
import * as quotas from "/page/quotas.js";
import * as task from "/page/task.js";
import * as tasks from "/page/tasks.js";

const VIEWS = { cluster, queue, tasks, quotas, task };
const NAV = [["cluster", "Cluster"], ["queue", "Queue"], ["tasks", "Tasks"], ["quotas", "Quotas"]];
const BEAT_MS = 1000;
const ME_EVERY = 15;

const $ = (id) => document.getElementById(id);
const frame = { me: undefined, project: sessionStorage.getItem("quorate.project") || "", view: undefined, beats: 0, beating: false };

// --- what views are given

const context = {
  get me() { return frame.me; },
  get project() { return frame.project; },
  note,
  // Asks first, because a cancelled task does not come back.
  async act(project, id, name, verb) {
    if (verb === "cancel" && !(await sure(name))) return undefined;
    try {
      const changed = await act(project, id, verb);
      note(`${verb === "cancel" ? "Cancelling" : verb === "pause" ? "Pausing" : "Resuming"} ${name}`, "", true);
      beat();
      return changed;
    } catch (error) {
      failed(error);
      return undefined;
    }
  },
};

function note(title, text, good) {
  const shown = h("div.note", { class: good && "good" }, h("b", null, title), text && h("span.soft", null, text));
  $("notes").append(shown);
  setTimeout(() => shown.remove(), good ? 2500 : 8000);
}

function sure(name) {
  return new Promise((answer) => {
    const close = (said) => { dialog.close(); dialog.remove(); answer(said); };
    const dialog = h("dialog", { "aria-labelledby": "sure", oncancel: () => close(false) },
      h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); close(true); } },
        h("h1", { id: "sure" }, "Cancel this task?"),
        h("p", null, h("b", null, name), " and everything that it started end, and do not come back. What it committed stays readable."),
        h("div.row.end", null, h("button", { type: "button", onclick: () => close(false) }, "Keep it"),
          h("button.danger", { type: "submit" }, "Cancel the task"))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

// --- where we are

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  return { name: VIEWS[name] ? name : first(), rest, query: new URLSearchParams(query || "") };
}

function first() {
  return frame.me && frame.me.bound ? "tasks" : "cluster";
}

function open() {
  if (frame.view) frame.view.close?.();
  frame.view = undefined;
  const at = route();
  drawNav(at.name);
  if (!frame.me) return;
  const root = fill($("view"));
  document.title = `${NAV.find(([name]) => name === at.name)?.[1] || at.rest[1] || "Task"} · Quorate`;
  frame.view = VIEWS[at.name].open(root, at, context);
  beat();
}

function drawNav(current) {
  const seen = NAV.filter(([name]) => name !== "cluster" || !frame.me?.bound);
  const own = current === "task" ? "tasks" : current;
  fill($("nav"), frame.me && seen.map(([name, words], at) =>
    h("a", { href: `#/${name}`, "aria-current": own === name && "page", title: `key ${at + 1}` }, words)));
}

function drawFrame() {
  const { me } = frame;
  const names = me ? me.projects : [];
  const pick = $("project");
  if (names.join("\n") !== [...pick.options].map((it) => it.value).join("\n")) {
    fill(pick, names.map((name) => h("option", { value: name }, name)));
  }
  pick.parentElement.hidden = names.length === 0;
  pick.value = frame.project;
  fill($("who"), me && h("span", { title: me.bound ? `bound to project ${me.project}` : "every project" }, `${me.subject} · ${me.role}`),
    me && key.get() && h("button.quiet", { type: "button", onclick: signOut }, "Sign out"));
}

// --- who looks

async function enter() {
  frame.me = await get("me");
  if (!frame.me.projects.includes(frame.project)) frame.project = frame.me.project;
  drawFrame();
  open();
}

function signOut() {
  key.drop();
  start();
}

function askForKey(problem) {
  frame.view?.close?.();
  frame.view = undefined;
  frame.me = undefined;
  drawFrame();
  drawNav("");
  live("late", "signed out");
  const field = h("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true, placeholder: "qk_…" });
  const submit = async (event) => {
    event.preventDefault();
    key.set(field.value.trim());
    field.value = "";
    await start();
  };
  fill($("view"), h("section.card.login", null,
    h("form", { onsubmit: submit },
      h("div", null, h("h1", null, "Sign in"), h("div.soft", null, "This cluster asks for an API key. It stays in this tab and goes with it.")),
      h("label", { for: "key" }, "API key"), field,
      problem && h("div.problem", { role: "alert" }, problem),
      h("div.row.end", null, h("button.main", { type: "submit" }, "Sign in")),
      h("div.faint", null, "An admin makes keys with ", h("code", null, "quorate key new"), "."))));
  field.focus();
}

function failed(error) {
  if (!(error instanceof Refused)) return live("gone", "the node does not answer");
  if (error.status === 401) {
    const shown = key.get() !== "";
    key.drop();
    return askForKey(shown ? error.message : "");
  }
  if (error.status === 503) return live("late", error.message);
  return note(error.message, error.next);
}

// --- the beat

function live(kind, words) {
  const element = $("live");
  element.className = `live ${kind}`;
  if (element.textContent !== words) element.textContent = words;
}

async function beat() {
  if (!frame.view || frame.beating || document.hidden) return;
  frame.beating = true;
  const view = frame.view;
  try {
    if (++frame.beats % ME_EVERY === 0) {
      frame.me = await poll("me", "me", {}) ?? frame.me;
      drawFrame();
    }
    await view.tick();
    if (view === frame.view) live("", `live · ${frame.me.node}`);
  } catch (error) {
    if (view === frame.view && error.name !== "AbortError") view.failed?.(error) ?? failed(error);
  } finally {
    frame.beating = false;
  }
}

async function start() {
  try {
    await enter();
  } catch (error) {
    failed(error);
    if (!frame.me && error.status !== 401) setTimeout(start, 2000);
  }
}

// --- light and dark, keys

const THEMES = { "": "◐ auto", light: "☀ light", dark: "☾ dark" };

function theme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  localStorage.setItem("quorate.theme", chosen);
  $("theme").textContent = THEMES[chosen];
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(localStorage.getItem("quorate.theme") || "") + 1) % names.length]);
});

$("project").addEventListener("change", (event) => {
  frame.project = event.target.value;
  sessionStorage.setItem("quorate.project", frame.project);
  if (route().name === "task") location.hash = "#/tasks";
  else open();
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, textarea, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  const link = document.querySelector(`#nav a[title="key ${event.key}"]`);
  if (link) location.hash = link.hash;
  const search = event.key === "/" && document.querySelector('input[type="search"]');
  if (search) { event.preventDefault(); search.focus(); }
});

document.addEventListener("visibilitychange", beat);
addEventListener("hashchange", open);
theme(localStorage.getItem("quorate.theme") || "");
setInterval(beat, BEAT_MS);
start();
