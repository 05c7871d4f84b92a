//! The verbs of this machine: `start`, `dev`, `cluster up`, `doctor`, `config`, `engine`, `context`, `model`, `cert`, `key`,
//! `sandbox`, and backups on disk. They need no cluster, or are one.

/// A line to stdout. Whoever reads may have gone away (`model list | head -1`): what a verb does is done all the same.
macro_rules! say {
    ($($text:tt)*) => { $crate::local::say_line(format_args!($($text)*)) };
}

mod backup;
mod cert;
mod chaos;
mod check;
mod daemon;
mod doctor;
mod engine;
mod evaluate;
mod key;
mod model;
mod replay;
mod sandbox;
mod serve;
mod up;

pub use self::sandbox::{sandbox_check, sandbox_stage};
pub use backup::{RestoreOptions, cluster_restore, cluster_verify};
pub use cert::{
    CA_DAYS, CLIENT_DAYS, NODE_DAYS, RotateStep, cert_client, cert_init, cert_node, cert_rotate, cert_show,
};
pub use chaos::{ChaosOptions, Harm, chaos};
pub use check::config_check;
pub use daemon::{DevOptions, dev, start};
pub use doctor::{DoctorOptions, doctor};
pub use engine::{BenchOptions, Form, ScoreOptions, engine_bench, engine_score};
pub use evaluate::{Recorded, context_eval, context_suggest};
pub use key::{NewKeyOptions, key_new};
pub use model::{model_inspect, model_list, model_pull};
pub use replay::{ReplayOptions, TraceFormat, engine_replay};
pub use serve::{ServeOptions, engine_serve};
pub use up::{UpOptions, cluster_up};
pub use worker_inference::replay::Costs;
pub use worker_inference::replay::miniswe::Rules;

use crate::config;
use crate::models::ModelStore;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

fn say_line(line: std::fmt::Arguments<'_>) {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: stdout can't be written: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

fn home() -> anyhow::Result<PathBuf> {
    Ok(config::home(|name| std::env::var_os(name))?)
}

fn models() -> anyhow::Result<ModelStore> {
    Ok(ModelStore::open(config::models_dir(&home()?)))
}

/// A GGUF file by path, or a pulled model by name.
fn model_path(model: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    if path.extension().is_some_and(|e| e == "gguf") || path.components().count() > 1 {
        return Ok(path.to_path_buf());
    }
    Ok(models()?.resolve(model)?.path)
}
