//! Our own form: segments with their owners, as written.

use super::field;
use crate::call::{Call, Flaw, Segment};
use serde_json::Value;

pub(super) fn call(value: &Value, line: String) -> Result<Call, Flaw> {
    field::only(value, "", &["call", "segments", "withheld", "reader", "probe", "action"])?;
    let withheld = match value.get("withheld") {
        None | Some(Value::Null) => None,
        Some(_) => Some(segments(value, "withheld")?),
    };
    let name = if value.get("call").is_some() { field::text(value, "", "call")? } else { line };
    Ok(Call {
        name,
        segments: segments(value, "segments")?,
        reader: field::text(value, "", "reader")?,
        probe: field::text(value, "", "probe")?,
        action: field::text(value, "", "action")?,
        withheld,
    })
}

fn segments(value: &Value, name: &str) -> Result<Vec<Segment>, Flaw> {
    let items = field::array(value, name)?.iter().enumerate();
    items.map(|(index, item)| segment(item, &format!("{name}[{index}]"))).collect()
}

fn segment(value: &Value, at: &str) -> Result<Segment, Flaw> {
    field::only(value, at, &["id", "owner", "kind", "text", "replaces"])?;
    let text = |name| field::text(value, at, name);
    let mut segment = Segment::new(text("id")?, text("owner")?, text("kind")?, text("text")?);
    segment.replaces = replaces(value, at)?;
    Ok(segment)
}

fn replaces(value: &Value, at: &str) -> Result<Vec<String>, Flaw> {
    let flaw = || Flaw::new(format!("{at}.replaces"), "must be a list of ids");
    match value.get("replaces") {
        None => Ok(Vec::new()),
        Some(Value::Array(ids)) => {
            ids.iter().map(|id| id.as_str().map(str::to_string).ok_or_else(flaw)).collect()
        }
        Some(_) => Err(flaw()),
    }
}
