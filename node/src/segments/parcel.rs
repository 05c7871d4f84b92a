//! Segments as chunks and back. What arrives is hostile until it is whole and fits its name.

use bytes::{Bytes, BytesMut};
use context::STORED_BYTES;
use proto::internal::v1::SegmentChunk;
use types::{ClusterId, Hash, ProjectName, limits::CHUNK_BYTES};

/// What came is not what was announced. The stream is of no use after it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ParcelError {
    #[error("a chunk of cluster {found} came to cluster {ours}; the nodes belong to two clusters")]
    OtherCluster { ours: ClusterId, found: String },
    #[error("a chunk of project {found:?} came into a stream of project {expected}")]
    OtherProject { expected: ProjectName, found: String },
    #[error("{0}")]
    Malformed(String),
    #[error("segment {0} does not have the bytes of its name; it is damaged, fetch it from another node")]
    WrongName(Hash),
}

fn malformed<T>(why: impl Into<String>) -> Result<T, ParcelError> {
    Err(ParcelError::Malformed(why.into()))
}

/// Reads a hash from the wire.
pub(super) fn hash(bytes: &[u8]) -> Result<Hash, ParcelError> {
    match bytes.try_into() {
        Ok(bytes) => Ok(Hash(bytes)),
        Err(_) => malformed(format!("a hash of {} bytes, expected 32", bytes.len())),
    }
}

/// Writes a hash to the wire.
pub(super) fn wire(hash: &Hash) -> Bytes {
    Bytes::copy_from_slice(&hash.0)
}

/// Checks that a message is for this cluster.
pub(super) fn check_cluster(ours: ClusterId, found: &[u8]) -> Result<(), ParcelError> {
    if found == ours.0 {
        return Ok(());
    }
    let found = <[u8; 16]>::try_from(found).map_or("(no id)".to_string(), |id| ClusterId(id).to_string());
    Err(ParcelError::OtherCluster { ours, found })
}

/// A segment as chunks, in order. The bytes are shared, not copied.
pub(super) fn cut(
    cluster: ClusterId,
    project: &ProjectName,
    hash: Hash,
    bytes: Bytes,
) -> impl Iterator<Item = SegmentChunk> + use<> {
    let (project, total) = (project.to_string(), bytes.len());
    (0..total).step_by(CHUNK_BYTES).map(move |offset| SegmentChunk {
        cluster_id: Bytes::copy_from_slice(&cluster.0),
        project: project.clone(),
        hash: wire(&hash),
        offset: offset as u64,
        total: total as u64,
        data: bytes.slice(offset..total.min(offset + CHUNK_BYTES)),
    })
}

/// Puts chunks together. Chunks of one segment must follow each other, as [`cut`] makes them.
pub(super) struct Assembler {
    cluster: ClusterId,
    project: ProjectName,
    partial: Option<Partial>,
}

struct Partial {
    hash: Hash,
    total: usize,
    bytes: BytesMut,
}

impl Assembler {
    pub(super) fn new(cluster: ClusterId, project: ProjectName) -> Self {
        Assembler { cluster, project, partial: None }
    }

    /// Adds a chunk; answers a segment when it is complete and fits its name.
    pub(super) fn add(&mut self, chunk: SegmentChunk) -> Result<Option<(Hash, Bytes)>, ParcelError> {
        check_cluster(self.cluster, &chunk.cluster_id)?;
        if chunk.project != self.project.as_str() {
            let found = chunk.project.chars().take(80).collect();
            return Err(ParcelError::OtherProject { expected: self.project.clone(), found });
        }
        let hash = hash(&chunk.hash)?;
        let mut partial = self.next(hash, &chunk)?;
        let have = partial.bytes.len();
        if chunk.offset != have as u64 || chunk.data.is_empty() || chunk.data.len() > partial.total - have {
            return malformed(format!(
                "a chunk of {} bytes at {} of segment {}, which has {have} of {} bytes",
                chunk.data.len(),
                chunk.offset,
                hash.short(),
                partial.total
            ));
        }
        if have + chunk.data.len() < partial.total {
            partial.bytes.extend_from_slice(&chunk.data);
            self.partial = Some(partial);
            return Ok(None);
        }
        self.complete(partial, chunk.data).map(Some)
    }

