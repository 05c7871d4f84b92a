//! Random traffic against a model that knows only what was ever put in and what was forgotten.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Call {
    Demote(u32),
    Keep(u32),
    Want(u32),
    Pump,
    Fetch(u32),
    Prefetch(u32),
    Copy(u32),
    Cancel(u32),
    Touch(u32),
    Rank(u32, u64),
    Forget(u32),
    ForgetProject(u8),
    Poll,
    Wait,
    Restart,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let number = 0..24_u32;
    let call = prop_oneof![
        6 => number.clone().prop_map(Call::Demote),
        4 => number.clone().prop_map(Call::Keep),
        2 => number.clone().prop_map(Call::Want),
        2 => Just(Call::Pump),
        6 => number.clone().prop_map(Call::Fetch),
        2 => number.clone().prop_map(Call::Prefetch),
        6 => number.clone().prop_map(Call::Copy),
        1 => number.clone().prop_map(Call::Cancel),
        1 => number.clone().prop_map(Call::Touch),
        1 => (number.clone(), 0..3_u64).prop_map(|(number, rank)| Call::Rank(number, rank)),
        1 => number.prop_map(Call::Forget),
        1 => (0..3_u8).prop_map(Call::ForgetProject),
        3 => Just(Call::Poll),
        2 => Just(Call::Wait),
        1 => Just(Call::Restart),
    ];
    proptest::collection::vec(call, 1..150)
}

/// Chains of four blocks.
fn linked(number: u32) -> Meta {
    Meta { parent: (!number.is_multiple_of(4)).then(|| key(number - 1)), ..meta(number) }
}

struct Model {
    disk: CrashDisk,
    config: TiersConfig,
    tiers: Option<Tiers>,
    /// Put in at some time, and not forgotten since.
    known: BTreeSet<u32>,
    /// Fetches whose end was not told.
    waiting: BTreeSet<u32>,
    /// Fetches that succeeded and were not copied.
    arrived: BTreeSet<u32>,
}

impl Model {
    fn new(host: u64, blocks: u32) -> Model {
        let (disk, config) = (CrashDisk::new(), config(host, blocks));
        let tiers = Some(open(config, &disk));
        let (known, waiting, arrived) = Default::default();
        Model { disk, config, tiers, known, waiting, arrived }
    }

    fn tiers(&mut self) -> &mut Tiers {
        self.tiers.as_mut().expect("open")
    }

    fn call(&mut self, call: &Call) {
        match *call {
            Call::Demote(number) => {
                self.tiers().demote(key(number), linked(number), &content(number));
                self.known.insert(number);
            }
            Call::Keep(number) => {
                self.tiers().keep(key(number), linked(number), &content(number));
                self.known.insert(number);
            }
            Call::Want(number) => {
                self.tiers().want(key(number), linked(number));
                self.known.insert(number);
            }
            Call::Pump => {
                let all: Vec<_> = (0..24).map(|number| (key(number), content(number))).collect();
                let find =
                    |wanted: &Key| all.iter().find(|(key, _)| key == wanted).map(|(_, bytes)| &bytes[..]);
                self.tiers().pump(0, find);
            }
            Call::Fetch(number) => match self.tiers().fetch(&key(number)) {
                Fetch::Started => drop(self.waiting.insert(number)),
                Fetch::Ready | Fetch::Busy | Fetch::Absent => {}
            },
            Call::Prefetch(number) => {
                let keys: Vec<Key> = (number..number + 4).map(key).collect();
                assert!(self.tiers().prefetch(&keys) <= 4);
            }
            Call::Copy(number) => self.copy(number),
            Call::Cancel(number) => {
                self.tiers().cancel(&key(number));
                self.waiting.remove(&number);
                self.arrived.remove(&number);
            }
            Call::Touch(number) => self.tiers().touch(&key(number)),
            Call::Rank(number, rank) => self.tiers().set_rank(&key(number), rank),
            Call::Forget(number) => {
                self.tiers().forget(&key(number));
                self.forgotten(number);
            }
            Call::ForgetProject(project) => {
                self.tiers().forget_project(&[project; 32]);
                (0..24).filter(|number| number % 3 == u32::from(project)).for_each(|n| self.forgotten(n));
            }
            Call::Poll => {
                let fetched = self.tiers().poll();
                self.told(fetched);
            }
            Call::Wait => self.wait_for_all(),
            Call::Restart => {
                self.tiers = None;
                self.tiers = Some(open(self.config, &self.disk));
                (self.waiting, self.arrived) = Default::default();
            }
        }
        self.check();
    }

    fn forgotten(&mut self, number: u32) {
        assert_eq!(self.tiers().find(&key(number)), Where::Absent);
        self.known.remove(&number);
        self.arrived.remove(&number);
    }

    fn copy(&mut self, number: u32) {
        let before = self.tiers().find(&key(number));
        let mut out = vec![0; BLOCK];
        let from = self.tiers().copy_into(&key(number), &mut out);
        assert_eq!(from != Where::Absent, before == Where::Host, "{from:?} after {before:?}");
        if from != Where::Absent {
            assert!(self.known.contains(&number), "block {number} was forgotten or never put in");
            assert_eq!(out, content(number));
        }
        self.arrived.remove(&number);
        if from == Where::Disk {
            self.waiting.remove(&number);
        }
    }

    fn told(&mut self, fetched: Vec<Fetched>) {
        for Fetched { key: told, arrived } in fetched {
            let number = (0..24).find(|&number| key(number) == told).expect("one of ours");
            // A forgotten or cancelled one may be told of, or not any more.
            self.waiting.remove(&number);
            if arrived && self.tiers().find(&told) == Where::Host {
                self.arrived.insert(number);
            }
        }
    }

    /// Every fetch ends, unless all buffers are taken by blocks that arrived and were never copied.
    fn wait_for_all(&mut self) {
        while !self.waiting.is_empty() {
            let fetched = self.tiers().wait(SECOND);
            assert!(!fetched.is_empty(), "{:?} never ended", self.waiting);
            self.told(fetched);
        }
    }

    fn check(&mut self) {
        let (host, disk) = (self.config.host_bytes, self.config.disk_bytes);
        let observed = self.tiers().observed();
        let held: u64 =
            observed.bytes.iter().filter(|((tier, ..), _)| *tier == Tier::Host).map(|(_, b)| b).sum();
        assert!(held <= host && observed.file_bytes <= disk, "{observed:?}");
        assert!(observed.buffer_bytes as u64 <= host + 8 * BLOCK as u64);
        assert_eq!(observed.disk_off, None);
        for number in self.arrived.clone() {
            assert_eq!(self.tiers().find(&key(number)), Where::Host, "arrived blocks stay until copied");
        }
    }

    /// At rest nothing is lost: every buffer is free or holds a block.
    fn at_rest(&mut self) {
        self.wait_for_all();
        (0..24).for_each(|number| self.tiers().cancel(&key(number)));
        self.tiers().flush();
        while self.tiers().disk.wait(SECOND) {}
        self.tiers().poll();
        let tiers = self.tiers();
        assert_eq!(tiers.buffers.in_use(), tiers.host.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_wrong_ever_comes_back(calls in calls(), host in 0..6_u64, blocks in 1..12_u32) {
        let mut model = Model::new(host, blocks);
        calls.iter().for_each(|call| model.call(call));
        model.at_rest();
    }
}
