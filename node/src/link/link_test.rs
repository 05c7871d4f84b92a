//! The link against a leader that a test plays by hand.

use super::clock::{SystemClock, tests::HandClock};
use super::dial::{Dial, Inbound};
use super::*;
use futures::StreamExt;
use ledger::command::Command;
use ledger::rows::{InputRef, Seldom};
use proto::internal::v1::leader_message::Body as ToNode;
use proto::internal::v1::node_message::Body as FromNode;
use proto::internal::v1::{
    Assignment, Beat, BeatAck, FullSet, Hello, LeaderMessage, Moved, NodeMessage, Request, Response, Revoke,
};
use std::sync::atomic::AtomicU64 as Number;
use tokio_stream::wrappers::ReceiverStream;
use types::{Class, TaskState};

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(5);

const TIMES: LinkTimes =
    LinkTimes { renew_ms: 20, silence_ms: 200, attach_ms: 200, retry_ms: 5, retry_max_ms: 20 };

/// Hands every attached stream to the test.
struct Switchboard(mpsc::Sender<Leader>);

/// One attached stream, seen from the leader's side.
struct Leader {
    address: String,
    heard: mpsc::Receiver<NodeMessage>,
    say: mpsc::Sender<Result<LeaderMessage, String>>,
}

impl Dial for Switchboard {
    fn attach(
        &self,
        address: &str,
        outbound: mpsc::Receiver<NodeMessage>,
    ) -> BoxFuture<'static, Result<Inbound, String>> {
        let (say, said) = mpsc::channel(64);
        let leader = Leader { address: address.into(), heard: outbound, say };
        let streams = self.0.clone();
        Box::pin(async move {
            streams.send(leader).await.map_err(|_| "the test is over".to_string())?;
            Ok(ReceiverStream::new(said).boxed())
        })
    }
}

struct Still;

impl Vitals for Still {
    fn leases(&self) -> Vec<LeaseName> {
        vec![held()]
    }
    fn beat(&self) -> BeatFacts {
        let engine = EngineFacts { model: "m".into(), window: 512, ..Default::default() };
        BeatFacts { running: 1, engines: vec![engine], segments: 3, ..Default::default() }
    }
}

fn held() -> LeaseName {
    let epoch = Epoch { incarnation: 1, index: 9, position: 0 };
    LeaseName { project: ProjectName::default(), task: TaskUid { index: 8, position: 0 }, epoch }
}

struct Bench {
    link: Link,
    news: mpsc::Receiver<News>,
    streams: mpsc::Receiver<Leader>,
    leader: watch::Sender<Option<String>>,
}

fn bench_with(clock: Arc<dyn Clock>) -> Bench {
    let (streams_in, streams) = mpsc::channel(8);
    let leader = watch::Sender::new(Some("first:1".to_string()));
    let seams = LinkSeams {
        leaders: Arc::new(leader.subscribe()),
        dial: Arc::new(Switchboard(streams_in)),
        vitals: Arc::new(Still),
        clock,
    };
    let config = LinkConfig {
        cluster: ClusterId([1; 16]),
        node: NodeId(4),
        boot_id: [2; 16],
        version: "test".into(),
        slots: 3,
        times: TIMES,
    };
    let (link, news) = Link::start(config, seams);
    Bench { link, news, streams, leader }
}

fn bench() -> Bench {
    bench_with(Arc::new(SystemClock::default()))
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}

impl Bench {
    async fn stream(&mut self) -> Leader {
        soon("an attach", self.streams.recv()).await.unwrap()
    }

    /// Attaches, and takes the node's hello.
    async fn attached(&mut self) -> (Leader, Hello) {
        let mut leader = self.stream().await;
        let FromNode::Hello(hello) = leader.hear().await else { panic!("a stream begins with a hello") };
        leader.say(ToNode::FullSet(FullSet::default())).await;
        // The lease may have come or gone since the last stream.
        while !matches!(self.hear().await, News::FullSet { .. }) {}
        (leader, hello)
    }

