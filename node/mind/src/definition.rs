//! What users write: an agent, or a team of agents, as TOML. Unknown keys are refused, with the keys that exist.
//!
//! A definition is read once into plain values. Its revision is the hash of a canonical text in which every default
//! is written out, so comments and order don't matter, and a default that changes later doesn't change old tasks.

mod compaction;
mod models;
mod needs;
mod read;
mod tools;

pub use compaction::Compaction;
use context::{Kind, Segment, Visibility};
use read::Table;
pub use tools::{Policy, ToolChoice, ToolRule};
use types::{Hash, limits};

/// Bytes of a definition: a system prompt of a million characters is a document and belongs into an input.
pub(crate) const DEFINITION_BYTES: usize = 1 << 20;
/// Steps of one task: its chain must stay below `limits::CHAIN_SEGMENTS`.
const MAX_STEPS: u64 = 4096;
/// Tokens of one answer: the longest windows in use, and a bound on what one segment must hold.
const MAX_TOKENS: u64 = 131_072;
/// A schema that a model can follow is a page.
const SCHEMA_BYTES: usize = 16 << 10;
/// Above this, sampling is noise.
const MAX_TEMPERATURE_MILLI: u32 = 2_000;

const AGENT_KEYS: [&str; 17] = [
    "name",
    "model",
    "models",
    "system",
    "max_steps",
    "max_tokens",
    "temperature",
    "seed",
    "tools",
    "tool_choice",
    "conversation",
    "limits",
    "needs",
    "memory",
    "visibility",
    "compaction",
    "result_schema",
];
const LIMIT_KEYS: [&str; 2] = ["min_tokens", "max_tokens_total"];
const TEAM_KEYS: [&str; 4] = ["name", "background", "fan_out", "then"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Definition {
    Agent(AgentDefinition),
    Team(TeamDefinition),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDefinition {
    pub name: String,
    /// Where several may answer, the first: it is the one that a worker must have to get a task.
    pub model: String,
    /// The others that may answer, each call the one that suits it best.
    pub others: Vec<String>,
    /// Empty: none.
    pub system: String,
    /// Model calls of one task.
    pub max_steps: u32,
    /// Tokens of one answer.
    pub max_tokens: u32,
    /// Thousandths; 0 always takes the likeliest token.
    pub temperature_milli: u32,
    /// In place of the task's own seed.
    pub seed: Option<u64>,
    pub limits: Limits,
    /// What a task of the agent holds while it runs, by name, sorted: `cpu_milli`, `connections:api.example.com`.
    pub needs: Vec<(String, u64)>,
    /// Who may read the result.
    pub visibility: Visibility,
    /// Tools that the agent may use, in the order as written.
    pub tools: Vec<ToolRule>,
    pub tool_choice: ToolChoice,
    /// After an answer the task waits for the next message.
    pub conversation: bool,
    /// The form of its results, as a JSON schema; none: any text.
    pub result_schema: Option<String>,
    /// What happens before the model's window is full; none: the task fails when it is.
    pub compaction: Option<Compaction>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The model may not end an answer before so many tokens.
    pub min_tokens: u32,
    /// Tokens generated in all steps of a task.
    pub max_tokens_total: Option<u64>,
}

/// Fans out over the task's inputs, then gives all results to one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamDefinition {
    pub name: String,
    /// Shared by all members, first in their chains. Empty: none.
    pub background: String,
    /// The agent that gets one input each.
    pub fan_out: String,
    /// They start together or not at all.
    pub together: bool,
    /// The agent that gets all their results.
    pub then: String,
}

/// Why a text is no definition: the key, the line where there is one, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}; {next}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
pub struct DefinitionError {
    /// As written, such as `limits.min_tokens`; empty when no single key is at fault.
    pub key: String,
    pub line: Option<usize>,
    pub message: String,
    pub next: String,
}

impl Definition {
    /// Reads a definition. A text with `fan_out`, `then` or `background` is a team, any other an agent.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Definition, DefinitionError> {
        let table = Table::root(text)?;
        if ["fan_out", "then", "background"].iter().any(|key| table.has(key)) {
            Ok(Definition::Team(team(table)?))
        } else {
            Ok(Definition::Agent(agent(table)?))
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Definition::Agent(agent) => &agent.name,
            Definition::Team(team) => &team.name,
        }
    }

    /// None for a team: its members have models, it has not.
    pub fn model(&self) -> Option<&str> {
        self.agent().map(|agent| agent.model.as_str())
    }

    pub fn agent(&self) -> Option<&AgentDefinition> {
        match self {
            Definition::Agent(agent) => Some(agent),
            Definition::Team(_) => None,
        }
    }

    /// TOML that parses to the same definition, with every default written out.
    pub fn canonical(&self) -> String {
        match self {
            Definition::Agent(agent) => agent.canonical(),
            Definition::Team(team) => team.canonical(),
        }
    }

    /// The name of this revision: the hash of the canonical text.
    pub fn revision(&self) -> Hash {
        Hash::of(self.canonical().as_bytes())
    }

    /// The canonical text as a segment that the whole project may read.
    pub fn segment(&self) -> Segment {
        Segment::new(Kind::Definition, self.name(), Visibility::Project, self.canonical())
    }
}

