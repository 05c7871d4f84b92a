//! Programs of users that serve tools and models to the agents of a project, over a stream to this node.
//!
//! A program joins, is asked, answers, and goes; this remembers who is there and what each still owes. A call waits
//! within its own time for a program that serves it; one that is under way when its program goes has an unknown outcome.
//!
//! The stream itself is `door/serve`'s business, journalling and repeating the mind's. Nothing is passed on between
//! nodes: programs keep a stream to every node.
//!
//! Read: this file (who serves what), then `asking` (one question, and what came of it).

mod asking;
#[cfg(test)]
mod served_test;

use ::tools::{Arguments, Policy, ToolSpec, clean, cut, matches};
use asking::Asking;
use proto::v1 as pb;
use proto::v1::tool_server_message::Kind as Told;
use proto::v1::tool_server_request::Kind as Asked;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use types::ProjectName;

/// Programs of one project on one node: a team's notebooks and servers.
const PROGRAMS: usize = 64;
/// Tools and models of one program; a larger set leaves no model any window.
const TOOLS: usize = 128;
const MODELS: usize = 32;
/// Tools that a project's programs served since the node began; what nobody serves now is forgotten first.
const KNOWN_TOOLS: usize = 512;
/// What one program is asked at once; more waits within its own time.
const UNDER_WAY: usize = 64;
/// Programs are back at a node within this time after its start; until then a name that nobody serves is waited for.
const COMING_BACK: Duration = Duration::from_secs(10);
/// Names that every agent's own tools have.
const TAKEN: [&str; 3] = ["ask_human", "spawn", "wait"];

/// Who serves what on this node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Served(Arc<Inner>);

struct Inner {
    began: Instant,
    state: Mutex<State>,
    /// Counts what could let a waiting question begin.
    news: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner { began: Instant::now(), state: Mutex::default(), news: watch::channel(0).0 }
    }
}

#[derive(Default)]
struct State {
    last_id: u64,
    projects: BTreeMap<ProjectName, Project>,
}

#[derive(Default)]
struct Project {
    /// Also of programs that went: their agents' tasks go on, and wait for them.
    known: BTreeMap<String, Known>,
    programs: BTreeMap<u64, Program>,
}

#[derive(Clone)]
struct Known {
    spec: ToolSpec,
    arguments: Arc<Arguments>,
}

