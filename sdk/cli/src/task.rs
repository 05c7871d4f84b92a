//! `task create|get|list|watch|cancel|pause|resume|approve|answer|signal|retry|fork|explain|routes`, and `run`.

mod show;

pub(crate) use show::{explanation, in_full, list_table, routes_table, usage as usage_words};

use crate::failure::{Exit, Failure, usage};
use crate::follow::{self, Style};
use crate::output::{Format, Out};
use crate::values::When;
use crate::{inputs, values};
use futures::TryStreamExt;
use quorate_sdk::data::{Task, TaskState, WhatIf};
use quorate_sdk::{Class, Client, Code, CreateTask, Error, Say};
use std::time::Duration;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Put a task into the queue
    Create {
        #[command(flatten)]
        task: NewTask,
        /// Follow it to its end
        #[arg(long)]
        watch: bool,
    },
    /// One task as it is now
    Get(One),
    /// Tasks of the project
    List(List),
    /// Follow a task: committed events and live text
    Watch {
        #[command(flatten)]
        task: One,
        /// Start at this committed sequence
        #[arg(long, value_name = "SEQ", default_value_t = 1)]
        from: u64,
    },
    /// Stop a task and all its children; CANCELLED is the proof that nothing runs any more
    Cancel(One),
    /// Hold a task still; a step in progress is decided again later
    Pause(One),
    /// Put a paused task back into its queue
    Resume(One),
    /// Let a tool call be made that waits for it; `task get` shows the exact call
    Approve(OneAsk),
    /// Don't let it be made; or, of an unknown outcome: it failed
    Reject(OneAsk),
    /// Make a call whose outcome is unknown again
    Repeat(OneAsk),
    /// Answer a question, or say how an unknown call ended
    Answer {
        #[command(flatten)]
        task: OneAsk,
        #[arg(value_name = "TEXT")]
        text: String,
    },
    /// Send a message to a task
    Signal(Signal),
    /// Create a task like one that has ended: same revision, same inputs
    Retry(One),
    /// Create a task that goes on from a step of another one
    Fork {
        #[command(flatten)]
        task: One,
        /// The step to go on from [default: the newest]
        #[arg(long, value_name = "N")]
        step: Option<u64>,
    },
    /// Say why a task waits, with numbers
    Explain(Explain),
    /// Which of its agent's models each step called, why, and what spoke against the others
    Routes(One),
}

#[derive(clap::Args, Debug)]
pub struct OneAsk {
    /// Task id or uid
    #[arg(value_name = "TASK")]
    id: String,
    /// The open question, such as 3.0; may be left out where only one is open
    #[arg(long, value_name = "ID")]
    ask: Option<String>,
}

