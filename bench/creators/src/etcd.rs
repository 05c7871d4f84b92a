//! Three members of Debian's etcd with their own defaults, and clients that put values at their leader. The messages are
//! the few fields of etcd's API that are needed here.

use crate::load::{Call, connections};
use crate::syncs;
use anyhow::{Context, ensure};
use quorate_tests::{ports, until};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const VALUE_BYTES: usize = 256;
/// Each client writes the same keys again and again, so that the store does not grow without end.
const KEYS: u64 = 1000;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

pub(crate) struct Etcd {
    members: Vec<Child>,
    addresses: Vec<String>,
    _folder: TempDir,
}

impl Etcd {
    pub(crate) async fn start(binary: &Path) -> anyhow::Result<Etcd> {
        let folder = tempfile::Builder::new().prefix("etcd-").tempdir()?;
        let url = || format!("http://127.0.0.1:{}", ports::free());
        let peers: Vec<String> = (0..3).map(|_| url()).collect();
        let addresses: Vec<String> = (0..3).map(|_| url()).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(n, peer)| format!("n{n}={peer}")).collect();
        let mut members = Vec::new();
        for (number, (peer, address)) in peers.iter().zip(&addresses).enumerate() {
            let log = std::fs::File::create(folder.path().join(format!("n{number}.log")))?;
            let member = Command::new(binary)
                .arg("--name")
                .arg(format!("n{number}"))
                .arg("--data-dir")
                .arg(folder.path().join(format!("n{number}")))
                .args(["--listen-client-urls", address, "--advertise-client-urls", address])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
                .args(["--log-level", "error"])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("starting {}: install Debian's etcd-server", binary.display()))?;
            members.push(member);
        }
        let etcd = Etcd { members, addresses, _folder: folder };
        until("etcd has a leader", Duration::from_secs(30), async || etcd.leader().await.ok()).await?;
        Ok(etcd)
    }

    /// Syncs of all members so far: of the log, and commits of the store.
    pub(crate) async fn syncs(&self) -> anyhow::Result<u64> {
        let port = |address: &String| address.rsplit_once(':')?.1.parse().ok();
        let ports: Vec<u16> = self.addresses.iter().filter_map(port).collect();
        let names =
            ["etcd_disk_wal_fsync_duration_seconds_count", "etcd_disk_backend_commit_duration_seconds_count"];
        syncs::count(&ports, &names).await
    }

    async fn leader(&self) -> anyhow::Result<String> {
        for address in &self.addresses {
            let channel = Endpoint::from_shared(address.clone())?.connect().await?;
            let path = "/etcdserverpb.Maintenance/Status";
            let status: StatusResponse = unary(channel, path, StatusRequest {}).await?;
            if status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader) {
                return Ok(address.clone());
            }
        }
        anyhow::bail!("nobody leads")
    }

    pub(crate) async fn clients(&self, clients: usize) -> anyhow::Result<Vec<Call>> {
        let leader = self.leader().await?;
        let mut channels = Vec::new();
        for _ in 0..connections(clients) {
            channels.push(Endpoint::from_shared(leader.clone())?.tcp_nodelay(true).connect().await?);
        }
        let client = |client: usize| -> Call {
            let channel = channels[client % channels.len()].clone();
            Box::new(move |number| {
                let channel = channel.clone();
                Box::pin(async move {
                    let key =
                        format!("bench/{:04}/{:06}", number >> 32, (number & 0xffff_ffff) % KEYS).into();
                    let put = PutRequest { key, value: vec![b'x'; VALUE_BYTES] };
                    let _done: PutResponse = unary(channel, "/etcdserverpb.KV/Put", put).await?;
                    Ok(())
                })
            })
        };
        Ok((0..clients).map(client).collect())
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.kill().await?;
            ensure!(member.wait().await?.code().is_none(), "a member had ended by itself");
        }
        Ok(())
    }
}

async fn unary<Q, A>(channel: Channel, path: &'static str, message: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let answer = grpc.unary(tonic::Request::new(message), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}
