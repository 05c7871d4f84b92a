//! The cluster's client as the one who knows where the leader is.

use super::{FindLeader, ms};
use coordinator::Client;
use futures::future::BoxFuture;

/// How often a client that may hear of an election is asked.
const LOOK_MS: u64 = 100;

/// Finds the leader through the cluster's client, and tells it what the link learns.
pub struct ClientLeaders(pub Client);

impl FindLeader for ClientLeaders {
    fn find(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(self.0.leader_or_seed()))
    }

    fn moved(&self, from: String) -> BoxFuture<'_, String> {
        Box::pin(async move {
            loop {
                tokio::time::sleep(ms(LOOK_MS)).await;
                if let Some(address) = self.0.leader().filter(|address| *address != from) {
                    return address;
                }
            }
        })
    }

    fn found(&self, address: &str) {
        self.0.note_leader(address);
    }

    fn lost(&self, address: &str) {
        if self.0.leader().as_deref() == Some(address) {
            self.0.note_leader("");
        }
    }
}
