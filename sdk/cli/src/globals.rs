//! What every verb takes: where the cluster is, which project, how long to wait, how to print.

use crate::failure::{Failure, usage};
use crate::output::Format;
use crate::values;
use quorate_sdk::{
    API_KEY_VARIABLE, CA_VARIABLE, CERT_KEY_VARIABLE, CERT_VARIABLE, Client, Credentials, ENDPOINT_VARIABLE,
    PROJECT_VARIABLE,
};
use std::path::PathBuf;
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
    /// A file with an API key and nothing else; the key itself may be in QUORATE_API_KEY
    #[arg(long, global = true, value_name = "FILE", help_heading = "For every verb")]
    pub api_key_file: Option<PathBuf>,
    /// The cluster's CA; with it nodes are asked over TLS
    #[arg(long, global = true, env = CA_VARIABLE, hide_env_values = true)]
    #[arg(value_name = "FILE", help_heading = "For every verb")]
    pub ca: Option<PathBuf>,
    /// A client certificate, instead of an API key
    #[arg(long, global = true, env = CERT_VARIABLE, hide_env_values = true)]
    #[arg(value_name = "FILE", help_heading = "For every verb")]
    pub cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, env = CERT_KEY_VARIABLE, hide_env_values = true)]
    #[arg(value_name = "FILE", help_heading = "For every verb")]
    pub cert_key: Option<PathBuf>,
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
        let client = Client::connect_with(&endpoints, &self.credentials()?)?;
        let client = client.with_timeout(self.timeout).with_connect_timeout(CONNECT);
        match self.project.as_deref().filter(|name| !name.trim().is_empty()) {
            Some(project) => Ok(client.with_project(project)?),
            None => Ok(client),
        }
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        let mut credentials = Credentials::default();
        let key = std::env::var(API_KEY_VARIABLE).ok().filter(|key| !key.trim().is_empty());
        if let Some(file) = &self.api_key_file {
            credentials = credentials.with_api_key_file(file)?;
        } else if let Some(key) = key {
            credentials = credentials.with_api_key(&key);
        }
        if let Some(file) = &self.ca {
            credentials = credentials.with_ca_file(file)?;
        }
        match (&self.cert, &self.cert_key) {
            (Some(cert), Some(key)) => Ok(credentials.with_certificate_files(cert, key)?),
            (None, None) => Ok(credentials),
            _ => Err(usage(
                "BAD_CREDENTIALS",
                "a certificate and its key belong together",
                "give --cert and --cert-key, or neither",
            )),
        }
    }
}
