//! Names of traces and spans, computed: every node comes to the same, and one span sent twice has one name.

use super::span::{SpanId, TraceId};
use ledger::rows::TaskRow;
use types::{ClusterId, Epoch, Hash, NodeId, TaskUid};

/// The label that carries a caller's context, in the form of the W3C's `traceparent` header. Children inherit it.
pub(crate) const LABEL: &str = "quorate.traceparent";

/// A caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    /// False: the caller keeps no trace, and so nobody does.
    pub(crate) sampled: bool,
}

impl Caller {
    /// Reads `00-TRACE-SPAN-FLAGS`; none for anything else.
    pub(crate) fn parse(header: &str) -> Option<Caller> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let known = version == "00" && parts.next().is_none();
        let later = version != "00" && version != "ff" && hex::<1>(version).is_some();
        let (trace, span, [flags]) = (hex::<16>(trace)?, hex::<8>(span)?, hex::<1>(flags)?);
        let named = trace != [0; 16] && span != [0; 8];
        let caller = Caller { trace: TraceId(trace), span: SpanId(span), sampled: flags & 1 == 1 };
        (named && (known || later)).then_some(caller)
    }

    fn of(row: &TaskRow) -> Option<Caller> {
        let label = row.labels.iter().find(|(key, _)| **key == *LABEL)?;
        Caller::parse(&label.1)
    }
}

/// As the header says it.
impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        write!(f, "00-{}-{}-0{}", digits(&self.trace.0), digits(&self.span.0), u8::from(self.sampled))
    }
}

/// Lower-case digits only, as the header has them.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Makes the names of one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    cluster: ClusterId,
}

impl Ids {
    pub(crate) fn of(cluster: ClusterId) -> Ids {
        Ids { cluster }
    }

    /// Where a task's spans belong, given the oldest of its ancestors. None where its caller keeps no trace.
    pub(crate) fn place(self, row: &TaskRow, root: TaskUid) -> Option<Place> {
        let caller = Caller::of(row);
        let trace = match caller {
            Some(Caller { sampled: false, .. }) => return None,
            Some(caller) => caller.trace,
            None => TraceId(self.hash("trace", root, &[])),
        };
        let above = above(row).map(|parent| self.task(parent));
        let parent = above.or(caller.map(|caller| caller.span));
        Some(Place { ids: self, trace, task: row.uid, parent, caller: caller.map(|caller| caller.span) })
    }

    /// A request that is no task: a trace of its own, and its span. `number` tells it from others of that moment.
    pub(crate) fn request(self, node: NodeId, begun_ns: u64, number: u64) -> (TraceId, SpanId) {
        let more = [node.0, begun_ns, number].map(u64::to_le_bytes).concat();
        let hash = Hash::of_parts(&[b"request", &self.cluster.0, &more]).0;
        let (trace, span) = hash.split_at(16);
        (
            TraceId(trace.try_into().expect("16 of 32 bytes")),
            SpanId(span[..8].try_into().expect("8 of 16 bytes")),
        )
    }

    fn task(self, task: TaskUid) -> SpanId {
        SpanId(self.hash("task", task, &[]))
    }

    fn hash<const N: usize>(self, what: &str, task: TaskUid, more: &[u64]) -> [u8; N] {
        let more: Vec<u8> = more.iter().flat_map(|number| number.to_le_bytes()).collect();
        let hash = Hash::of_parts(&[what.as_bytes(), &self.cluster.0, task.to_string().as_bytes(), &more]);
        hash.0[..N].try_into().expect("a hash is longer than any id")
    }
}

/// The task from which another one comes: its parent, or the one that it goes on from.
pub(crate) fn above(row: &TaskRow) -> Option<TaskUid> {
    row.origin.map(|origin| origin.parent).or(row.fork.as_ref().map(|fork| fork.task))
}

/// One task's place in its trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    ids: Ids,
    pub(crate) trace: TraceId,
    pub(crate) task: TaskUid,
    /// Of the task's own span.
    pub(crate) parent: Option<SpanId>,
    /// The span of whoever created the tree, where it said so.
    pub(crate) caller: Option<SpanId>,
}

impl Place {
    /// The task's own span.
    pub(crate) fn span(&self) -> SpanId {
        self.ids.task(self.task)
    }

    /// One lease of the task.
    pub(crate) fn lease(&self, epoch: Epoch) -> SpanId {
        self.id("lease", &numbers(epoch))
    }

    pub(crate) fn step(&self, step: u64) -> SpanId {
        self.id("step", &[step])
    }

    /// Something that happened once, at this time: `what` and the numbers tell it from others of that moment.
    pub(crate) fn moment(&self, what: &str, epoch: Epoch, more: &[u64]) -> SpanId {
        let numbers: Vec<u64> = numbers(epoch).into_iter().chain(more.iter().copied()).collect();
        self.id(what, &numbers)
    }

    fn id(&self, what: &str, more: &[u64]) -> SpanId {
        SpanId(self.ids.hash(what, self.task, more))
    }
}

fn numbers(epoch: Epoch) -> [u64; 3] {
    [epoch.incarnation.into(), epoch.index, epoch.position.into()]
}
