//! `task create|get|list|watch|cancel|pause|resume|explain`, and `run`.

mod show;

pub(crate) use show::{explanation, in_full, list_table, usage as usage_words};

use crate::failure::{Exit, Failure, failed};
use crate::follow::{self, Style};
use crate::output::{Format, Out};
use crate::{inputs, values};
use futures::TryStreamExt;
use quorate_sdk::data::{Task, TaskState};
use quorate_sdk::{Class, Client, Code, CreateTask, Error};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// Say why a task waits, with numbers
    Explain(One),
}

#[derive(clap::Args, Debug)]
pub struct One {
    /// Task id or uid
    #[arg(value_name = "TASK")]
    id: String,
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
        Command::Explain(it) => out.one(&tasks.explain(&it.id).await?, explanation)?,
    }
    Ok(Exit::Ok)
}

/// Creates, follows, and prints the result.
pub(crate) async fn run(task: NewTask, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let created = create(task, client)?.send().await?;
    let style = match out.format {
        Format::Table => Style::Text,
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
        Format::Table => shown.finish(done.result.as_deref(), out)?,
        Format::Json | Format::Jsonl => out.one(&done, in_full)?,
    }
    if done.state == TaskState::Succeeded { Ok(Exit::Ok) } else { Err(did_not_succeed(&done)) }
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
        task = task.deadline_ms(from_now_ms(patience)?);
    }
    Ok(task)
}

fn from_now_ms(patience: Duration) -> Result<u64, Failure> {
    let wrong = || failed(Code::Internal, "CLOCK", "this machine's clock is before 1970", "set the clock");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| wrong())?;
    Ok(u64::try_from(now.saturating_add(patience).as_millis()).unwrap_or(u64::MAX))
}

async fn watch(id: &str, from: u64, client: &Client, out: &mut Out<'_>) -> Result<(), Failure> {
    let style = match out.format {
        Format::Table => Style::Everything,
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
