//! Every fault staged in the facts of a healthy node is found, alone, by the check that is named.

use super::facts::*;
use super::{Facts, Finding, State, judge, worst};

const NOW_S: i64 = 1_800_000_000;
const DAY_S: i64 = 86_400;

/// A worker of a secured cluster of four, while it runs.
fn healthy() -> Facts {
    Facts {
        now_s: NOW_S,
        config: Ok(ConfigFacts {
            origin: "node.toml".into(),
            name: "w1".into(),
            roles: vec!["worker"],
            worker: true,
            join: vec!["10.0.0.1:7401".into()],
            election_ms: 400,
            threads: 0,
            kv_bytes_per_model: 512 << 20,
            advertised_hosts: vec!["10.0.0.4".into()],
            shell_requires: Some("partial".into()),
        }),
        machine: MachineFacts {
            clock_kept: Some(true),
            open_files: 65_536,
            cores: 8,
            memory_bytes: Some(16 << 30),
            huge_pages: Some("madvise".into()),
            sandbox: Some(SandboxFacts { level: "full".into(), missing: vec![], enough: true }),
        },
        folder: Some(FolderFacts {
            path: "/data".into(),
            exists: true,
            mode: Some(0o40700),
            writes: Ok(SyncFacts { times_us: vec![900, 1_000, 5_000], in_memory: false }),
            space: Some(SpaceFacts {
                free_bytes: 200 << 30,
                total_bytes: 400 << 30,
                free_files: 9_000,
                total_files: 9_999,
            }),
            newest_s: Some(NOW_S - 3),
            used_by: None,
            identity: IdentityFacts::Name("w1".into()),
        }),
        ports: vec![PortFacts { key: "listen.clients", address: "10.0.0.4:7400".into(), taken: None }],
        tls: Some(TlsFacts {
            unusable: None,
            key_file: "w1.key".into(),
            key_mode: Some(0o100_600),
            cert_file: "w1.crt".into(),
            own: Some(CertificateFacts {
                subject: "CN=w1".into(),
                node: Some("w1".into()),
                addresses: vec!["10.0.0.4".into()],
                from_s: NOW_S - DAY_S,
                until_s: NOW_S + 300 * DAY_S,
            }),
            ca: vec![CertificateFacts {
                subject: "CN=prod".into(),
                node: None,
                addresses: vec![],
                from_s: NOW_S - DAY_S,
                until_s: NOW_S + 3_000 * DAY_S,
            }],
        }),
        keys: Some(KeysFacts { file: "keys.toml".into(), mode: Some(0o100_640), unusable: None }),
        models: vec![ModelFacts {
            name: "smollm2".into(),
            bytes: 100 << 20,
            file: ModelFile::There {
                path: "/m/smollm2.gguf".into(),
                digest: "ab".repeat(32),
                noted: Some("ab".repeat(32)),
            },
            cluster_digest: Some("ab".repeat(32)),
        }],
        cluster: ClusterFacts::Answered(MembersFacts {
            leader: true,
            leader_clock_s: NOW_S + 1,
            members: vec![member("c1", "0.5.0", true), member("w1", "0.5.0", true)],
            same_disk: Some(true),
            double: None,
        }),
    }
}

fn member(name: &str, version: &str, attached: bool) -> MemberFacts {
    MemberFacts { name: name.into(), version: version.into(), attached }
}

fn bad(facts: &Facts) -> Vec<Finding> {
    judge(facts).into_iter().filter(|finding| finding.state != State::Ok).collect()
}

#[test]
fn a_healthy_node_has_no_finding() {
    assert_eq!(bad(&healthy()), []);
    assert_eq!(worst(&judge(&healthy())), State::Ok);
    // Its own ports are taken while it runs.
    let mut running = healthy();
    folder(&mut running).used_by = Some("process 7".into());
    running.ports[0].taken = Some("in use".into());
    assert_eq!(bad(&running), []);
}

fn folder(facts: &mut Facts) -> &mut FolderFacts {
    facts.folder.as_mut().unwrap()
}

fn config(facts: &mut Facts) -> &mut ConfigFacts {
    facts.config.as_mut().unwrap()
}

fn own(facts: &mut Facts) -> &mut CertificateFacts {
    facts.tls.as_mut().unwrap().own.as_mut().unwrap()
}

fn cluster(facts: &mut Facts) -> &mut MembersFacts {
    match &mut facts.cluster {
        ClusterFacts::Answered(cluster) => cluster,
        _ => panic!("the healthy node's cluster answers"),
    }
}