    async fn hear(&mut self) -> News {
        soon("news", self.news.recv()).await.unwrap()
    }
}

impl Leader {
    async fn hear(&mut self) -> FromNode {
        soon("a message of the node", self.heard.recv()).await.expect("the stream is open").body.unwrap()
    }

    async fn say(&self, body: ToNode) {
        self.say.send(Ok(LeaderMessage { body: Some(body) })).await.unwrap();
    }

    async fn beat(&mut self) -> Beat {
        loop {
            if let FromNode::Beat(beat) = self.hear().await {
                return beat;
            }
        }
    }

    /// The next request; beats are answered on the way.
    async fn request(&mut self) -> Request {
        loop {
            match self.hear().await {
                FromNode::Request(request) => return request,
                FromNode::Beat(beat) => self.ack(beat.sequence, 3_000).await,
                FromNode::Hello(_) => panic!("a second hello"),
            }
        }
    }

    async fn ack(&self, sequence: u64, lease_ms: u64) {
        let ack = BeatAck { sequence, lease_ms, wall_ms: 0, destinations: vec![] };
        self.say(ToNode::BeatAck(ack)).await;
    }

    async fn answer(&self, request: &Request, reply: &Reply) {
        let reply = types::encode(reply).into();
        self.say(ToNode::Response(Response { id: request.id, reply, unknown: String::new() })).await;
    }
}

fn command() -> Command {
    Command::NodeLost { node: NodeId(77) }
}

fn asked(link: &Link) -> tokio::task::JoinHandle<Reply> {
    let link = link.clone();
    tokio::spawn(async move { link.request(command()).await })
}

#[tokio::test]
async fn a_hello_says_everything_and_beats_follow_the_full_set() {
    let mut bench = bench();
    let mut leader = bench.stream().await;
    let FromNode::Hello(hello) = leader.hear().await else { panic!("a stream begins with a hello") };
    assert_eq!((hello.node_id, hello.slots, hello.engines[0].window), (4, 3, 512));
    assert_eq!(hello.leases[0].task, held().task.to_string());
    assert_eq!(hello.leases[0].epoch, held().epoch.to_string());
    assert!(!bench.link.observe().lease_valid);
    let silence = tokio::time::timeout(Duration::from_millis(60), leader.heard.recv()).await;
    assert!(silence.is_err(), "nothing renews the lease before the full set is known");
    leader.say(ToNode::FullSet(FullSet::default())).await;
    let beat = leader.beat().await;
    assert_eq!((beat.running, beat.segments), (1, 3));
    leader.ack(beat.sequence, 3_000).await;
    bench.hear().await;
    assert_eq!(bench.hear().await, News::LeaseBack);
    assert!(bench.link.lease().valid());
    assert_eq!(bench.link.observe().leader.as_deref(), Some("first:1"));
}

#[tokio::test]
async fn news_come_as_values() {
    let mut bench = bench();
    let (leader, _) = bench.attached().await;
    leader.say(ToNode::Assignment(Assignment { task: types::encode(&row()).into() })).await;
    assert_eq!(bench.hear().await, News::Assigned(Box::new(row())));
    let LeaseName { project, task, epoch } = held();
    let (project, task, epoch) = (project.to_string(), task.to_string(), epoch.to_string());
    leader.say(ToNode::Revoke(Revoke { project, task, epoch })).await;
    assert_eq!(bench.hear().await, News::Revoked(held()));
    // A leader that makes no sense is left.
    leader.say(ToNode::Assignment(Assignment { task: b"nonsense".to_vec().into() })).await;
    bench.attached().await;
}

