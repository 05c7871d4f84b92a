//! A bound on what this node moves over one link: to and from one other node, with all transfers that it began there.
//!
//! Every chunk takes its time out of the link's clock before it goes (or, where it was pulled, before the next one is
//! read), so that transfers share the link and together keep to the bound. What was not used is not saved up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::NodeId;

/// When each link is free again. Pure: the time is an argument.
#[derive(Debug, Default)]
struct Links {
    free_us: BTreeMap<NodeId, u64>,
}

impl Links {
    /// Takes a link for so many bytes; answers how long the caller has to wait for its turn to be over.
    fn take(&mut self, node: NodeId, bytes: u64, bytes_second: u64, now_us: u64) -> u64 {
        let free_us = self.free_us.entry(node).or_default();
        *free_us = now_us.max(*free_us) + bytes.saturating_mul(1_000_000).div_ceil(bytes_second.max(1));
        *free_us - now_us
    }
}

/// The bound, if there is one. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LinkCap(Option<Arc<Capped>>);

#[derive(Debug)]
struct Capped {
    bytes_second: u64,
    began: Instant,
    links: Mutex<Links>,
}

impl LinkCap {
    /// Bytes a second on each link; 0: no bound.
    pub fn new(bytes_second: u64) -> LinkCap {
        let capped = || Capped { bytes_second, began: Instant::now(), links: Mutex::default() };
        LinkCap((bytes_second > 0).then(|| Arc::new(capped())))
    }

    /// Waits until so many bytes have had their time on the link.
    pub(crate) async fn pass(&self, node: NodeId, bytes: usize) {
        let Some(capped) = &self.0 else { return };
        let now_us = capped.began.elapsed().as_micros() as u64;
        let wait_us = {
            let mut links = capped.links.lock().expect("nothing panics while it holds the links");
            links.take(node, bytes as u64, capped.bytes_second, now_us)
        };
        tokio::time::sleep(Duration::from_micros(wait_us)).await;
    }

    /// What so many bytes take at the least.
    pub(crate) fn time_of(&self, bytes: usize) -> Duration {
        let bytes_second = self.0.as_ref().map_or(u64::MAX, |capped| capped.bytes_second);
        Duration::from_secs((bytes as u64).div_ceil(bytes_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_share_a_link_and_links_do_not_share() {
        let mut links = Links::default();
        let (one, two) = (NodeId(1), NodeId(2));
        assert_eq!(links.take(one, 1_000, 1_000, 0), 1_000_000);
        assert_eq!(links.take(one, 500, 1_000, 0), 1_500_000, "behind the first");
        assert_eq!(links.take(two, 500, 1_000, 0), 500_000);
        assert_eq!(links.take(one, 1_000, 1_000, 5_000_000), 1_000_000, "an idle time is not saved up");
        assert_eq!(links.take(one, 1, 1 << 40, 9_000_000), 1, "nothing is free");
    }

    #[test]
    fn no_bound_takes_no_time() {
        assert!(LinkCap::new(0).0.is_none());
        assert_eq!(LinkCap::new(0).time_of(1 << 30), Duration::from_secs(1));
        assert_eq!(LinkCap::new(1 << 20).time_of(10 << 20), Duration::from_secs(10));
    }
}
