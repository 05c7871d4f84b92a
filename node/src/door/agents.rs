//! `AgentService`: definitions are checked here, stored as segments, and named in the ledger by hash.

use super::tasks::{keep_status, propose, short, some_id, unexpected};
use super::{Door, Membership, convert, identity, project, status};
use context::{Kind, Segment, Visibility};
use ledger::command::{Command, RequestKey};
use ledger::keys::Holding;
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{AgentKind, AgentRow};
use mind::Definition;
use proto::v1 as pb;
use proto::v1::agent_service_server::AgentService;
use tonic::{Code, Request, Response, Status};
use types::{Hash, limits};

/// The level that knows of calls that one of several models answers.
const ROUTES: u32 = 6;

#[tonic::async_trait]
impl AgentService for Door {
    async fn apply_agent(
        &self,
        request: Request<pb::ApplyAgentRequest>,
    ) -> Result<Response<pb::Agent>, Status> {
        let caller = identity(&request);
        let author = caller.author();
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let definition = Definition::parse(&request.toml).map_err(definition_status)?;
        check_schema(&definition)?;
        inside.check_models(&definition).await?;
        short("name", definition.name())?;
        short("request_id", &request.request_id)?;
        let etag = etag(&request.etag)?;
        let segment =
            Segment::new(Kind::Definition, author.as_str(), Visibility::Project, request.toml.as_str());
        segment.check().map_err(|error| status::invalid("toml", &error.to_string()))?;
        let sealed = context::seal(&project, &segment);
        let mut row = AgentRow {
            project: project.clone(),
            name: definition.name().to_string(),
            kind: kind(&definition),
            model: definition.model().unwrap_or_default().to_string(),
            revision: definition.revision(),
            definition: sealed.hash,
            etag: 0,
            updated_ms: 0,
            home: Vec::new(),
            needs: needs(&definition)?,
        };
        if request.validate_only {
            return Ok(Response::new(convert::agent(&row, request.toml)));
        }
        row.home = inside
            .keep()
            .await
            .put(&project, vec![(sealed.hash, sealed.bytes.into())], &[])
            .await
            .map_err(keep_status)?;
        let body = Hash::of_parts(&[request.toml.as_bytes(), request.etag.as_bytes()]);
        let key = RequestKey { author, request_id: some_id(request.request_id), body };
        match propose(inside, apply_command(row, etag, key)).await? {
            Reply::Agent(row) => Ok(Response::new(convert::agent(&row, request.toml))),
            other => Err(unexpected(&other)),
        }
    }

    async fn get_agent(&self, request: Request<pb::GetAgentRequest>) -> Result<Response<pb::Agent>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let query = Query::Agent { project, name: request.name.clone() };
        match inside.client.read(query).await.map_err(status::from_client)? {
            Answer::Agent(Some(row)) => {
                let toml = inside.definition(&row).await?;
                Ok(Response::new(convert::agent(&row, toml)))
            }
            _ => Err(status::not_found("agent", &request.name, "quorate agent list")),
        }
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let query = Query::Agents {
            project,
            after: Some(request.page_token).filter(|token| !token.is_empty()),
            limit: page_size(request.page_size)?,
        };
        match inside.client.read(query).await.map_err(status::from_client)? {
            Answer::Agents { rows, more } => Ok(Response::new(pb::ListAgentsResponse {
                next_page_token: rows.last().filter(|_| more).map(|row| row.name.clone()).unwrap_or_default(),
                agents: rows.iter().map(|row| convert::agent(row, String::new())).collect(),
            })),
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }
}

