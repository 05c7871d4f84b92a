//! One attached stream after another.

use super::outbox::Outbox;
use super::{News, Shared, ms, wire};
use futures::StreamExt;
use proto::internal::v1::{LeaderMessage, NodeMessage, leader_message};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// Hints of "the leader is there" that are followed without a pause; two nodes that point at each other get one.
const HOPS: u32 = 3;

/// Why a stream ended.
#[derive(Debug)]
enum End {
    /// The leader is elsewhere, at this address when it was told.
    Moved(Option<String>),
    Lost(String),
    /// The node's lease ended under the stream: the two sides must compare everything first.
    LeaseOver,
    /// Nobody takes the news any more: the node goes down.
    Deaf,
}

/// Attaches to whoever leads, again and again.
pub(super) async fn stay_attached(shared: Arc<Shared>, news: mpsc::Sender<News>) {
    let times = shared.config.times;
    let mut hint: Option<String> = None;
    let mut hops = 0;
    let mut wait_ms = times.retry_ms;
    loop {
        let leader = match hint.take() {
            Some(address) => Some(address),
            None => shared.seams.leaders.find().await,
        };
        if let Some(address) = leader {
            let before = shared.attaches.load(Ordering::Relaxed);
            let end = attach(&shared, &news, &address).await;
            shared.attached.send_replace(None);
            if shared.attaches.load(Ordering::Relaxed) > before {
                (wait_ms, hops) = (times.retry_ms, 0);
            }
            match end {
                End::Deaf => return,
                End::Moved(Some(elsewhere)) if elsewhere != address => {
                    tracing::info!(from = %address, to = %elsewhere, "the leader moved");
                    hint = Some(elsewhere);
                }
                End::Moved(_) => tracing::debug!(%address, "the leader moved, nobody knows where to yet"),
                End::LeaseOver => {
                    tracing::warn!(%address, "the node's lease ended; comparing what is held");
                    hint = Some(address);
                }
                End::Lost(why) => {
                    tracing::info!(%address, why, "no link to the leader; attaching again");
                    shared.seams.leaders.lost(&address);
                }
            }
        }
        hops += 1;
        if hint.is_some() && hops < HOPS {
            continue;
        }
        sleep(ms(wait_ms)).await;
        wait_ms = (wait_ms * 2).min(times.retry_max_ms);
    }
}

async fn attach(shared: &Shared, news: &mpsc::Sender<News>, address: &str) -> End {
    // Room for every waiting request at once, for the hello, and for minutes of beats: a full queue is a dead stream.
    let (outbound, queue) = mpsc::channel(Outbox::CAPACITY + 256);
    let mut session =
        Session { shared, news, outbound, beats: 0, ready: false, held: false, again: VecDeque::new() };
    let begun = session.begin();
    let dialled = timeout(ms(shared.config.times.attach_ms), shared.seams.dial.attach(address, queue)).await;
    let inbound = match (begun, dialled) {
        (Err(end), _) => return end,
        (Ok(()), Ok(Ok(inbound))) => inbound,
        (Ok(()), Ok(Err(why))) => return End::Lost(why),
        (Ok(()), Err(_)) => return End::Lost("no answer to the attach".into()),
    };
    session.run(address, inbound).await
}

struct Session<'a> {
    shared: &'a Shared,
    news: &'a mpsc::Sender<News>,
    outbound: mpsc::Sender<NodeMessage>,
    beats: u64,
    /// The full set was heard: from here on the lease may be renewed.
    ready: bool,
    /// The node's lease was in force at some time of this stream.
    held: bool,
    /// Requests of unknown outcome, and when to ask again.
    again: VecDeque<(Instant, u64)>,
}

