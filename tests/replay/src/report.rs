//! Rows as JSON lines or as a table: the same figures, for programs and for people.

use serde::Serialize;
use serde_json::{Map, Value};

/// Rows of one kind. The columns are their fields, in the order of the struct.
#[derive(Clone, Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    columns: Vec<String>,
}

impl Report {
    pub fn of<T: Serialize>(rows: &[T]) -> anyhow::Result<Report> {
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let columns = lines.first().map_or_else(|| Ok(Vec::new()), |line| columns(line))?;
        Ok(Report { lines, columns })
    }

    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// In Markdown.
    pub fn table(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|name| name.replace('_', " ")).collect();
        let mut text = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
        for line in &self.lines {
            let row: Map<String, Value> = serde_json::from_str(line).unwrap_or_default();
            let cells: Vec<String> = self.columns.iter().map(|name| cell(row.get(name))).collect();
            text += &format!("| {} |\n", cells.join(" | "));
        }
        text
    }
}

/// The fields of a line, first to last.
fn columns(line: &str) -> anyhow::Result<Vec<String>> {
    let row: Map<String, Value> = serde_json::from_str(line)?;
    let mut names: Vec<String> = row.keys().cloned().collect();
    names.sort_by_key(|name| line.find(&format!("\"{name}\":")));
    Ok(names)
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => fraction(number.as_f64().unwrap_or(0.0)),
        Some(other) => other.to_string(),
    }
}

/// Three digits that say something.
fn fraction(number: f64) -> String {
    if number.abs() < 10.0 { format!("{number:.3}") } else { format!("{number:.1}") }
}
