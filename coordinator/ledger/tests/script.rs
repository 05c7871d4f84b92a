//! The small language of the transcripts. `t1`, `t2` are tasks in order of creation, `e1`, `e2` epochs in order of
//! assignment, `n1` nodes by their id; `key=value` words follow the verb.

mod homes;
mod words;

use ledger::command::{ChildSpec, Command, Next, Release, Stamp, Terms};
use ledger::effect::Effect;
use ledger::explain::explain;
use ledger::keys::{Amounts, Holding};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{
    AgentKind, Ask, AskKind, Closed, EventKind, Fork, InputRef, Kept, Price, QuotaKey, QuotaRow, SignalKind,
    TaskError, TaskRow,
};
use ledger::{Place, Soft, SoftNode, State, invariants, plan};
use std::collections::BTreeMap;
use types::{Class, ClusterId, Epoch, Hash, NodeId, ProjectName, Spent, TaskUid};
use words::{
    Words, admit, begin_call, end_call, hold, node, refund_slice, renew_call, route, set_quota, turn_slice,
    want,
};

#[derive(Default)]
pub(crate) struct Script {
    state: State,
    watch: invariants::Watch,
    stamp: Stamp,
    index: u64,
    soft: Soft,
    tasks: Vec<TaskUid>,
    epochs: Vec<Epoch>,
    /// Chains as they were when they were looked at, by name.
    looked: BTreeMap<String, Kept>,
}

type Lines = Result<Vec<String>, String>;

impl Script {
    pub(crate) fn run(&mut self, line: &str) -> Lines {
        let (verb, words) = Words::of(line);
        match verb {
            "wait" => self.wait(&words),
            "show" => self.show(&words),
            "worker" => self.worker(&words),
            "plan" => self.plan(),
            "explain" => self.explain(&words),
            "list" => self.list(line),
            "short" => self.short(&words),
            "heads" => self.heads(),
            "snapshot" => self.snapshot(),
            _ => {
                let command = self.command(verb, &words)?;
                self.apply(&command)
            }
        }
    }

    fn apply(&mut self, command: &Command) -> Lines {
        self.index += 1;
        let applied = self.state.apply(Place { index: self.index, position: 0 }, self.stamp, command);
        self.watch.check(&self.state)?;
        self.learn_names(&applied.effects);
        let reply = self.reply(&applied.reply);
        let effects = applied.effects.iter().map(|effect| self.effect(effect));
        Ok(std::iter::once(format!("-> {reply}")).chain(effects).collect())
    }

