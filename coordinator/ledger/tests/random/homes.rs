//! Nodes that keep things are gone, and others say that they keep them now; heads end with their tasks.

use super::*;
use ledger::rows::{Chain, HeadRow, Kept};
use types::{Hash, NodeId};

fn projects() -> impl Iterator<Item = ProjectName> {
    let projects = PROJECTS.iter().map(|name| ProjectName::parse(name).unwrap());
    projects.chain([ProjectName::default()])
}

/// Enough for everything that random commands make.
const ALL: u32 = 1_000;

impl World {
    pub(super) fn homes(&mut self, a: u16, b: u16, c: u16) {
        match c % 4 {
            0 => self.own_head(a, b),
            1 => self.drop_head(a, b),
            _ => self.move_home(a, b, c),
        }
    }

    /// A board or a memory of a task, or of none.
    fn own_head(&mut self, a: u16, b: u16) {
        let uid = if b.is_multiple_of(3) { TaskUid { index: 1 << 40, position: 0 } } else { self.task(a) };
        let project = self.state.task(uid).map_or_else(ProjectName::default, |row| row.project.clone());
        let folder = if a.is_multiple_of(2) { "boards" } else { "memory/tasks" };
        let path = format!("{folder}/{uid}");
        let after = self.heads().into_iter().find(|row| row.path == path).map(|row| row.head);
        let request = RequestKey { request_id: format!("o{}", self.index), ..RequestKey::default() };
        let (head, home) = (Hash([b as u8; 32]), self.home(a));
        self.run(Command::MoveHead { project, path, after, head, home, forget: vec![], request });
    }

    fn heads(&self) -> Vec<HeadRow> {
        let all = projects().map(|project| {
            match self.state.answer(&Query::Heads { project, prefix: String::new() }, None) {
                Answer::Heads(rows) => rows,
                other => unreachable!("{other:?}"),
            }
        });
        all.flatten().collect()
    }

    /// Only what has outlived its task goes.
    fn drop_head(&mut self, a: u16, b: u16) {
        let rows = self.heads();
        let Some(row) = rows.get(a as usize % rows.len().max(1)).cloned() else { return };
        let outlived = self.state.heads_outlived().any(|other| *other == row);
        let head = if b.is_multiple_of(5) { Hash([255; 32]) } else { row.head };
        let right = head == row.head;
        let reply =
            self.run(Command::DropHead { project: row.project.clone(), path: row.path.clone(), head });
        assert_eq!(reply == Reply::Done, outlived && right, "{reply:?}");
        if outlived && right {
            self.kinds.insert("head dropped");
        }
        assert_eq!(self.heads().contains(&row), !(outlived && right));
    }

    /// One node that keeps things is gone; who is left looks for them, something may happen, and then the home moves.
    fn move_home(&mut self, a: u16, b: u16, c: u16) {
        let (holder, gone, ended) = (self.node(b), self.node(a), c.is_multiple_of(3));
        let rows = self.short(holder, &[gone], a.is_multiple_of(2), ended);
        let Some(row) = rows.get(b as usize % rows.len().max(1)).cloned() else { return };
        assert!(row.keepers.contains(&holder), "the holder keeps it");
        if c.is_multiple_of(5) {
            self.play((b as u8, c, a, b));
        }
        let home = if b.is_multiple_of(7) { self.home(c) } else { self.whole_home(holder, gone) };
        let same =
            self.kept(&row.chain).is_some_and(|now| (&now.keepers, now.mark) == (&row.keepers, row.mark));
        let (chain, was, mark) = (row.chain.clone(), row.keepers.clone(), row.mark);
        let reply = self.run(Command::MoveHome { chain: chain.clone(), was, mark, home: home.clone() });
        let now = self.kept(&chain);
        if reply == Reply::Done {
            self.kinds.insert("home moved");
            let now = now.expect("what has a home has a row");
            assert!(now.keepers.iter().all(|node| home.contains(node)), "{now:?}");
            assert!(same || now.keepers == home, "a stale look moved a home");
        }
    }

    fn short(&self, holder: NodeId, gone: &[NodeId], unproved: bool, ended: bool) -> Vec<Kept> {
        let (gone, after) = (gone.to_vec(), None);
        let query = Query::Short { holder, gone, unproved, ended, after, limit: ALL };
        match self.state.answer(&query, None) {
            Answer::Short { rows, more: false, short, .. } if short == rows.len() as u64 => rows,
            other => panic!("{other:?}"),
        }
    }

    fn whole_home(&self, holder: NodeId, gone: NodeId) -> Vec<NodeId> {
        let others = self.state.nodes().map(|row| row.id).filter(|id| *id != holder && *id != gone);
        std::iter::once(holder).chain(others).take(2).collect()
    }

    /// A chain's row as pages show it: all pages together are every row once.
    fn kept(&self, chain: &Chain) -> Option<Kept> {
        let node = NodeId(1);
        let mut found = vec![];
        for project in projects() {
            for homed in [true, false] {
                let mut after = None;
                loop {
                    let query = Query::Kept { project: project.clone(), node, homed, after, limit: 3 };
                    let Answer::Kept { rows, more } = self.state.answer(&query, None) else {
                        unreachable!("it answers with what is kept")
                    };
                    assert!(
                        rows.iter().all(|row| row.home.contains(&node) == homed && row.project == project)
                    );
                    after = rows.last().map(|row| row.chain.clone());
                    found.extend(rows);
                    if !more {
                        break;
                    }
                }
            }
        }
        let mut chains: Vec<_> = found.iter().map(|row| row.chain.clone()).collect();
        chains.sort();
        chains.dedup();
        assert_eq!(chains.len(), found.len(), "a row twice");
        assert!(found.len() >= self.state.tasks().count());
        found.into_iter().find(|row| row.chain == *chain)
    }
}
