//! Small pushes to one node share calls: while one is on its way, those that come wait together for the next. One call
//! for each would cost more than the bytes do.

use super::HASHES_PER_REQUEST;
use super::peers::PeerError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use types::{Hash, NodeId, ProjectName};

type Segments = Vec<(Hash, Bytes)>;

/// Where a push goes: a call carries segments of one project.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) node: NodeId,
    pub(super) project: ProjectName,
}

/// A push that waits, and who waits for it.
struct Waiting {
    segments: Segments,
    done: oneshot::Sender<Result<(), PeerError>>,
}

/// The lanes that are in use.
#[derive(Clone, Default)]
pub(super) struct Lanes(Arc<Mutex<BTreeMap<Lane, Vec<Waiting>>>>);

/// Pushes that go together.
pub(super) struct Together {
    pub(super) segments: Segments,
    waiting: Vec<oneshot::Sender<Result<(), PeerError>>>,
}

/// The outcome of a push that was given to a lane.
pub(super) type Outcome = oneshot::Receiver<Result<(), PeerError>>;

impl Lanes {
    /// Puts a push into its lane. True: nobody drives there, so the caller must see to it that someone does.
    pub(super) fn join(&self, lane: &Lane, segments: Segments) -> (bool, Outcome) {
        let (done, outcome) = oneshot::channel();
        let mut lanes = self.0.lock().expect("nothing panics while it holds the lanes");
        let idle = !lanes.contains_key(lane);
        lanes.entry(lane.clone()).or_default().push(Waiting { segments, done });
        (idle, outcome)
    }

    /// What goes next: as much of what waits as one call carries. None: nothing waits, and the lane is idle again.
    pub(super) fn next(&self, lane: &Lane) -> Option<Together> {
        let mut lanes = self.0.lock().expect("nothing panics while it holds the lanes");
        let waiting = lanes.get_mut(lane)?;
        if waiting.is_empty() {
            lanes.remove(lane);
            return None;
        }
        let mut count = 0;
        let fits = waiting.iter().take_while(|push| {
            count += push.segments.len();
            count <= HASHES_PER_REQUEST
        });
        let fits = fits.count().max(1);
        let mut together = Together { segments: Vec::new(), waiting: Vec::new() };
        for push in waiting.drain(..fits) {
            together.segments.extend(push.segments);
            together.waiting.push(push.done);
        }
        Some(together)
    }
}

impl Together {
    /// Tells all of them how it ended. One that went away does not need to know.
    pub(super) fn ended(self, outcome: &Result<(), PeerError>) {
        self.waiting.into_iter().for_each(|done| drop(done.send(outcome.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane { node: NodeId(2), project: ProjectName::parse("a").unwrap() }
    }

    fn push(count: usize) -> Segments {
        (0..count).map(|n| (Hash::of(&n.to_le_bytes()), Bytes::from_static(b"x"))).collect()
    }

    #[tokio::test]
    async fn what_comes_meanwhile_goes_together() {
        let lanes = Lanes::default();
        let (idle, first) = lanes.join(&lane(), push(1));
        assert!(idle);
        let under_way = lanes.next(&lane()).unwrap();
        let later: Vec<_> = (0..3).map(|_| lanes.join(&lane(), push(2))).collect();
        assert!(later.iter().all(|(idle, _)| !idle));
        under_way.ended(&Ok(()));
        assert!(first.await.unwrap().is_ok());
        let together = lanes.next(&lane()).unwrap();
        assert_eq!(together.segments.len(), 6);
        together.ended(&Err(PeerError::NoCluster));
        for (_, outcome) in later {
            assert!(matches!(outcome.await.unwrap(), Err(PeerError::NoCluster)));
        }
        assert!(lanes.next(&lane()).is_none());
        assert!(lanes.join(&lane(), push(1)).0, "it is idle again");
    }

    #[test]
    fn a_call_carries_only_so_much() {
        let lanes = Lanes::default();
        let _outcomes: Vec<_> = (0..3).map(|_| lanes.join(&lane(), push(HASHES_PER_REQUEST / 2))).collect();
        let sizes: Vec<usize> =
            std::iter::from_fn(|| lanes.next(&lane())).map(|together| together.segments.len()).collect();
        assert_eq!(sizes, [HASHES_PER_REQUEST, HASHES_PER_REQUEST / 2]);
    }
}