fn space(free_bytes: u64) -> Option<SpaceFacts> {
    Some(SpaceFacts { free_bytes, total_bytes: 400 << 30, free_files: 9_000, total_files: 9_999 })
}

/// What is left to look at where the configuration says nothing.
fn unread(why: &str) -> Facts {
    let alone = ClusterFacts::Alone;
    let Facts { now_s, machine, .. } = healthy();
    let (folder, tls, keys, ports, models) = (None, None, None, vec![], vec![]);
    Facts { now_s, machine, config: Err(why.into()), folder, tls, keys, ports, models, cluster: alone }
}

type Fault = (&'static str, State, &'static str, fn(&mut Facts));

const FAULTS: &[Fault] = &[
    ("config", State::Fail, "unknown key", |facts| *facts = unread("unknown key colour")),
    ("clock", State::Fail, "behind the leader's", |facts| cluster(facts).leader_clock_s = NOW_S + DAY_S),
    ("clock", State::Fail, "ahead of the leader's", |facts| cluster(facts).leader_clock_s = NOW_S - DAY_S),
    ("clock", State::Fail, "in the future", |facts| folder(facts).newest_s = Some(NOW_S + DAY_S)),
    ("clock", State::Warn, "no time service", |facts| facts.machine.clock_kept = Some(false)),
    ("open files", State::Fail, "256 files", |facts| facts.machine.open_files = 256),
    ("open files", State::Warn, "600 files", |facts| facts.machine.open_files = 600),
    ("memory", State::Fail, "1.0 TiB", |facts| config(facts).kv_bytes_per_model = 1 << 40),
    ("memory", State::Warn, "of 700.0 MiB", |facts| facts.machine.memory_bytes = Some(700 << 20)),
    ("cores", State::Warn, "64", |facts| config(facts).threads = 64),
    ("huge pages", State::Warn, "off", |facts| facts.machine.huge_pages = Some("never".into())),
    ("sandbox", State::Fail, "none", |facts| {
        facts.machine.sandbox =
            Some(SandboxFacts { level: "none".into(), missing: vec!["namespaces".into()], enough: false });
    }),
    ("sandbox", State::Warn, "partial", |facts| {
        facts.machine.sandbox = Some(SandboxFacts {
            level: "partial".into(),
            missing: vec!["cgroup: not delegated".into()],
            enough: true,
        });
    }),
    ("data folder", State::Fail, "read-only", |facts| folder(facts).writes = Err(WriteFault::ReadOnly)),
    ("data folder", State::Fail, "may not write", |facts| folder(facts).writes = Err(WriteFault::Denied)),
    ("data folder", State::Fail, "full", |facts| folder(facts).writes = Err(WriteFault::Full)),
    ("data folder", State::Fail, "not a folder", |facts| folder(facts).writes = Err(WriteFault::NotAFolder)),
    ("data folder", State::Fail, "durable", |facts| {
        folder(facts).writes = Err(WriteFault::Sync("EIO".into()))
    }),
    ("data folder", State::Warn, "mode 755", |facts| folder(facts).mode = Some(0o40755)),
    ("disk space", State::Fail, "100.0 MiB", |facts| folder(facts).space = space(100 << 20)),
    ("disk space", State::Warn, "10.0 GiB", |facts| folder(facts).space = space(10 << 30)),
    ("disk space", State::Fail, "7 more files", |facts| folder(facts).space.as_mut().unwrap().free_files = 7),
    ("fsync", State::Fail, "300.000 ms", |facts| {
        folder(facts).writes = Ok(SyncFacts { times_us: vec![300_000; 5], in_memory: false });
    }),
    ("fsync", State::Warn, "50.000 ms", |facts| {
        folder(facts).writes = Ok(SyncFacts { times_us: vec![50_000; 5], in_memory: false });
    }),
    ("fsync", State::Warn, "in memory", |facts| {
        folder(facts).writes = Ok(SyncFacts { times_us: vec![3; 5], in_memory: true });
    }),
    ("identity", State::Fail, "\"w9\"", |facts| folder(facts).identity = IdentityFacts::Name("w9".into())),
    ("identity", State::Fail, "format 9", |facts| {
        folder(facts).identity =
            IdentityFacts::Unusable("the identity has format 9; start the newer version".into());
    }),
    ("ports", State::Fail, "in use", |facts| facts.ports[0].taken = Some("Address already in use".into())),
    ("key file", State::Fail, "mode 644", |facts| facts.tls.as_mut().unwrap().key_mode = Some(0o100_644)),
    ("key file", State::Fail, "not there", |facts| facts.tls.as_mut().unwrap().key_mode = None),
    ("certificate", State::Fail, "ended 2 days ago", |facts| own(facts).until_s = NOW_S - DAY_S - 1),
    ("certificate", State::Warn, "ends in 3 days", |facts| own(facts).until_s = NOW_S + 3 * DAY_S),
    ("certificate", State::Fail, "holds only in", |facts| own(facts).from_s = NOW_S + 60),
    ("certificate", State::Fail, "\"w2\"", |facts| own(facts).node = Some("w2".into())),
    ("certificate", State::Fail, "others are told 10.0.0.9", |facts| {
        config(facts).advertised_hosts = vec!["10.0.0.9".into()];
    }),
    ("certificate", State::Fail, "not accepted", |facts| {
        facts.tls.as_mut().unwrap().unusable = Some("not accepted by this node's own CA".into());
    }),
    ("CA", State::Fail, "ended", |facts| facts.tls.as_mut().unwrap().ca[0].until_s = NOW_S - 9 * DAY_S),
    ("CA", State::Warn, "ends in 30 days", |facts| {
        facts.tls.as_mut().unwrap().ca[0].until_s = NOW_S + 30 * DAY_S
    }),
    ("API keys", State::Fail, "line 4", |facts| {
        facts.keys.as_mut().unwrap().unusable = Some("line 4: no role".into())
    }),
    ("API keys", State::Warn, "everyone", |facts| facts.keys.as_mut().unwrap().mode = Some(0o100_644)),
    ("model", State::Fail, "not what was taken in", |facts| {
        facts.models[0].file =
            ModelFile::There { path: "/m".into(), digest: "ab".repeat(32), noted: Some("cd".repeat(32)) };
    }),
    ("model", State::Fail, "the cluster knows", |facts| {
        facts.models[0].cluster_digest = Some("cd".repeat(32))
    }),
    ("model", State::Fail, "cannot read", |facts| {
        facts.models[0].file = ModelFile::Unreadable("cannot read it".into())
    }),
    ("cluster", State::Fail, "10.0.0.1:7401", |facts| {
        facts.cluster = ClusterFacts::Silent { asked: vec!["10.0.0.1:7401".into()], why: "refused".into() };
    }),
    ("leader", State::Fail, "no leader", |facts| cluster(facts).leader = false),
    ("members", State::Warn, "c9", |facts| cluster(facts).members.push(member("c9", "0.5.0", false))),
    ("versions", State::Warn, "0.4.0: old", |facts| {
        cluster(facts).members.push(member("old", "0.4.0", true))
    }),
    ("membership", State::Fail, "10.0.0.7:7401", |facts| {
        cluster(facts).double = Some("10.0.0.7:7401".into())
    }),
    ("membership", State::Fail, "another disk", |facts| cluster(facts).same_disk = Some(false)),
];