impl Session<'_> {
    /// Says who we are and what we hold. Requests follow once the leader has answered, see `hear`.
    fn begin(&mut self) -> Result<(), End> {
        let Shared { config, seams, .. } = self.shared;
        self.shared.lease.forget_beats();
        let engines = seams.vitals.beat().engines;
        self.say(wire::hello(config, seams.vitals.leases(), engines, seams.clock.wall_ms()))
    }

    async fn run(&mut self, address: &str, mut inbound: super::dial::Inbound) -> End {
        let times = self.shared.config.times;
        let mut renew = interval(ms(times.renew_ms));
        renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut moved = self.shared.seams.leaders.moved(address.to_string());
        loop {
            let step = tokio::select! {
                message = inbound.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(message)) => self.hear(message, address).await,
                        Some(Err(why)) => Err(End::Lost(why)),
                        None => Err(End::Lost("the leader closed the stream".into())),
                    }
                }
                _ = renew.tick() => self.renew(),
                () = self.shared.outbox.something_to_send() => self.send_requests(),
                () = until(self.again.front().map(|(when, _)| *when)) => self.ask_again(),
                elsewhere = &mut moved => Err(End::Moved(Some(elsewhere))),
                () = sleep_until(heard + ms(times.silence_ms)) => Err(End::Lost("the leader is silent".into())),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn hear(&mut self, message: LeaderMessage, address: &str) -> Result<(), End> {
        use leader_message::Body;
        let Some(body) = message.body else { return Ok(()) };
        let news = match body {
            Body::FullSet(set) => {
                // Only now may the lease come back: the agents that lost theirs hear of it first.
                let news = wire::full_set(set);
                self.tell(news).await?;
                return self.become_ready(address);
            }
            Body::BeatAck(ack) => {
                self.shared.lease.beat_answered(ack.sequence, ack.lease_ms);
                let vitals = &self.shared.seams.vitals;
                ack.destinations.iter().for_each(|part| vitals.leave(&part.name, part.ceiling));
                self.held |= self.shared.lease.valid();
                self.shared.skew.compare(self.shared.seams.clock.wall_ms(), ack.wall_ms);
                return Ok(());
            }
            Body::Response(response) if response.unknown.is_empty() => {
                self.shared.outbox.answer(&response);
                return Ok(());
            }
            Body::Response(response) => {
                tracing::debug!(why = response.unknown, "a request of unknown outcome; asking again");
                self.again.push_back((Instant::now() + ms(self.shared.config.times.retry_ms), response.id));
                return Ok(());
            }
            Body::Recall(recall) => {
                self.shared.seams.vitals.recall(recall.answer);
                return Ok(());
            }
            Body::Moved(moved) => {
                return Err(End::Moved(Some(moved.leader_addr).filter(|it| !it.is_empty())));
            }
            Body::Assignment(assignment) => wire::assigned(&assignment),
            Body::Cancel(cancel) => wire::cancel(&cancel),
            Body::Revoke(revoke) => wire::revoked(&revoke),
        };
        self.tell(news).await
    }

    fn become_ready(&mut self, address: &str) -> Result<(), End> {
        if self.ready {
            return Ok(());
        }
        self.ready = true;
        self.shared.attaches.fetch_add(1, Ordering::Relaxed);
        self.shared.attached.send_replace(Some(address.to_string()));
        self.shared.seams.leaders.found(address);
        tracing::info!(%address, "attached to the leader");
        self.shared.outbox.send_all_again();
        self.send_requests()?;
        self.renew()
    }

    async fn tell(&self, news: Result<News, String>) -> Result<(), End> {
        match news {
            Ok(news) => self.news.send(news).await.map_err(|_| End::Deaf),
            // A leader that we do not understand is of no use; another one, or another try, may be.
            Err(why) => Err(End::Lost(why)),
        }
    }

    /// A beat, unless the lease ended under this stream.
    fn renew(&mut self) -> Result<(), End> {
        if !self.ready {
            return Ok(());
        }
        if self.held && !self.shared.lease.valid() {
            return Err(End::LeaseOver);
        }
        self.beats += 1;
        self.shared.lease.beat_sent(self.beats);
        let facts = self.shared.seams.vitals.beat();
        self.say(wire::beat(self.beats, facts, self.shared.seams.clock.wall_ms()))
    }

    fn send_requests(&mut self) -> Result<(), End> {
        if !self.ready {
            return Ok(());
        }
        let requests = self.shared.outbox.take_unsent();
        requests.into_iter().try_for_each(|request| self.say(wire::request(request)))
    }

    fn ask_again(&mut self) -> Result<(), End> {
        if let Some((_, id)) = self.again.pop_front() {
            self.shared.outbox.send_again(id);
        }
        Ok(())
    }

    fn say(&self, message: NodeMessage) -> Result<(), End> {
        self.outbound.try_send(message).map_err(|_| End::Lost("the stream is stuck".into()))
    }
}

/// A moment, or never.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
