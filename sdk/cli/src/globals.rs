//! What every verb takes: where the cluster is, which project, how long to wait, how to print.

use crate::failure::Failure;
use crate::output::Format;
use crate::values;
use quorate_sdk::{Client, ENDPOINT_VARIABLE, PROJECT_VARIABLE};
use std::time::Duration;

const LOCAL: &str = "127.0.0.1:7400";
/// A person waits for less than a program when nobody answers at all.
const CONNECT: Duration = Duration::from_secs(3);

#[derive(clap::Args, Clone, Debug)]
pub struct Globals {
    /// Nodes to ask, separated by commas; any node will do [default: 127.0.0.1:7400]
    #[arg(long, global = true, env = ENDPOINT_VARIABLE, hide_env_values = true, value_delimiter = ',')]
    #[arg(value_name = "HOST:PORT", help_heading = "For every verb")]
    pub endpoint: Vec<String>,
    /// The project that the verb is about [default: default]
    #[arg(long, global = true, env = PROJECT_VARIABLE, hide_env_values = true)]
    #[arg(value_name = "NAME", help_heading = "For every verb")]
    pub project: Option<String>,
    /// How long one call may take, such as 500ms, 30s or 2m
    #[arg(long, global = true, value_parser = values::duration, default_value = "30s")]
    #[arg(value_name = "TIME", help_heading = "For every verb")]
    pub timeout: Duration,
    /// How to print: for people, as one JSON value, as JSON lines, or (reports only) comma-separated
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, help_heading = "For every verb")]
    pub output: Format,
}

impl Globals {
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let named: Vec<&str> =
            self.endpoint.iter().map(String::as_str).filter(|e| !e.trim().is_empty()).collect();
        let endpoints = if named.is_empty() { vec![LOCAL] } else { named };
        let client = Client::connect(&endpoints)?.with_timeout(self.timeout).with_connect_timeout(CONNECT);
        match self.project.as_deref().filter(|name| !name.trim().is_empty()) {
            Some(project) => Ok(client.with_project(project)?),
            None => Ok(client),
        }
    }
}
