//! `EvaluateContext`: finds what is to be evaluated and who has the model; the evaluator does the rest.

use super::{Door, Identity, Membership, project, status};
use crate::evaluating::recorded::{Past, Recorded};
use crate::evaluating::sampled::{self, Sampled, Step};
use crate::evaluating::{CALLS, Order, asked, plane};
use context::{Kind, Segment};
use evaluate::Settings;
use ledger::query::{Answer, Query};
use ledger::rows::{AgentKind, ModelRow, TaskRow};
use proto::v1 as pb;
use proto::v1::evaluate_context_request::Of;
use std::collections::BTreeMap;
use tonic::{Code, Status};
use types::{Hash, TaskUid, limits};

/// Of what others had read, the newest so many are tried on a reader that did not get them: each costs a child of its own.
const WITHHELD: usize = 8;

impl Door {
    pub(super) async fn evaluated(
        &self,
        caller: &Identity,
        mut request: pb::EvaluateContextRequest,
    ) -> Result<pb::EvaluateContextResponse, Status> {
        let project = project(caller, &request.project)?;
        let inside = self.inside()?;
        request.project = project.to_string();
        let of = request.of.take();
        let mut own_model = String::new();
        request.of = Some(match of {
            Some(Of::Task(task)) => {
                let row = inside.find_task(&project, &task.task).await?;
                own_model = row.model.to_string();
                asked::recorded(inside.recorded(row, &task).await?)
            }
            Some(Of::Calls(calls)) => Of::Calls(calls),
            None => return Err(status::invalid("of", "name a task, or give recorded calls")),
        });
        let model = inside.evaluating_model(&request.model, &own_model).await?;
        request.model = model.name.clone();
        inside.evaluate(model, request, &caller.author()).await
    }
}

impl sampled::Past for Door {
    async fn call(&self, step: Step) -> Option<Sampled> {
        let inside = self.inside().ok()?;
        let row = inside.task(step.task).await.ok()??;
        if !inside.evaluations.has(&row.model.to_string()) {
            return None;
        }
        let calls = inside.past(&row).await.ok()?.calls();
        let call = calls.into_iter().find(|call| call.step == step.step)?.call;
        call.check().ok()?;
        let settings = Settings { budget_tokens: Some(sampled::BUDGET_TOKENS), ..Settings::default() };
        let (model, project) = (row.model.to_string(), row.project.clone());
        let order = Order { model, project, calls: vec![call], settings, suggest: false, author: None };
        Some(Sampled { order, team: inside.team_of(row).await })
    }
}

impl Membership {
    /// The team at the root of a task's tree, by name.
    async fn team_of(&self, mut row: TaskRow) -> Option<String> {
        while let Some(parent) = row.origin.as_ref().map(|origin| origin.parent) {
            row = self.task(parent).await.ok()??;
        }
        (row.kind == AgentKind::Team).then(|| row.agent.to_string())
    }

    /// The calls of a task, or of all below it as well.
    async fn recorded(&self, row: TaskRow, task: &pb::TaskCalls) -> Result<Vec<evaluate::Call>, Status> {
        if task.team && task.step != 0 {
            return Err(status::invalid("step", "a team has no steps of its own; leave out one of the two"));
        }
        if task.team {
            return self.team(row).await;
        }
        let name = name(&row);
        let mut calls = self.past(&row).await?.calls();
        let found = match task.step {
            0 => calls.pop(),
            step => calls.into_iter().find(|call| call.step == step),
        };
        let none = || match task.step {
            0 => no_calls(&name),
            step => status::not_found(
                "step that called a model:",
                &format!("{name}/{step}"),
                &format!("quorate task get {name}"),
            ),
        };
        Ok(vec![found.ok_or_else(none)?.call])
    }

    /// All calls below a task, children before what their parent did with them.
    async fn team(&self, root: TaskRow) -> Result<Vec<evaluate::Call>, Status> {
        let root_name = name(&root);
        let mut calls: Vec<evaluate::Call> = Vec::new();
        for row in self.tree(root).await? {
            calls.extend(self.past(&row).await?.calls().into_iter().map(|Recorded { call, .. }| call));
            if calls.len() > CALLS {
                let why = format!("the team made more than {CALLS} calls; evaluate its tasks one by one");
                return Err(status::invalid("team", &why));
            }
        }
        if calls.is_empty() {
            return Err(no_calls(&root_name));
        }
        evaluate::fill_withheld(&mut calls, WITHHELD);
        Ok(calls)
    }

