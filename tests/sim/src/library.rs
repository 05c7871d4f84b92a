//! What agents read and write: definitions by their revision, and the segments of every project. A segment is here
//! before the command that names it is proposed; that stores keep what they promised is tested elsewhere.

use context::Segment;
use mind::{Definition, StepRecord};
use std::collections::BTreeMap;
use types::{Hash, ProjectName};

#[derive(Default)]
pub(crate) struct Library {
    definitions: BTreeMap<Hash, Definition>,
    segments: BTreeMap<Hash, Vec<u8>>,
}

impl Library {
    pub(crate) fn define(&mut self, text: &str) -> Definition {
        let definition = Definition::parse(text).expect("the simulator's definitions are good");
        self.definitions.insert(definition.revision(), definition.clone());
        definition
    }

    pub(crate) fn definition(&self, revision: Hash) -> Definition {
        self.definitions.get(&revision).expect("tasks pin revisions that were applied").clone()
    }

    pub(crate) fn keep(&mut self, segments: impl IntoIterator<Item = (Hash, Vec<u8>)>) {
        self.segments.extend(segments);
    }

    pub(crate) fn segment(&self, project: &ProjectName, hash: Hash) -> Result<Segment, String> {
        let bytes = self.segments.get(&hash).ok_or(format!("segment {hash} is nowhere"))?;
        context::open(project, hash, bytes).map_err(|error| error.to_string())
    }

    /// The journal behind a head, the oldest record first. Every name must be true and every record there.
    pub(crate) fn journal(
        &self,
        project: &ProjectName,
        head: Option<Hash>,
    ) -> Result<Vec<(Hash, StepRecord)>, String> {
        let (mut records, mut next) = (vec![], head);
        while let Some(hash) = next {
            let bytes = self.segments.get(&hash).ok_or(format!("record {hash} is nowhere"))?;
            let record = StepRecord::open(project, hash, bytes).map_err(|error| error.to_string())?;
            next = record.prev;
            records.push((hash, record));
        }
        records.reverse();
        Ok(records)
    }
}