impl AgentDefinition {
    /// Every model that may answer; the first is the one that a worker must have.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.model).chain(&self.others).map(String::as_str)
    }

    fn canonical(&self) -> String {
        let mut text = format!("name = {}\n{}\n", quoted(&self.name), models::canonical(self));
        if !self.system.is_empty() {
            text += &format!("system = {}\n", quoted(&self.system));
        }
        text += &format!("max_steps = {}\nmax_tokens = {}\n", self.max_steps, self.max_tokens);
        let (whole, thousandths) = (self.temperature_milli / 1000, self.temperature_milli % 1000);
        text += &format!("temperature = {whole}.{thousandths:03}\n");
        if let Some(seed) = self.seed {
            text += &format!("seed = {seed}\n");
        }
        text += &format!("visibility = {}\n\n[limits]\n", quoted(visibility_name(self.visibility)));
        text += &format!("min_tokens = {}\n", self.limits.min_tokens);
        if let Some(total) = self.limits.max_tokens_total {
            text += &format!("max_tokens_total = {total}\n");
        }
        // Without needs, tools and compaction the text is as it was before there were any: revisions stay.
        let tools = tools::canonical(&self.tools, self.tool_choice, self.conversation);
        let schema =
            self.result_schema.as_ref().map(|schema| format!("result_schema = {}\n", quoted(schema)));
        let tools = tools + &schema.unwrap_or_default();
        tools + &text + &needs::canonical(&self.needs) + &compaction::canonical(self.compaction.as_ref())
    }
}