    /// The segment that a chunk belongs to: the open one, or a new one. Nothing is allocated for a length that
    /// is only announced.
    fn next(&mut self, hash: Hash, chunk: &SegmentChunk) -> Result<Partial, ParcelError> {
        match self.partial.take() {
            Some(partial) if partial.hash == hash && partial.total as u64 == chunk.total => Ok(partial),
            Some(partial) => malformed(format!("segment {} was not finished", partial.hash.short())),
            None if chunk.total == 0 || chunk.total > STORED_BYTES as u64 => {
                malformed(format!("a segment of {} bytes, 1 to {STORED_BYTES} are allowed", chunk.total))
            }
            None => Ok(Partial { hash, total: chunk.total as usize, bytes: BytesMut::new() }),
        }
    }

    fn complete(&self, mut partial: Partial, last: Bytes) -> Result<(Hash, Bytes), ParcelError> {
        // A segment of one chunk, the usual case, is not copied.
        let bytes = if partial.bytes.is_empty() {
            last
        } else {
            partial.bytes.extend_from_slice(&last);
            partial.bytes.freeze()
        };
        match context::verify(&self.project, partial.hash, &bytes) {
            Ok(()) => Ok((partial.hash, bytes)),
            Err(_) => Err(ParcelError::WrongName(partial.hash)),
        }
    }

    /// The stream has ended: nothing may be left over.
    pub(super) fn finish(self) -> Result<(), ParcelError> {
        match self.partial {
            Some(partial) => malformed(format!("the stream ended inside segment {}", partial.hash.short())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn project() -> ProjectName {
        ProjectName::parse("a").unwrap()
    }

    fn segment(bytes: usize) -> (Hash, Bytes) {
        let bytes = Bytes::from(vec![5; bytes]);
        (context::name(&project(), &bytes), bytes)
    }

    fn chunks(bytes: usize) -> Vec<SegmentChunk> {
        let (hash, bytes) = segment(bytes);
        cut(CLUSTER, &project(), hash, bytes).collect()
    }

    fn put_together(chunks: Vec<SegmentChunk>) -> Result<Vec<(Hash, Bytes)>, ParcelError> {
        let mut assembler = Assembler::new(CLUSTER, project());
        let mut whole = Vec::new();
        for chunk in chunks {
            whole.extend(assembler.add(chunk)?);
        }
        assembler.finish().map(|()| whole)
    }

    #[test]
    fn what_is_cut_is_put_together_again() {
        let sizes = [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES];
        let all = sizes.iter().flat_map(|&size| chunks(size)).collect::<Vec<_>>();
        assert_eq!(all.len(), 1 + 1 + 1 + 2 + 3);
        assert!(all.iter().all(|chunk| chunk.data.len() <= CHUNK_BYTES));
        assert_eq!(put_together(all).unwrap(), sizes.map(segment));
    }

    #[test]
    fn lies_are_refused() {
        type Lie = fn(&mut Vec<SegmentChunk>);
        let lies: [(&str, Lie); 11] = [
            ("another cluster", |c| c[1].cluster_id = Bytes::from_static(&[1; 16])),
            ("no cluster", |c| c[0].cluster_id = Bytes::new()),
            ("another project", |c| c[1].project = "b".into()),
            ("a short hash", |c| c[0].hash = Bytes::from_static(b"short")),
            ("a changed length", |c| c[1].total += 1),
            ("a huge length", |c| c[0].total = u64::MAX),
            ("no length", |c| c[0].total = 0),
            ("a gap", |c| drop(c.remove(1))),
            ("a lost end", |c| drop(c.pop())),
            ("an empty chunk", |c| c[1].data = Bytes::new()),
            ("a changed byte", |c| c[2].data = Bytes::from(vec![6; c[2].data.len()])),
        ];
        for (what, lie) in lies {
            let mut chunks = chunks(2 * CHUNK_BYTES + 10);
            lie(&mut chunks);
            assert!(put_together(chunks).is_err(), "{what}");
        }
        let mut mixed = chunks(2 * CHUNK_BYTES);
        mixed.insert(1, chunks(10).remove(0));
        assert!(matches!(put_together(mixed), Err(ParcelError::Malformed(_))));
    }
}