impl Membership {
    /// Several models are chosen among by price, so each needs one; and every member has to know of such agents.
    async fn check_models(&self, definition: &Definition) -> Result<(), Status> {
        let Some(agent) = definition.agent().filter(|agent| !agent.others.is_empty()) else { return Ok(()) };
        let Answer::Cluster(facts) = self.client.read(Query::Cluster).await.map_err(status::from_client)?
        else {
            return Err(Status::internal("the ledger answered another question"));
        };
        if facts.feature_level < ROUTES {
            let message = format!(
                "agents with several models come with feature level {ROUTES}, the cluster is at {}",
                facts.feature_level
            );
            return Err(status::error(
                Code::FailedPrecondition,
                "LEVEL_TOO_LOW",
                &message,
                "upgrade every node, then `quorate cluster raise-level`; or name one model",
            ));
        }
        let Answer::Prices(rows) = self.client.read(Query::Prices).await.map_err(status::from_client)? else {
            return Err(Status::internal("the ledger answered another question"));
        };
        let priced = |model: &str| rows.iter().any(|row| row.model == model);
        let Some(unpriced) = agent.models().find(|model| !priced(model)) else { return Ok(()) };
        let known: Vec<&str> = rows.iter().map(|row| row.model.as_str()).collect();
        let message =
            format!("models names {unpriced:?}, which has no price: it could not be chosen among others");
        let next = format!(
            "check the name (with a price: {}), or `quorate price set {unpriced} input=… cached=… output=…`, 0 included",
            if known.is_empty() { "none".to_string() } else { known.join(", ") }
        );
        Err(status::error(Code::FailedPrecondition, "UNPRICED_MODEL", &message, &next))
    }

    async fn definition(&self, row: &AgentRow) -> Result<String, Status> {
        let bytes = self.segment(&row.project, row.definition, &row.home).await?;
        let opened = context::open(&row.project, row.definition, &bytes);
        opened.map(|segment| segment.text).map_err(|error| Status::data_loss(error.to_string()))
    }
}

fn kind(definition: &Definition) -> AgentKind {
    match definition {
        Definition::Agent(_) => AgentKind::Agent,
        Definition::Team(_) => AgentKind::Team,
    }
}

/// What a task of the agent holds while it runs; a team holds nothing of its own.
fn needs(definition: &Definition) -> Result<Option<Vec<(Holding, u64)>>, Status> {
    let needs = definition.agent().map(|agent| agent.needs.as_slice()).unwrap_or_default();
    let holding = |(name, amount): &(String, u64)| match Holding::parse(name) {
        Some(holding) => Ok((holding, *amount)),
        None => Err(status::invalid("toml", &format!("needs.{name:?} is nothing that a task can hold"))),
    };
    let needs: Vec<_> = needs.iter().map(holding).collect::<Result<_, _>>()?;
    Ok((!needs.is_empty()).then_some(needs))
}

fn apply_command(row: AgentRow, etag: Option<u64>, request: RequestKey) -> Command {
    Command::ApplyAgent {
        project: row.project,
        name: row.name,
        kind: row.kind,
        model: row.model,
        revision: row.revision,
        definition: row.definition,
        etag,
        home: row.home,
        request,
        needs: row.needs,
    }
}

/// An etag that a caller gave: none, or a number that an earlier answer carried.
pub(crate) fn etag(text: &str) -> Result<Option<u64>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| status::invalid("etag", "not one that an answer carried")),
    }
}

pub(crate) fn page_size(asked: u32) -> Result<u32, Status> {
    match asked as usize {
        0 => Ok(limits::PAGE_SIZE as u32),
        n => Ok(n.min(limits::PAGE_SIZE_MAX) as u32),
    }
}

/// A schema that is none would be found out at the first answer.
fn check_schema(definition: &Definition) -> Result<(), Status> {
    let schema = definition.agent().and_then(|agent| agent.result_schema.as_ref());
    let Some(schema) = schema.and_then(|text| serde_json::from_str(text).ok()) else { return Ok(()) };
    let form = ::tools::Arguments::new(&schema).map(|_| ());
    form.map_err(|why| status::invalid("result_schema", &format!("it is no JSON schema: {why}")))
}

fn definition_status(error: mind::DefinitionError) -> Status {
    let place = error.line.map(|line| format!("line {line}, ")).unwrap_or_default();
    let message = format!("{place}{}: {}", error.key, error.message);
    status::error(Code::InvalidArgument, "BAD_DEFINITION", &message, &error.next)
}