impl TeamDefinition {
    fn canonical(&self) -> String {
        let mut text = format!("name = {}\n", quoted(&self.name));
        if !self.background.is_empty() {
            text += &format!("background = {}\n", quoted(&self.background));
        }
        text += &format!("\n[fan_out]\nover = \"inputs\"\nagent = {}\n", quoted(&self.fan_out));
        if self.together {
            text += "together = true\n";
        }
        text + &format!("\n[then]\nagent = {}\n", quoted(&self.then))
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn visibility_name(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Agent => "agent",
        Visibility::Task => "task",
        Visibility::Project => "project",
    }
}

fn agent(mut table: Table<'_>) -> Result<AgentDefinition, DefinitionError> {
    table.only("an agent", &AGENT_KEYS)?;
    refuse_memory(&mut table)?;
    let (model, others) = models::read(&mut table)?;
    let max_tokens =
        table.whole("max_tokens", 1, MAX_TOKENS)?.unwrap_or(u64::from(limits::DEFAULT_MAX_TOKENS));
    let definition = AgentDefinition {
        name: table.name("name")?,
        model,
        others,
        system: table.text("system")?.unwrap_or_default(),
        max_steps: fitted(
            table.whole("max_steps", 1, MAX_STEPS)?.unwrap_or(u64::from(limits::DEFAULT_MAX_STEPS)),
        ),
        max_tokens: fitted(max_tokens),
        temperature_milli: table.milli("temperature", MAX_TEMPERATURE_MILLI)?.unwrap_or(0),
        seed: table.whole("seed", 0, i64::MAX as u64)?,
        limits: limits_of(&mut table, max_tokens)?,
        needs: needs::read(&mut table)?,
        visibility: visibility(&mut table)?,
        tools: tools::read(&mut table)?,
        tool_choice: tools::choice(&mut table)?,
        conversation: table.flag("conversation")?.unwrap_or(false),
        result_schema: schema(&mut table)?,
        compaction: compaction::read(&mut table)?,
    };
    Ok(definition)
}

fn limits_of(table: &mut Table<'_>, max_tokens: u64) -> Result<Limits, DefinitionError> {
    let Some(mut inner) = table.table("limits")? else { return Ok(Limits::default()) };
    inner.only("limits", &LIMIT_KEYS)?;
    let max_tokens_total = inner.whole("max_tokens_total", 1, i64::MAX as u64)?;
    let ceiling = max_tokens.min(max_tokens_total.unwrap_or(u64::MAX));
    let line = inner.line("min_tokens");
    let min_tokens = inner.whole("min_tokens", 0, MAX_TOKENS)?.unwrap_or(0);
    if min_tokens > ceiling {
        let message = format!("limits.min_tokens is {min_tokens}, but an answer ends at {ceiling} tokens");
        let next = "raise max_tokens (and limits.max_tokens_total), or lower min_tokens";
        return Err(DefinitionError {
            key: "limits.min_tokens".to_string(),
            line,
            message,
            next: next.to_string(),
        });
    }
    Ok(Limits { min_tokens: fitted(min_tokens), max_tokens_total })
}

/// Its bytes are those of the JSON with sorted keys: how it was laid out changes no revision.
fn schema(table: &mut Table<'_>) -> Result<Option<String>, DefinitionError> {
    let line = table.line("result_schema");
    let Some(text) = table.text("result_schema")? else { return Ok(None) };
    let refused = |message: String| DefinitionError {
        key: "result_schema".to_string(),
        line,
        message,
        next: "write a JSON schema as a text, like '{\"type\": \"object\"}'".to_string(),
    };
    if text.len() > SCHEMA_BYTES {
        return Err(refused(format!(
            "result_schema has {} bytes, at most {SCHEMA_BYTES} are allowed",
            text.len()
        )));
    }
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) if value.is_object() => Ok(Some(crate::calls::sorted(&value).to_string())),
        Ok(_) => Err(refused("result_schema is no JSON object".to_string())),
        Err(error) => Err(refused(format!("result_schema is not JSON: {error}"))),
    }
}

fn refuse_memory(table: &mut Table<'_>) -> Result<(), DefinitionError> {
    table.choice("memory", &["none"]).map(|_| ())
}

fn visibility(table: &mut Table<'_>) -> Result<Visibility, DefinitionError> {
    let choices = [Visibility::Task, Visibility::Agent, Visibility::Project];
    let index = table.choice("visibility", &choices.map(visibility_name))?;
    Ok(choices[index.unwrap_or(0)])
}

fn team(mut table: Table<'_>) -> Result<TeamDefinition, DefinitionError> {
    table.only("a team", &TEAM_KEYS)?;
    let name = table.name("name")?;
    let background = table.text("background")?.unwrap_or_default();
    let mut fan_out =
        table.needed_table("fan_out", "[fan_out] with over = \"inputs\" and agent = \"reader\"")?;
    fan_out.only("fan_out", &["over", "agent", "together"])?;
    fan_out.needed_choice("over", &["inputs"])?;
    let mut then = table.needed_table("then", "[then] with agent = \"writer\"")?;
    then.only("then", &["agent"])?;
    let together = fan_out.flag("together")?.unwrap_or(false);
    Ok(TeamDefinition {
        name,
        background,
        fan_out: fan_out.name("agent")?,
        together,
        then: then.name("agent")?,
    })
}

/// For values that were checked against a limit below `u32::MAX`.
fn fitted(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
