//! Chains, who keeps them, and heads.

use super::{Lines, Script, Words};
use ledger::command::Command;
use ledger::query::{Answer, Query};
use ledger::rows::{Chain, Kept};
use types::{Hash, NodeId, ProjectName};

impl Script {
    /// Looks for chains that too few keep, and remembers them as they are now.
    pub(super) fn short(&mut self, words: &Words<'_>) -> Lines {
        let query = |ended, after| Query::Short {
            holder: super::node(words.plain(0).unwrap_or_default()).unwrap_or_default(),
            gone: words.nodes("gone").ok().flatten().unwrap_or_default(),
            unproved: words.text("unproved") == Some("yes"),
            ended,
            after,
            limit: 1,
        };
        let mut lines = vec![];
        for ended in [false, true] {
            let (mut after, mut first) = (None, true);
            loop {
                let Answer::Short { rows, more, short, lost } = self.state.answer(&query(ended, after), None)
                else {
                    return Err("it answers with chains".into());
                };
                if std::mem::take(&mut first) {
                    lines
                        .push(format!("{} {short} short, {lost} lost", if ended { "ended" } else { "open" }));
                }
                after = rows.last().map(|row| row.chain.clone());
                lines.extend(rows.into_iter().map(|row| self.look_at(row)));
                if !more {
                    break;
                }
            }
        }
        Ok(lines)
    }

    fn look_at(&mut self, row: Kept) -> String {
        let name = self.chain_name(&row.chain);
        let keepers: Vec<String> = row.keepers.iter().map(NodeId::to_string).collect();
        self.looked.insert(name.clone(), row);
        format!("{name} kept by {}", keepers.join(","))
    }

    fn chain_name(&self, chain: &Chain) -> String {
        match chain {
            Chain::Agent { name, .. } => format!("agent:{name}"),
            Chain::Schedule { name, .. } => format!("schedule:{name}"),
            Chain::Head { path, .. } => path.clone(),
            Chain::Task { uid } => self.task_name(*uid),
        }
    }

    /// Says who keeps a chain now, as it was looked at.
    pub(super) fn move_home(&self, words: &Words<'_>) -> Result<Command, String> {
        let seen = self.looked.get(words.plain(0)?).ok_or("it was not looked at")?;
        Ok(Command::MoveHome {
            chain: seen.chain.clone(),
            was: seen.keepers.clone(),
            mark: seen.mark,
            home: words.nodes("on")?.unwrap_or_default(),
        })
    }

    pub(super) fn heads(&self) -> Lines {
        let query = Query::Heads { project: ProjectName::default(), prefix: String::new() };
        let Answer::Heads(rows) = self.state.answer(&query, None) else {
            return Err("it answers with heads".into());
        };
        let outlived: Vec<&str> = self.state.heads_outlived().map(|row| row.path.as_str()).collect();
        Ok(rows
            .iter()
            .map(|row| match outlived.contains(&row.path.as_str()) {
                true => format!("{} (its task is gone)", row.path),
                false => row.path.clone(),
            })
            .collect())
    }

    pub(super) fn move_head(&self, words: &Words<'_>) -> Result<Command, String> {
        Ok(Command::MoveHead {
            project: words.project()?,
            path: self.path(words)?,
            after: hash(words, "after"),
            head: hash(words, "to").ok_or("to=TEXT is missing")?,
            home: self.home(words)?,
            forget: vec![],
            request: words.request(),
        })
    }

    pub(super) fn drop_head(&self, words: &Words<'_>) -> Result<Command, String> {
        Ok(Command::DropHead {
            project: words.project()?,
            path: self.path(words)?,
            head: hash(words, "head").ok_or("head=TEXT is missing")?,
        })
    }

    /// `boards/t1` is the board of that task.
    fn path(&self, words: &Words<'_>) -> Result<String, String> {
        let path = words.plain(0)?;
        let (folder, name) = path.rsplit_once('/').ok_or("a path has a folder")?;
        Ok(self.task(name).map_or(path.to_string(), |uid| format!("{folder}/{uid}")))
    }
}

fn hash(words: &Words<'_>, key: &str) -> Option<Hash> {
    words.text(key).map(|text| Hash::of(text.as_bytes()))
}
