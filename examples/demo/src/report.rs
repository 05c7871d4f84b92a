//! What the demo tells: a table for people, one line of JSON for programs.

use crate::documents::Documents;
use std::path::Path;

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) ok: bool,
    pub(crate) documents: usize,
    pub(crate) parts: usize,
    pub(crate) skipped: usize,
    pub(crate) tasks: usize,
    pub(crate) steps: u64,
    pub(crate) tokens_computed: u64,
    pub(crate) tokens_cached: u64,
    pub(crate) tokens_generated: u64,
    pub(crate) context_bytes_moved: u64,
    pub(crate) context_bytes_full: u64,
    /// From SIGKILL to the first new token of the writer elsewhere.
    pub(crate) failover_ms: u64,
    pub(crate) killed_node: String,
    pub(crate) killed_after_tokens: u64,
    pub(crate) writer_node_after: String,
    pub(crate) writer_tokens: u64,
    pub(crate) seconds: f64,
    pub(crate) result: String,
}

impl Report {
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "ok": self.ok,
            "documents": self.documents,
            "skipped": self.skipped,
            "tasks": self.tasks,
            "steps": self.steps,
            "tokens_computed": self.tokens_computed,
            "tokens_cached": self.tokens_cached,
            "context_bytes_moved": self.context_bytes_moved,
            "context_bytes_full": self.context_bytes_full,
            "failover_ms": self.failover_ms,
            "killed_node": self.killed_node,
            "writer_node_after": self.writer_node_after,
            "parts": self.parts,
            "tokens_generated": self.tokens_generated,
            "killed_after_tokens": self.killed_after_tokens,
            "writer_tokens": self.writer_tokens,
        })
        .to_string()
    }

    pub(crate) fn print_table(&self, file: &Path) {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
        let prompt = self.tokens_computed + self.tokens_cached;
        let rows = [
            (
                "documents read",
                format!("{} in {} parts, {} skipped", self.documents, self.parts, self.skipped),
            ),
            ("tasks, committed steps", format!("{}, {}", self.tasks, self.steps)),
            ("prompt tokens computed", self.tokens_computed.to_string()),
            (
                "prompt tokens from cache",
                format!("{} ({:.0} %)", self.tokens_cached, share(self.tokens_cached, prompt)),
            ),
            ("tokens generated", self.tokens_generated.to_string()),
            (
                "context bytes moved",
                format!(
                    "{} ({:.0} % of {} with whole chains)",
                    self.context_bytes_moved,
                    share(self.context_bytes_moved, self.context_bytes_full),
                    self.context_bytes_full
                ),
            ),
            (
                "killed",
                format!("{} after {} tokens of the writer", self.killed_node, self.killed_after_tokens),
            ),
            ("writer finished on", format!("{} with {} tokens", self.writer_node_after, self.writer_tokens)),
            ("kill to first new token", format!("{} ms", self.failover_ms)),
            ("whole job", format!("{:.1} s", self.seconds)),
            ("result", file.display().to_string()),
        ];
        println!();
        for (name, value) in rows {
            println!("{name:<26} {value}");
        }
        println!();
    }
}

pub(crate) fn print_documents(documents: &Documents) {
    println!("{} documents in {} parts", documents.files, documents.parts.len());
    for (name, why) in &documents.skipped {
        println!("  skipped {name}: {why}");
    }
}