    /// A task and all below it, the deepest first.
    async fn tree(&self, root: TaskRow) -> Result<Vec<TaskRow>, Status> {
        let (mut rows, mut next) = (Vec::new(), vec![root]);
        while let Some(row) = next.pop() {
            if rows.len() >= limits::TASK_CHILDREN {
                let why = format!("it has more than {} tasks; evaluate a part of it", limits::TASK_CHILDREN);
                return Err(status::invalid("team", &why));
            }
            for &uid in &row.children {
                next.extend(self.task(uid).await?);
            }
            rows.push(row);
        }
        rows.reverse();
        Ok(rows)
    }

    async fn task(&self, uid: TaskUid) -> Result<Option<TaskRow>, Status> {
        match self.client.read(Query::TaskByUid { uid }).await.map_err(status::from_client)? {
            Answer::Task(row) => Ok(row.map(|row| *row)),
            _ => Ok(None),
        }
    }

    /// What stores have of a task: its journal, and the texts that it names.
    async fn past(&self, row: &TaskRow) -> Result<Past, Status> {
        let records = self.records(row, 0).await?;
        let given = super::context::given(row);
        let added = records.iter().flat_map(|record| record.added.iter().copied().chain(record.tools));
        let mut segments: BTreeMap<Hash, Segment> = BTreeMap::new();
        for hash in given.iter().copied().chain(added) {
            if segments.contains_key(&hash) {
                continue;
            }
            let bytes = self.segment(&row.project, hash, &row.home).await?;
            let segment = super::context::open(&row.project, hash, &bytes)?;
            if segment.kind != Kind::Record {
                segments.insert(hash, segment);
            }
        }
        Ok(Past { task: name(row), agent: row.agent.to_string(), given, records, segments })
    }

    /// Which of the loaded models scores: the one that is asked for, else the task's own, else any.
    async fn evaluating_model(&self, asked: &str, own: &str) -> Result<ModelRow, Status> {
        let Answer::Models(rows) = self.client.read(Query::Models).await.map_err(status::from_client)? else {
            return Err(Status::internal("the ledger answered another question"));
        };
        let known: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        let named = |name: &str| rows.iter().find(|row| row.name == name).cloned();
        let found = if asked.is_empty() { named(own).or(rows.first().cloned()) } else { named(asked) };
        found.ok_or_else(|| {
            let what = if asked.is_empty() { "a model".into() } else { format!("model {asked:?}") };
            status::error(
                Code::FailedPrecondition,
                "NO_SUCH_MODEL",
                &format!("no node of the cluster has loaded {what}; loaded are: {known}"),
                "name one of them, or add the model to [engine] models of a worker",
            )
        })
    }

    /// Here if the model is here, else on a node that has it.
    async fn evaluate(
        &self,
        model: ModelRow,
        request: pb::EvaluateContextRequest,
        author: &str,
    ) -> Result<pb::EvaluateContextResponse, Status> {
        if self.evaluations.has(&model.name) {
            let answer = plane::evaluate(&self.evaluations, request, author.into()).await?;
            return Ok(pb::EvaluateContextResponse { node: self.members.name(self.own), ..answer });
        }
        self.members.learn(&self.client, model.holders.iter().copied()).await;
        let mut last = None;
        for &holder in model.holders.iter().filter(|holder| **holder != self.own) {
            match plane::evaluate_at(&self.peers, holder, &request, author).await {
                Ok(answer) => {
                    return Ok(pb::EvaluateContextResponse { node: self.members.name(holder), ..answer });
                }
                Err(failed) if failed.code() == Code::Unavailable => last = Some(failed),
                Err(failed) => return Err(failed),
            }
        }
        Err(last.unwrap_or_else(|| {
            status::error(
                Code::Unavailable,
                "NO_ENGINE",
                &format!("no reachable node has model {:?}", model.name),
                "`quorate node list` shows which nodes are lost; try again when one is back",
            )
        }))
    }
}

fn no_calls(task: &str) -> Status {
    status::error(
        Code::FailedPrecondition,
        "NO_MODEL_CALL",
        &format!("task {task} has no committed step that called a model"),
        "wait for its first step, or evaluate the team it belongs to with `team`",
    )
}

/// As people call it.
fn name(row: &TaskRow) -> String {
    row.task_id.as_deref().map_or_else(|| row.uid.to_string(), str::to_string)
}
