//! Requests to the ledger that wait for an answer, over as many streams as it takes.

use bytes::Bytes;
use ledger::command::Command;
use ledger::reply::{Refusal, Reply};
use proto::internal::v1::{Request, Response};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, oneshot};

/// Requests that wait at the same time; more callers wait for a place. Each task has one at a time, so this is many
/// more than a node has tasks.
const REQUESTS_WAITING: usize = 1024;

pub(super) struct Outbox {
    requests: Mutex<Requests>,
    places: Semaphore,
    /// Something is there to send.
    wake: Notify,
}

#[derive(Default)]
struct Requests {
    last_id: u64,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    command: Bytes,
    sent: bool,
    answer: oneshot::Sender<Reply>,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox { requests: Mutex::default(), places: Semaphore::new(REQUESTS_WAITING), wake: Notify::new() }
    }
}

/// Takes a request out when its asker gives up.
struct GivenUp<'a>(&'a Outbox, u64);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

impl Outbox {
    /// At most this many messages are sent at the start of a stream.
    pub(super) const CAPACITY: usize = REQUESTS_WAITING;

    pub(super) async fn ask(&self, command: &Command) -> Reply {
        let _place = self.places.acquire().await.expect("the outbox is never closed");
        let (answer, answered) = oneshot::channel();
        let id = self.lock().add(types::encode(command).into(), answer);
        let _given_up = GivenUp(self, id);
        self.wake.notify_one();
        answered.await.expect("a waiting request is removed only by its answer or its asker")
    }

    /// What has to be sent now, oldest first; it counts as sent from here on.
    pub(super) fn take_unsent(&self) -> Vec<Request> {
        let mut requests = self.lock();
        let unsent = requests.waiting.iter_mut().filter(|(_, waiting)| !waiting.sent);
        unsent
            .map(|(&id, waiting)| {
                waiting.sent = true;
                Request { id, command: waiting.command.clone() }
            })
            .collect()
    }

    /// A new stream begins: everything unanswered goes out again.
    pub(super) fn send_all_again(&self) {
        self.lock().waiting.values_mut().for_each(|waiting| waiting.sent = false);
    }

    /// The outcome of this one is not known: ask again.
    pub(super) fn send_again(&self, id: u64) {
        if let Some(waiting) = self.lock().waiting.get_mut(&id) {
            waiting.sent = false;
            self.wake.notify_one();
        }
    }

    /// Gives an answer to whoever still waits for it.
    pub(super) fn answer(&self, response: &Response) {
        let reply = types::decode(&response.reply).unwrap_or_else(|error| {
            let why = format!("{error}; is the leader of another version?");
            Reply::Refused(Refusal::Invalid { what: "the leader's answer".into(), why })
        });
        if let Some(waiting) = self.lock().waiting.remove(&response.id) {
            // The asker may have given up in this very moment; that is its right.
            let _ = waiting.answer.send(reply);
        }
    }

    pub(super) async fn something_to_send(&self) {
        self.wake.notified().await;
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().expect("nothing panics while it holds the outbox")
    }
}

impl Requests {
    fn add(&mut self, command: Bytes, answer: oneshot::Sender<Reply>) -> u64 {
        self.last_id += 1;
        self.waiting.insert(self.last_id, Waiting { command, sent: false, answer });
        self.last_id
    }
}