    /// Gives new tasks and epochs their short names.
    fn learn_names(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Event { task, .. } if !self.tasks.contains(task) => self.tasks.push(*task),
                Effect::Assigned { epoch, .. } => self.epochs.push(*epoch),
                _ => {}
            }
        }
    }

    fn wait(&mut self, words: &Words<'_>) -> Lines {
        let ms: u64 = words.plain(0)?.parse().map_err(|_| "wait MILLISECONDS")?;
        self.stamp.ledger_ms += ms;
        self.stamp.wall_ms += ms;
        self.soft.ledger_ms = self.stamp.ledger_ms;
        let due = self.state.tick_due(self.stamp.ledger_ms, self.stamp.wall_ms);
        Ok(if due { vec!["a tick is due".to_string()] } else { vec![] })
    }

    fn worker(&mut self, words: &Words<'_>) -> Lines {
        let models = words.text("models").unwrap_or("m");
        let soft = SoftNode {
            attached: words.text("attached") != Some("no"),
            draining: words.text("draining") == Some("yes"),
            slots: words.number_or("slots", 2)? as u32,
            running: 0,
            models: models.split(',').map(str::to_string).collect(),
            free_kv_tokens: words.number_or("kv", 1000)?,
            ..SoftNode::default()
        };
        self.soft.nodes.insert(node(words.plain(0)?)?, soft);
        Ok(vec![])
    }

    fn plan(&mut self) -> Lines {
        let mut lines = vec![];
        for command in plan::plan(&self.state, &self.soft, 100) {
            if let Command::Assign { task, node } = &command {
                lines.push(format!("{} on {node}", self.task_name(*task)));
            }
            if let Command::AssignTogether { leases } = &command {
                let each = leases.iter().map(|(task, node)| format!("{} on {node}", self.task_name(*task)));
                lines.push(format!("together: {}", each.collect::<Vec<_>>().join(", ")));
            }
            lines.extend(self.apply(&command)?.into_iter().filter(|line| line.contains("refused")));
        }
        Ok(lines)
    }

    fn explain(&self, words: &Words<'_>) -> Lines {
        let uid = self.task(words.plain(0)?)?;
        let explanation = explain(&self.state, &self.soft, uid).ok_or("no such task")?;
        let blockers = explanation.blockers.iter().map(|b| {
            format!(
                "{} [{}] {} of {} (limit {}): {}",
                b.reason, b.resource, b.requested, b.available, b.limit, b.message
            )
        });
        let nodes = explanation.nodes.iter().map(|(id, able, why)| {
            format!("node n{id}: {}", if *able { format!("could take it: {why}") } else { why.clone() })
        });
        Ok(blockers.chain([format!("{} ahead", explanation.tasks_ahead)]).chain(nodes).collect())
    }

    fn list(&self, line: &str) -> Lines {
        let filter = line.strip_prefix("list").unwrap_or_default().trim().to_string();
        let query = Query::Tasks { project: ProjectName::default(), filter, after: None, limit: 0 };
        Ok(match self.state.answer(&query, None) {
            Answer::Tasks { rows, .. } => rows.iter().map(|row| self.row(row)).collect(),
            other => vec![format!("{other:?}")],
        })
    }

    fn snapshot(&mut self) -> Lines {
        let restored = State::restore(&self.state.snapshot()).map_err(|halt| halt.to_string())?;
        let same =
            restored.state_hash() == self.state.state_hash() && restored.snapshot() == self.state.snapshot();
        self.state = restored;
        invariants::check(&self.state)?;
        Ok(vec![if same { "restored, the same" } else { "DIFFERENT after restore" }.to_string()])
    }

    fn show(&self, words: &Words<'_>) -> Lines {
        let what = words.plain(0)?;
        if let Some(quota) = self.state.quota(what) {
            return Ok(vec![self.show_quota(&quota)]);
        }
        if let Some(row) = self.state.node(node(what).unwrap_or_default()) {
            return Ok(vec![format!("{} {} fenced: {:?}", row.id, row.name, row.fenced)]);
        }
        let row = self.state.task(self.task(what)?).ok_or("no such task")?;
        Ok(vec![self.row(row)])
    }

    fn row(&self, row: &TaskRow) -> String {
        let mut text = format!("{} {} ({})", self.task_name(row.uid), row.state.name(), row.reason);
        if let (Some(node), Some(epoch)) = (row.node, row.epoch) {
            text += &format!(" on {node} {}", self.epoch_name(epoch));
        }
        let home: Vec<String> = row.home.iter().map(NodeId::to_string).collect();
        text += &format!(" step {} home {} settled {}", row.step, home.join(","), row.settled_tokens);
        if row.reserved_tokens > 0 {
            text += &format!(" reserved {}", row.reserved_tokens);
        }
        if let Some(talk) = &row.talk {
            let asks: Vec<&str> = talk.asks.iter().map(|ask| ask.id.as_str()).collect();
            text += &format!(" asks [{}] unheard {} of {}", asks.join(" "), talk.inbox.len(), talk.said);
        }
        if row.children_open > 0 {
            text += &format!(" children_open {}", row.children_open);
        }
        text
    }

    fn task_name(&self, uid: TaskUid) -> String {
        self.tasks.iter().position(|known| *known == uid).map_or(uid.to_string(), |at| format!("t{}", at + 1))
    }

    fn epoch_name(&self, epoch: Epoch) -> String {
        self.epochs
            .iter()
            .position(|known| *known == epoch)
            .map_or(epoch.to_string(), |at| format!("e{}", at + 1))
    }

    fn task(&self, name: &str) -> Result<TaskUid, String> {
        let at = name.strip_prefix('t').and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        self.tasks.get(at.wrapping_sub(1)).copied().ok_or_else(|| format!("no task {name}"))
    }

    fn epoch(&self, words: &Words<'_>) -> Result<Epoch, String> {
        let name = words.text("epoch").ok_or("epoch=eN is missing")?;
        let at = name.strip_prefix('e').and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        self.epochs.get(at.wrapping_sub(1)).copied().ok_or_else(|| format!("no epoch {name}"))
    }

    fn command(&self, verb: &str, words: &Words<'_>) -> Result<Command, String> {
        Ok(match verb {
            "init" => Command::InitCluster { cluster_id: ClusterId([words.number_or("id", 7)? as u8; 16]) },
            "admit" => admit(words)?,
            "remove" => Command::RemoveNode { node: node(words.plain(0)?)?, wish: None },
            "lost" => Command::NodeLost { node: node(words.plain(0)?)? },
            "agent" => self.agent(words, AgentKind::Agent)?,
            "team" => self.agent(words, AgentKind::Team)?,
            "create" => self.create(words)?,
            "spawn" => self.spawn(words)?,
            "assign" => Command::Assign { task: self.task(words.plain(0)?)?, node: node(words.plain(1)?)? },
            "together" => Command::AssignTogether {
                leases: words
                    .text("leases")
                    .into_iter()
                    .flat_map(|text| text.split(','))
                    .map(|lease| {
                        let (task, on) = lease.split_once(':').ok_or("leases=TASK:NODE,…")?;
                        Ok((self.task(task)?, node(on)?))
                    })
                    .collect::<Result<_, String>>()?,
            },
            "reserve" => Command::Reserve {
                task: self.task(words.plain(0)?)?,
                epoch: self.epoch(words)?,
                node: node(words.plain(1)?)?,
                step: words.number_or("step", 1)?,
                min_tokens: words.number_or("min", 1)?,
                max_tokens: words.number_or("max", 1)?,
                want: want(words)?,
                route: route(words)?,
            },
            "commit" => self.commit(words)?,
            "release" => Command::Release {
                task: self.task(words.plain(0)?)?,
                epoch: self.epoch(words)?,
                node: node(words.plain(1)?)?,
                why: match words.plain(2)? {
                    "stopped" => Release::Stopped,
                    "yielded" => Release::Yielded,
                    "broken" => Release::Broken,
                    "stuck" => Release::Stuck,
                    other => return Err(format!("no release {other}")),
                },
            },
            "cancel" => Command::CancelTask {
                project: words.project()?,
                task: self.task(words.plain(0)?)?,
                request: words.request(),
            },
            "pause" => Command::PauseTask {
                project: words.project()?,
                task: self.task(words.plain(0)?)?,
                request: words.request(),
            },
            "resume" => Command::ResumeTask {
                project: words.project()?,
                task: self.task(words.plain(0)?)?,
                request: words.request(),
            },
            "quota" => set_quota(words)?,
            "hold" => hold(words)?,
            "call" => begin_call(words)?,
            "renew" => renew_call(words)?,
            "end" => end_call(words)?,
            "slice" => turn_slice(words)?,
            "refund" => refund_slice(words)?,
            "signal" => self.signal(words)?,
            "tick" => Command::Tick,
            "home" => self.move_home(words)?,
            "head" => self.move_head(words)?,
            "drop-head" => self.drop_head(words)?,
            "price" => Command::SetPrice {
                model: words.plain(0)?.to_string(),
                price: Price {
                    input: words.number_or("input", 0)?,
                    cached: words.number_or("cached", 0)?,
                    output: words.number_or("output", 0)?,
                },
                etag: words.number("etag")?,
                reason: words.text("reason").unwrap_or_default().to_string(),
                request: words.request(),
            },
            "preempt" => Command::Preempt {
                task: self.task(words.plain(0)?)?,
                epoch: self.epoch(words)?,
                grace_ms: words.number_or("grace", 10_000)?,
            },
            "close" => Command::CloseNode {
                node: node(words.plain(0)?)?,
                closed: match words.plain(1)? {
                    "open" => None,
                    "cordon" => Some(Closed::Cordoned),
                    "drain" => Some(Closed::Draining),
                    other => return Err(format!("no closing {other}")),
                },
                grace_ms: words.number_or("grace", 10_000)?,
                reason: words.text("reason").unwrap_or_default().to_string(),
                request: words.request(),
            },
            other => return Err(format!("no verb {other}")),
        })
    }

    /// Where what a person sends is kept: as told, or on the first two members.
    fn home(&self, words: &Words<'_>) -> Result<Vec<NodeId>, String> {
        let first = || self.state.nodes().map(|row| row.id).take(2).collect();
        Ok(words.nodes("home")?.unwrap_or_else(first))
    }

    fn agent(&self, words: &Words<'_>, kind: AgentKind) -> Result<Command, String> {
        let text = words.text("text").unwrap_or("first");
        let model = if kind == AgentKind::Team { "" } else { words.text("model").unwrap_or("m") };
        Ok(Command::ApplyAgent {
            project: words.project()?,
            name: words.plain(0)?.to_string(),
            kind,
            model: model.to_string(),
            revision: Hash::of(text.as_bytes()),
            definition: Hash::of(text.as_bytes()),
            etag: words.number("etag")?,
            home: self.home(words)?,
            request: words.request(),
            needs: words.number("cpu")?.map(|cpu| vec![(Holding::CpuMilli, cpu)]),
        })
    }

    fn create(&self, words: &Words<'_>) -> Result<Command, String> {
        let input = |name: &str| InputRef { name: name.into(), segment: Hash::of(name.as_bytes()), bytes: 1 };
        let labels = words.text("label").into_iter().flat_map(|text| text.split(','));
        Ok(Command::CreateTask {
            project: words.project()?,
            agent: words.plain(0)?.to_string(),
            inputs: words.text("inputs").into_iter().flat_map(|text| text.split(',')).map(input).collect(),
            task_id: words.text("id").map(str::to_string),
            labels: labels
                .filter_map(|text| text.split_once(':'))
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
            class: words
                .text("class")
                .map_or(Some(Class::Interactive), Class::parse)
                .ok_or("no such class")?,
            priority: words.number_or("priority", 5)? as u8,
            deadline_ms: words.number_or("deadline", 0)?,
            home: self.home(words)?,
            request: words.request(),
            terms: self.terms(words)?,
        })
    }

    fn terms(&self, words: &Words<'_>) -> Result<Option<Terms>, String> {
        let after =
            words.text("after").into_iter().flat_map(|text| text.split(',')).map(|name| self.task(name));
        let limits = words.number("budget")?.map(|tokens| (QuotaKey::TokensTotal, tokens));
        let terms = Terms {
            limits: limits.into_iter().collect(),
            not_before_ms: words.number_or("at", 0)?,
            after: after.collect::<Result<_, _>>()?,
            fork: words.text("fork").map(|name| self.fork(name)).transpose()?,
        };
        Ok((terms != Terms::default()).then_some(terms))
    }

    fn fork(&self, name: &str) -> Result<Fork, String> {
        let task = self.task(name)?;
        let row = self.state.task(task).ok_or("no such task")?;
        Ok(Fork { task, step: row.step, head: row.head })
    }

    /// `ask=3.0,3.1` of one kind.
    fn asks(&self, words: &Words<'_>) -> Result<Vec<Ask>, String> {
        let kind = match words.text("kind").unwrap_or("approval") {
            "approval" => AskKind::Approval,
            "question" => AskKind::Question,
            "unknown" => AskKind::Unknown,
            "repeatable" => AskKind::UnknownMayRepeat,
            "message" => AskKind::Message,
            other => return Err(format!("no ask {other}")),
        };
        let ids = words.text("ask").into_iter().flat_map(|ids| ids.split(','));
        Ok(ids.map(|id| Ask { id: id.to_string(), kind, about: "mail.send".into(), text: None }).collect())
    }

    fn signal(&self, words: &Words<'_>) -> Result<Command, String> {
        let kind = match words.plain(1)? {
            "approve" => SignalKind::Approve,
            "reject" => SignalKind::Reject,
            "answer" => SignalKind::Answer,
            "repeat" => SignalKind::Repeat,
            "message" => SignalKind::Message,
            "enqueue" => SignalKind::Enqueue,
            "interrupt" => SignalKind::Interrupt,
            "rollback" => SignalKind::Rollback,
            other => return Err(format!("no signal {other}")),
        };
        Ok(Command::Signal {
            project: words.project()?,
            task: self.task(words.plain(0)?)?,
            kind,
            ask: words.text("ask").unwrap_or_default().to_string(),
            text: words.text("text").map(|text| Hash::of(text.as_bytes())),
            home: self.home(words)?,
            request: words.request(),
        })
    }

    fn spawn(&self, words: &Words<'_>) -> Result<Command, String> {
        let agent = words.text("agent").unwrap_or("reader");
        let child = ChildSpec {
            agent: agent.to_string(),
            inputs: vec![],
            background: vec![],
            home: vec![],
            limits: None,
            together: words.text("together").map(|_| true),
            priority: None,
        };
        Ok(Command::Spawn {
            parent: self.task(words.plain(0)?)?,
            epoch: self.epoch(words)?,
            node: node(words.plain(1)?)?,
            step: words.number_or("step", 1)?,
            children: vec![child; words.number_or("children", 1)? as usize],
        })
    }

    fn commit(&self, words: &Words<'_>) -> Result<Command, String> {
        let error = |words: &Words<'_>| TaskError {
            reason: words.text("error").unwrap_or("oops").to_string(),
            text: None,
        };
        let node = node(words.plain(1)?)?;
        let heard = words.number_or("heard", 0)?;
        Ok(Command::CommitStep {
            task: self.task(words.plain(0)?)?,
            epoch: self.epoch(words)?,
            node,
            step: words.number_or("step", 1)?,
            head: Hash::of(words.text("head").unwrap_or("head").as_bytes()),
            home: words.nodes("home")?.unwrap_or_else(|| vec![node, NodeId(if node.0 == 1 { 3 } else { 1 })]),
            spent: Spent {
                prompt_tokens: words.number_or("prompt", 0)?,
                generated_tokens: words.number_or("said", words.number_or("billed", 0)?)?,
                ..Spent::default()
            },
            billed_tokens: words.number_or("billed", 0)?,
            next: match words.plain(2)? {
                "continue" => Next::Continue,
                "wait" => Next::WaitChildren,
                "go-on" => Next::GoOn { heard },
                "tools" => Next::WaitTool { heard, asks: self.asks(words)?, begun: words.number("begun")? },
                "budget" => Next::WaitBudget { heard, calls: words.number_or("begun", 1)? },
                "people" => Next::WaitInput { heard, asks: self.asks(words)? },
                "timer" => Next::WaitFor { heard, ms: words.number_or("ms", 1000)? },
                "done" => Next::Done { result: Hash::of(b"result"), bytes: 6 },
                "failed" => Next::Failed { error: error(words) },
                "paused" => Next::PausedError { error: error(words) },
                other => return Err(format!("no next {other}")),
            },
            extra: words.number("calls")?.map(|tool_calls| Amounts { tool_calls, ..Amounts::NONE }),
        })
    }

    fn reply(&self, reply: &Reply) -> String {
        match reply {
            Reply::Done => "done".to_string(),
            Reply::Node(id) => format!("node {id}"),
            Reply::Agent(row) => format!("agent {} etag {}", row.name, row.etag),
            Reply::Task(row) => self.row(row),
            Reply::Children(uids) => {
                let names: Vec<String> = uids.iter().map(|uid| self.task_name(*uid)).collect();
                format!("children {}", names.join(" "))
            }
            Reply::Assigned(epoch) => format!("assigned {}", self.epoch_name(*epoch)),
            Reply::Reserved(tokens) => format!("reserved {tokens}"),
            Reply::Quota(row) => self.show_quota(row),
            Reply::Price(row) => format!("price of {} version {}", row.model, row.version),
            Reply::Head(row) => format!("head of {} moved {} times", row.path, row.moves),
            Reply::Schedule(row) => format!("schedule {} next {}", row.name, row.next_ms),
            Reply::Slice(answer) => words::slice_answer(answer),
            Reply::Refused(refusal) => format!("refused: {refusal}"),
        }
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Assigned { task, node, epoch } => {
                format!("* assigned {} to {node} {}", self.task_name(*task), self.epoch_name(*epoch))
            }
            Effect::Stop { task, node, epoch, .. } => {
                format!("* stop {} on {node} {}", self.task_name(*task), self.epoch_name(*epoch))
            }
            Effect::Revoked { task, node, epoch, .. } => {
                format!("* revoked {} on {node} {}", self.task_name(*task), self.epoch_name(*epoch))
            }
            Effect::Signalled { task, node, epoch } => {
                format!("* signalled {} on {node} {}", self.task_name(*task), self.epoch_name(*epoch))
            }
            Effect::Event { task, event } => {
                format!("* {} #{} {}", self.task_name(*task), event.sequence, show_event(&event.kind))
            }
            Effect::Recall { node, answer } => {
                format!("* recall {node}{}", if *answer { ", to answer" } else { "" })
            }
            Effect::Replan => "* replan".to_string(),
            Effect::Members => "* members".to_string(),
        }
    }
    /// The first three limits always, the others where they are set.
    fn show_quota(&self, row: &QuotaRow) -> String {
        let limit = |limit: Option<u64>| limit.map_or("-".to_string(), |limit| limit.to_string());
        let mut text = format!(
            "{} etag {} running {}/{} total {}+{}/{} minute {}/{}",
            row.path,
            row.etag,
            row.running_used,
            limit(row.running),
            row.tokens_settled,
            row.tokens_reserved,
            limit(row.tokens_total),
            row.bucket_millitokens / 1000,
            limit(row.tokens_minute)
        );
        let first = [QuotaKey::Running, QuotaKey::TokensTotal, QuotaKey::TokensMinute];
        for (key, limit, used, reserved) in row.facts(self.stamp) {
            if let Some(limit) = limit.filter(|_| !first.contains(&key)) {
                text += &format!(" {key} {used}+{reserved}/{limit}");
            }
        }
        text
    }
}

fn show_event(kind: &EventKind) -> String {
    match kind {
        EventKind::State { state, reason, .. } => format!("{} {reason}", state.name()).trim_end().to_string(),
        EventKind::Step { step, route: None, .. } => format!("step {step}"),
        EventKind::Step { step, route: Some(route), .. } => {
            format!("step {step} by {} ({})", route.model, route.reason)
        }
    }
}