#[derive(clap::Args, Debug)]
pub struct Signal {
    /// Task id or uid
    #[arg(value_name = "TASK")]
    id: String,
    #[arg(value_name = "TEXT")]
    text: String,
    /// What to do with a task that is at work
    #[arg(long, value_enum, default_value = "reject")]
    busy: Busy,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Busy {
    /// Send nothing
    Reject,
    /// Wait for its turn
    Enqueue,
    /// Stop what it does, and keep it
    Interrupt,
    /// Take back what it did since the last message
    Rollback,
}

#[derive(clap::Args, Debug)]
pub struct One {
    /// Task id or uid
    #[arg(value_name = "TASK")]
    id: String,
}

#[derive(clap::Args, Debug)]
pub struct Explain {
    /// Task id or uid
    #[arg(value_name = "TASK")]
    id: String,
    /// As if this limit were set, such as `--if projects/default running=8`; may be given several times
    #[arg(long = "if", num_args = 2, value_names = ["PATH", "KEY=VALUE"])]
    what_if: Vec<String>,
}

#[derive(clap::Args, Debug)]
pub struct List {
    /// Terms like state=RUNNING, agent=reader, label.team=x, class=batch; all must hold
    #[arg(long, value_name = "TERMS", default_value = "")]
    filter: String,
    /// Tasks asked for at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    page_size: Option<u32>,
}

#[derive(clap::Args, Debug)]
pub struct NewTask {
    /// The agent or team that does it
    #[arg(long, value_name = "NAME")]
    agent: String,
    #[command(flatten)]
    inputs: Inputs,
    /// Your own key for it, unique in the project
    #[arg(long, value_name = "ID")]
    task_id: Option<String>,
    /// Repeat an earlier create: the same id gives the first answer
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Which queue: system, interactive, batch or best-effort [default: interactive]
    #[arg(long, value_parser = values::class)]
    class: Option<Class>,
    /// 0 to 9; higher runs earlier within its class [default: 5]
    #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,
    /// Give up after this time from now, such as 30m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    deadline: Option<Duration>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::pair)]
    label: Vec<(String, String)>,
    /// A limit of the task and everything below it, such as tokens_total=20k or micro_usd_total=0.5usd
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::own_limit)]
    limit: Vec<(String, u64)>,
    /// Not before this time: 30m from now, or 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::when)]
    not_before: Option<When>,
    /// A task that has to succeed first; may be given several times
    #[arg(long, value_name = "TASK")]
    after: Vec<String>,
    /// Create nothing; show the task as it would be, and what would hold it now
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = true)]
struct Inputs {
    /// A text; may be given several times
    #[arg(short, long, value_name = "TEXT")]
    input: Vec<String>,
    /// A UTF-8 file; may be given several times, `-` is stdin
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    file: Vec<String>,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let tasks = client.tasks();
    match command {
        Command::Create { task, watch: true } => return run(task, client, out).await,
        Command::Create { task, watch: false } => show_one(&create(task, client)?.send().await?, out)?,
        Command::Get(it) => show_one(&tasks.get(&it.id).await?, out)?,
        Command::List(it) => list(it, client, out).await?,
        Command::Watch { task, from } => watch(&task.id, from, client, out).await?,
        Command::Cancel(it) => show_one(&tasks.cancel(&it.id).await?, out)?,
        Command::Pause(it) => show_one(&tasks.pause(&it.id).await?, out)?,
        Command::Resume(it) => show_one(&tasks.resume(&it.id).await?, out)?,
        Command::Approve(it) => show_one(&tasks.approve(&it.id, it.ask.as_deref()).await?, out)?,
        Command::Reject(it) => show_one(&tasks.reject(&it.id, it.ask.as_deref()).await?, out)?,
        Command::Repeat(it) => show_one(&tasks.say(&it.id, it.ask.as_deref(), Say::Repeat).await?, out)?,
        Command::Answer { task, text } => {
            show_one(&tasks.say(&task.id, task.ask.as_deref(), Say::Answer(&text)).await?, out)?;
        }
        Command::Signal(it) => show_one(&tasks.say(&it.id, None, it.say()).await?, out)?,
        Command::Retry(it) => show_one(&tasks.retry(&it.id).await?, out)?,
        Command::Fork { task, step } => show_one(&tasks.fork(&task.id, step).await?, out)?,
        Command::Explain(it) => return explain(it, client, out).await,
        Command::Routes(it) => {
            let routes = client.context().get(&it.id, false).await?.routes;
            out.many(&routes, routes_table)?;
        }
    }
    Ok(Exit::Ok)
}

impl Signal {
    fn say(&self) -> Say<'_> {
        match self.busy {
            Busy::Reject => Say::Message(&self.text),
            Busy::Enqueue => Say::Enqueue(&self.text),
            Busy::Interrupt => Say::Interrupt(&self.text),
            Busy::Rollback => Say::Rollback(&self.text),
        }
    }
}

