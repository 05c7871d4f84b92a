//! `schedule set|list|delete`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, or_empty, table};
use crate::{inputs, values};
use quorate_sdk::data::Schedule;
use quorate_sdk::{Class, Client, Plan};

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Create a task again and again; a schedule of the same name is replaced
    Set(Set),
    /// Schedules of the project
    List,
    /// End a schedule; tasks that it created go on
    Delete {
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(clap::Args, Debug)]
pub struct Set {
    #[arg(value_name = "NAME")]
    name: String,
    /// Minute, hour, day of the month, month, day of the week, in UTC: "0 6 * * MON-FRI"
    #[arg(long, value_name = "PATTERN")]
    cron: String,
    /// The agent or team that does it
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// A text; may be given several times
    #[arg(short, long, value_name = "TEXT")]
    input: Vec<String>,
    /// A UTF-8 file; may be given several times
    #[arg(short, long, value_name = "FILE", num_args = 1..)]
    file: Vec<String>,
    /// Which queue: system, interactive, batch or best-effort [default: batch]
    #[arg(long, value_parser = values::class)]
    class: Option<Class>,
    /// 0 to 9; higher runs earlier within its class [default: 5]
    #[arg(long, value_name = "0..9", value_parser = clap::value_parser!(u32).range(0..=9))]
    priority: Option<u32>,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let schedules = client.schedules();
    match command {
        Command::Set(it) => {
            let mut texts: Vec<(String, String)> =
                it.input.into_iter().map(|text| (String::new(), text)).collect();
            for file in it.file {
                texts.push((file.clone(), inputs::read(&file)?));
            }
            let plan = Plan {
                cron: &it.cron,
                agent: &it.agent,
                inputs: texts,
                class: it.class,
                priority: it.priority,
            };
            let set = schedules.set(&it.name, plan).await?;
            out.one(&set, |schedule| in_table(std::slice::from_ref(schedule)))?;
        }
        Command::List => {
            let all = schedules.list().await?;
            out.many(&all, in_table)?;
        }
        Command::Delete { name } => {
            schedules.delete(&name).await?;
            out.note(&format!("schedule {name} is deleted"))?;
        }
    }
    Ok(Exit::Ok)
}

fn in_table(schedules: &[Schedule]) -> String {
    let row = |it: &Schedule| {
        vec![
            it.name.clone(),
            it.cron.clone(),
            it.agent.clone(),
            it.class.name().to_string(),
            or_empty(&it.next_time),
            it.fired.to_string(),
            or_empty(&it.last_task),
            or_empty(&it.last_error),
        ]
    };
    let rows: Vec<_> = schedules.iter().map(row).collect();
    table(&["NAME", "CRON", "AGENT", "CLASS", "NEXT", "FIRED", "LAST TASK", "LAST ERROR"], &rows)
}