#[test]
fn each_staged_fault_is_found_and_nothing_else() {
    for (check, state, words, stage) in FAULTS {
        let mut facts = healthy();
        stage(&mut facts);
        let found = bad(&facts);
        let shown = format!("{check} {words:?}: {found:#?}");
        let [only] = found.as_slice() else { panic!("not one finding: {shown}") };
        assert_eq!((only.check, only.state), (*check, *state), "{shown}");
        assert!(only.what.contains(words), "{shown}");
        assert!(only.why.len() >= 10 && only.next.len() > 10, "no why or next: {shown}");
    }
}

#[test]
fn a_model_that_is_missing_is_no_fault_where_others_have_it() {
    let mut facts = healthy();
    facts.models[0].file = ModelFile::Absent { looked_in: "/m".into() };
    assert_eq!(bad(&facts), []);
    config(&mut facts).join.clear();
    assert_eq!(bad(&facts)[0].check, "model");
}

#[test]
fn bytes_are_told_in_the_largest_unit_that_fits() {
    let told = [0, 1023, 1024, 1 << 20, 3 << 30, u64::MAX].map(super::bytes);
    assert_eq!(told, ["0.0 B", "1023.0 B", "1.0 KiB", "1.0 MiB", "3.0 GiB", "16777215.9 TiB"]);
}