#[tokio::test]
async fn a_request_survives_unknown_outcomes_and_leaders() {
    let mut bench = bench();
    let (mut leader, _) = bench.attached().await;
    let asking = asked(&bench.link);
    let first = leader.request().await;
    assert_eq!(types::decode::<Command>(&first.command).unwrap(), command());
    let unknown = "no quorum".to_string();
    leader.say(ToNode::Response(Response { id: first.id, reply: Default::default(), unknown })).await;
    assert_eq!(leader.request().await, first, "asked again, the same");
    bench.leader.send_replace(Some("second:2".into()));
    let (mut second, _) = bench.attached().await;
    assert_eq!(second.address, "second:2");
    let again = second.request().await;
    assert_eq!(again, first);
    second.answer(&again, &Reply::Done).await;
    assert_eq!(soon("the answer", asking).await.unwrap(), Reply::Done);
    assert_eq!(bench.link.observe().requests_waiting, 0);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_not_sent_again() {
    let mut bench = bench();
    let (mut leader, _) = bench.attached().await;
    let given_up = asked(&bench.link);
    let first = leader.request().await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    drop(leader);
    let (mut leader, _) = bench.attached().await;
    let _asking = asked(&bench.link);
    assert_ne!(leader.request().await.id, first.id);
}

#[tokio::test]
async fn a_moved_leader_is_followed_at_once() {
    let mut bench = bench();
    let leader = bench.stream().await;
    leader.say(ToNode::Moved(Moved { leader_addr: "third:3".into() })).await;
    let before = tokio::time::Instant::now();
    assert_eq!(bench.stream().await.address, "third:3");
    assert!(before.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn a_silent_or_refusing_leader_is_left_and_tried_again() {
    let mut bench = bench();
    let (_silent, _) = bench.attached().await;
    let (leader, _) = bench.attached().await;
    leader.say.send(Err("going down".into())).await.unwrap();
    bench.attached().await;
    assert_eq!(bench.link.observe().attaches, 3);
}

#[tokio::test]
async fn a_lease_that_ends_is_told_and_everything_is_compared_anew() {
    let clock = Arc::new(HandClock(Number::new(1_000)));
    let mut bench = bench_with(clock.clone());
    let (mut leader, _) = bench.attached().await;
    let beat = leader.beat().await;
    leader.ack(beat.sequence, 100).await;
    assert_eq!(bench.hear().await, News::LeaseBack);
    // The process stands still for ten seconds; then an old answer arrives.
    clock.0.store(11_000, std::sync::atomic::Ordering::SeqCst);
    let (mut leader, _) = bench.attached_after_lease_end().await;
    assert!(!bench.link.lease().valid());
    let beat = leader.beat().await;
    leader.ack(beat.sequence, 3_000).await;
    assert_eq!(bench.hear().await, News::LeaseBack);
    assert!(bench.link.lease().valid());
}

impl Bench {
    /// Like `attached`; the end of the lease may be told before or after the full set.
    async fn attached_after_lease_end(&mut self) -> (Leader, Hello) {
        let mut leader = self.stream().await;
        let FromNode::Hello(hello) = leader.hear().await else { panic!("a stream begins with a hello") };
        leader.say(ToNode::FullSet(FullSet::default())).await;
        let told = [self.hear().await, self.hear().await];
        assert!(
            told.contains(&News::LeaseEnded) && told.iter().any(|news| matches!(news, News::FullSet { .. }))
        );
        (leader, hello)
    }
}

#[tokio::test]
async fn the_link_ends_with_its_last_handle() {
    let mut bench = bench();
    let (mut leader, _) = bench.attached().await;
    drop(bench.link);
    soon("the end of the stream", async { while leader.heard.recv().await.is_some() {} }).await;
}

fn row() -> TaskRow {
    TaskRow {
        uid: TaskUid { index: 5, position: 0 },
        agent: "a".into(),
        model: "m".into(),
        revision: Hash::of(b"r").into(),
        definition: Hash::of(b"d").into(),
        inputs: vec![InputRef { name: "i".into(), segment: Hash::of(b"i"), bytes: 1 }].into(),
        class: Class::Batch,
        priority: 5,
        author: "me".into(),
        created_ms: 1,
        state: TaskState::Running,
        home: vec![NodeId(4)].into(),
        sequence: 1,
        rare: Seldom { node: Some(NodeId(4)), epoch: Some(held().epoch), ..Seldom::default() }.into(),
        ..TaskRow::empty()
    }
}