struct Program {
    out: mpsc::Sender<pb::ToolServerRequest>,
    tools: BTreeSet<String>,
    models: BTreeSet<String>,
    under_way: BTreeMap<u64, oneshot::Sender<Told>>,
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Tool(&'a str),
    Model(&'a str),
}

impl Program {
    fn serves(&self, wanted: Wanted<'_>) -> bool {
        match wanted {
            Wanted::Tool(name) => self.tools.contains(name),
            Wanted::Model(name) => self.models.contains(name),
        }
    }
}

/// A program's place here. Dropped, it has gone.
pub(crate) struct Place {
    served: Served,
    project: ProjectName,
    program: u64,
    pub(crate) out: mpsc::Sender<pb::ToolServerRequest>,
}

impl Served {
    /// A program begins to serve. The error says which field is wrong and why.
    pub(crate) fn join(
        &self,
        project: &ProjectName,
        register: &pb::Register,
    ) -> Result<(Place, mpsc::Receiver<pb::ToolServerRequest>), String> {
        let tools = known(register)?;
        let models = models(register)?;
        // Twice: each question may also be cancelled. The few more are addresses.
        let (out, asked) = mpsc::channel(2 * UNDER_WAY + 8);
        let mut state = self.lock();
        state.last_id += 1;
        let program = state.last_id;
        let here = state.projects.entry(project.clone()).or_default();
        if here.programs.len() >= PROGRAMS {
            return Err(format!(
                "{PROGRAMS} programs serve project {project} on this node already; end some"
            ));
        }
        let names = tools.keys().cloned().collect();
        let new = Program { out: out.clone(), tools: names, models, under_way: BTreeMap::new() };
        here.programs.insert(program, new);
        here.learn(tools);
        drop(state);
        self.tell();
        Ok((Place { served: self.clone(), project: project.clone(), program, out }, asked))
    }

    /// Tools of a project's programs that a pattern names.
    pub(crate) fn specs(&self, project: &ProjectName, pattern: &str) -> Vec<ToolSpec> {
        let state = self.lock();
        let known = state.projects.get(project).into_iter().flat_map(|here| here.known.values());
        known.filter(|known| matches(pattern, &known.spec.name)).map(|known| known.spec.clone()).collect()
    }

    /// The same; just after this node's start, when programs are on their way back, it waits for one that serves it.
    pub(crate) async fn specs_awaited(&self, project: &ProjectName, pattern: &str) -> Vec<ToolSpec> {
        let mut news = self.0.news.subscribe();
        loop {
            let specs = self.specs(project, pattern);
            if !specs.is_empty() || TAKEN.contains(&pattern) {
                return specs;
            }
            let changed = tokio::time::timeout_at(self.0.began + COMING_BACK, news.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return specs;
            }
        }
    }

    /// The models that are served now, whatever the project.
    pub(crate) fn models(&self) -> BTreeSet<String> {
        let state = self.lock();
        let programs = state.projects.values().flat_map(|here| here.programs.values());
        programs.flat_map(|program| program.models.iter().cloned()).collect()
    }

    fn known(&self, project: &ProjectName, tool: &str) -> Option<Known> {
        self.lock().projects.get(project)?.known.get(tool).cloned()
    }

    /// Asks the newest program that serves this and has a place; `None`: there is none now.
    fn ask(
        &self,
        project: &ProjectName,
        wanted: Wanted<'_>,
        question: &dyn Fn(u64) -> Asked,
    ) -> Option<Asking> {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        let here = state.projects.get_mut(project)?;
        let free = |program: &Program| program.serves(wanted) && program.under_way.len() < UNDER_WAY;
        let (number, program) = here.programs.iter_mut().rev().find(|(_, program)| free(program))?;
        program.out.try_send(pb::ToolServerRequest { kind: Some(question(id)) }).ok()?;
        let (answer, heard) = oneshot::channel();
        program.under_way.insert(id, answer);
        Some(Asking::new(self.clone(), project.clone(), *number, id, heard))
    }

    /// Takes a question off a program's list; tells the program where it should stop.
    fn close(&self, project: &ProjectName, program: u64, id: u64, is_over: bool) {
        let mut state = self.lock();
        let here = state.projects.get_mut(project);
        if let Some(program) = here.and_then(|here| here.programs.get_mut(&program)) {
            program.under_way.remove(&id);
            let cancel = Asked::Cancel(pb::CancelServed { id });
            if !is_over {
                // A program that reads nothing is told nothing.
                let _ = program.out.try_send(pb::ToolServerRequest { kind: Some(cancel) });
            }
        }
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        self.0.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it holds who serves")
    }
}

impl Project {
    fn learn(&mut self, tools: BTreeMap<String, Known>) {
        self.known.extend(tools);
        let served: BTreeSet<&String> = self.programs.values().flat_map(|program| &program.tools).collect();
        let idle: Vec<String> = self.known.keys().filter(|name| !served.contains(name)).cloned().collect();
        let over = self.known.len().saturating_sub(KNOWN_TOOLS);
        for name in idle.iter().take(over) {
            self.known.remove(name);
        }
    }
}

impl Place {
    /// The program answers. What nobody waits for any more is dropped.
    pub(crate) fn answered(&self, id: u64, told: Told) {
        let mut state = self.served.lock();
        let here = state.projects.get_mut(&self.project);
        let program = here.and_then(|here| here.programs.get_mut(&self.program));
        let waiting = program.and_then(|program| program.under_way.remove(&id));
        drop(state);
        if let Some(waiting) = waiting {
            let _ = waiting.send(told);
            self.served.tell();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.served.lock();
        if let Some(here) = state.projects.get_mut(&self.project) {
            here.programs.remove(&self.program);
        }
        drop(state);
        self.served.tell();
    }
}

fn models(register: &pb::Register) -> Result<BTreeSet<String>, String> {
    if register.models.len() > MODELS {
        return Err(format!("{} models, at most {MODELS}", register.models.len()));
    }
    match register.models.iter().find(|name| !ToolSpec::is_name(name)) {
        Some(name) => Err(format!("{name:?} is no name: letters, digits, _ - and ., at most 128")),
        None => Ok(register.models.iter().cloned().collect()),
    }
}

fn known(register: &pb::Register) -> Result<BTreeMap<String, Known>, String> {
    if register.tools.len() > TOOLS {
        return Err(format!("{} tools, at most {TOOLS}", register.tools.len()));
    }
    let mut tools = BTreeMap::new();
    for tool in &register.tools {
        let known = checked(tool).map_err(|why| format!("tool {:?}: {why}", clean(&tool.name)))?;
        if tools.insert(tool.name.clone(), known).is_some() {
            return Err(format!("tool {:?} is there twice", tool.name));
        }
    }
    Ok(tools)
}

fn checked(tool: &pb::ServedTool) -> Result<Known, String> {
    if !ToolSpec::is_name(&tool.name) {
        return Err("a name is letters, digits, _ - and ., at most 128".into());
    }
    if TAKEN.contains(&tool.name.as_str()) {
        return Err("this name is taken; choose another".into());
    }
    if tool.timeout_ms > ToolSpec::MAX_TIMEOUT_MS {
        return Err(format!("timeout_ms is {}, at most {}", tool.timeout_ms, ToolSpec::MAX_TIMEOUT_MS));
    }
    let parameters: Value = serde_json::from_str(&tool.parameters)
        .map_err(|error| format!("its parameters are not JSON: {error}"))?;
    let arguments = Arguments::new(&parameters).map_err(|why| format!("its parameters: {why}"))?;
    let spec = ToolSpec {
        name: tool.name.clone(),
        description: cut(clean(&tool.description), ToolSpec::DESCRIPTION_BYTES).0,
        parameters,
        policy: policy(tool.policy()),
        timeout_ms: if tool.timeout_ms == 0 { ToolSpec::DEFAULT_TIMEOUT_MS } else { tool.timeout_ms },
        output_bytes: ToolSpec::DEFAULT_OUTPUT_BYTES,
    };
    Ok(Known { spec, arguments: Arc::new(arguments) })
}

fn policy(policy: pb::ToolPolicy) -> Policy {
    match policy {
        pb::ToolPolicy::Idempotent => Policy::Idempotent,
        pb::ToolPolicy::Ask => Policy::Ask,
        pb::ToolPolicy::AtMostOnce | pb::ToolPolicy::Unspecified => Policy::AtMostOnce,
    }
}
