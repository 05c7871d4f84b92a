//! `model pull|list|inspect`: the model files of this machine.

use super::models;
use crate::models::{Bars, Silent, Watch};

/// Takes a model in, by known name or from a file.
pub fn model_pull(source: &str, json: bool) -> anyhow::Result<()> {
    let watch: Box<dyn Watch> = if json { Box::new(Silent) } else { Box::new(Bars::new()) };
    let model = models()?.pull(source, watch.as_ref())?;
    if json {
        say!("{}", serde_json::to_string(&model)?);
    } else {
        say!("{} is ready: {} bytes at {}", model.name, model.bytes, model.path.display());
    }
    Ok(())
}

pub fn model_list(json: bool) -> anyhow::Result<()> {
    let list = models()?.list()?;
    if json {
        say!("{}", serde_json::to_string(&list)?);
        return Ok(());
    }
    say!("{:<24} {:>12}  DIGEST", "NAME", "BYTES");
    for model in list {
        say!("{:<24} {:>12}  {}", model.name, model.bytes, model.digest.short());
    }
    Ok(())
}

pub fn model_inspect(model: &str, json: bool) -> anyhow::Result<()> {
    let inspection = models()?.inspect(model)?;
    let value = serde_json::to_value(&inspection)?;
    if json {
        say!("{value}");
        return Ok(());
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        say!("{key:<20} {text}");
    }
    Ok(())
}