/// Creates, follows, and prints the result.
pub(crate) async fn run(task: NewTask, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    if task.dry_run {
        show_one(&create(task, client)?.send().await?, out)?;
        return Ok(Exit::Ok);
    }
    let created = create(task, client)?.send().await?;
    let style = match out.format {
        Format::Table | Format::Csv => Style::Text,
        Format::Json => Style::Silent,
        Format::Jsonl => Style::Lines,
    };
    if style == Style::Text {
        out.note(&format!("task {}", created.id))?;
    }
    let shown = follow::follow(client, &created.id, 1, style, out).await?;
    let mut done = client.tasks().get(&created.id).await?;
    if done.state == TaskState::Succeeded {
        done.result = Some(client.tasks().result(&done).await?);
    }
    match out.format {
        Format::Table | Format::Csv => shown.finish(done.result.as_deref(), out)?,
        Format::Json | Format::Jsonl => out.one(&done, in_full)?,
    }
    if done.state == TaskState::Succeeded { Ok(Exit::Ok) } else { Err(did_not_succeed(&done)) }
}

pub(crate) async fn explain(it: Explain, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let mut limits = vec![];
    for pair in it.what_if.chunks(2) {
        let [path, change] = pair else { continue };
        let wrong = |why: String| usage("USAGE", why, "write it like `--if projects/default running=8`");
        let (key, limit) = values::limit(change).map_err(wrong)?;
        limits.push(WhatIf { path: path.clone(), key, limit });
    }
    out.one(&client.tasks().explain_if(&it.id, &limits).await?, explanation)?;
    Ok(Exit::Ok)
}

fn did_not_succeed(task: &Task) -> Failure {
    let reason = if task.state_reason.is_empty() { task.state.name() } else { &task.state_reason };
    let message = format!("task {} ended {}", task.id, task.state.name());
    let next = format!("`quorate task get {}` shows all of it", task.id);
    let mut error = Error::local(Code::Unknown, reason, message, next);
    error.cause = task.error.clone();
    Failure::TaskFailed(Box::new(error))
}

fn create<'a>(it: NewTask, client: &'a Client) -> Result<CreateTask<'a>, Failure> {
    let mut task = client.tasks().create(&it.agent);
    for text in it.inputs.input {
        task = task.input(text);
    }
    for file in it.inputs.file {
        let text = inputs::read(&file)?;
        task = task.named_input(if file == "-" { "stdin" } else { &file }, text);
    }
    for (key, value) in it.label {
        task = task.label(key, value);
    }
    if let Some(id) = it.task_id {
        task = task.task_id(id);
    }
    if let Some(id) = it.request_id {
        task = task.request_id(id);
    }
    if let Some(class) = it.class {
        task = task.class(class);
    }
    if let Some(priority) = it.priority {
        task = task.priority(priority);
    }
    if let Some(patience) = it.deadline {
        task = task.deadline_ms(When::In(patience).until_ms()?);
    }
    for (key, limit) in it.limit {
        task = task.limit(key, limit);
    }
    if let Some(time) = it.not_before {
        task = task.not_before_ms(time.until_ms()?);
    }
    for id in it.after {
        task = task.after(id);
    }
    if it.dry_run {
        task = task.validate_only();
    }
    Ok(task)
}

async fn watch(id: &str, from: u64, client: &Client, out: &mut Out<'_>) -> Result<(), Failure> {
    let style = match out.format {
        Format::Table | Format::Csv => Style::Everything,
        Format::Json | Format::Jsonl => Style::Lines,
    };
    follow::follow(client, id, from, style, out).await.map(|_| ())
}

fn show_one(task: &Task, out: &mut Out<'_>) -> Result<(), Failure> {
    out.one(task, in_full)
}

/// Reads page after page. A table needs them all for its widths; JSON is printed as it comes.
async fn list(it: List, client: &Client, out: &mut Out<'_>) -> Result<(), Failure> {
    let mut wanted = client.tasks().list().filter(it.filter);
    if let Some(size) = it.page_size {
        wanted = wanted.page_size(size);
    }
    let mut tasks = wanted.all();
    if out.format == Format::Table {
        let all: Vec<Task> = tasks.try_collect().await?;
        return out.text(&list_table(&all));
    }
    let mut first = true;
    while let Some(task) = tasks.try_next().await? {
        out.element(&task, std::mem::take(&mut first))?;
    }
    out.end_of_elements(first)
}
