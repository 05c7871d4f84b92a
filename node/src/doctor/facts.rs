//! What was seen, as plain values: a test writes them down, `look` reads them from the machine.

/// Everything that the checks judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// This machine's wall clock, in seconds since 1970.
    pub now_s: i64,
    /// Or why there is none.
    pub config: Result<ConfigFacts, String>,
    pub machine: MachineFacts,
    pub folder: Option<FolderFacts>,
    pub ports: Vec<PortFacts>,
    pub tls: Option<TlsFacts>,
    pub keys: Option<KeysFacts>,
    pub models: Vec<ModelFacts>,
    pub cluster: ClusterFacts,
}

/// What the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFacts {
    /// The file's name.
    pub origin: String,
    pub name: String,
    pub roles: Vec<&'static str>,
    pub worker: bool,
    /// Nodes that it joins, or was told of.
    pub join: Vec<String>,
    pub election_ms: u64,
    pub threads: u32,
    /// KV caches of one model, in memory.
    pub kv_bytes_per_model: u64,
    /// The host part of what other nodes are told, without its port.
    pub advertised_hosts: Vec<String>,
    /// What commands of agents need of the sandbox, where they are allowed.
    pub shell_requires: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFacts {
    /// Whether the kernel's clock is kept by a time service; None where the kernel does not say.
    pub clock_kept: Option<bool>,
    pub open_files: u64,
    pub cores: usize,
    /// What this process may use, the smaller of the machine's and its cgroup's.
    pub memory_bytes: Option<u64>,
    /// The kernel's word for transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// Where commands of agents are allowed.
    pub sandbox: Option<SandboxFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxFacts {
    /// `full`, `partial` or `none`.
    pub level: String,
    /// Layers that do not hold, with the reason.
    pub missing: Vec<String>,
    pub enough: bool,
}

/// The data folder and the disk below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFacts {
    pub path: String,
    pub exists: bool,
    /// Permission bits, where it exists.
    pub mode: Option<u32>,
    /// A small file was made, synced and removed there; or why not.
    pub writes: Result<SyncFacts, WriteFault>,
    pub space: Option<SpaceFacts>,
    /// The newest time that a file in it carries, in seconds since 1970.
    pub newest_s: Option<i64>,
    /// The process that uses it now.
    pub used_by: Option<String>,
    pub identity: IdentityFacts,
}

/// How long single writes took to become durable, in microseconds, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFacts {
    pub times_us: Vec<u64>,
    /// The folder is in memory, and gone with the machine's power.
    pub in_memory: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteFault {
    NotAFolder,
    ReadOnly,
    Denied,
    Full,
    /// Writing went well, and making it durable did not.
    Sync(String),
    Other(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceFacts {
    pub free_bytes: u64,
    pub total_bytes: u64,
    pub free_files: u64,
    pub total_files: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityFacts {
    /// The node has never started here.
    None,
    Name(String),
    /// Why it cannot be used, with the next step.
    Unusable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The key of the configuration.
    pub key: &'static str,
    pub address: String,
    /// Why nobody can listen there now.
    pub taken: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Why the files cannot be used together, with the next step.
    pub unusable: Option<String>,
    pub key_file: String,
    pub key_mode: Option<u32>,
    pub cert_file: String,
    /// What the certificate says, where it can be read.
    pub own: Option<CertificateFacts>,
    /// Every certificate in the CA's file.
    pub ca: Vec<CertificateFacts>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub subject: String,
    /// The node's name, in the certificate of one.
    pub node: Option<String>,
    pub addresses: Vec<String>,
    pub from_s: i64,
    pub until_s: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysFacts {
    pub file: String,
    pub mode: Option<u32>,
    pub unusable: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    pub name: String,
    pub bytes: u64,
    pub file: ModelFile,
    /// The digest under which the cluster knows this name.
    pub cluster_digest: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFile {
    Absent {
        looked_in: String,
    },
    /// Its digest, computed now; and the one that was noted when it was taken in.
    There {
        path: String,
        digest: String,
        noted: Option<String>,
    },
    Unreadable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterFacts {
    /// The node is no member, and has nobody to ask.
    Alone,
    /// Of these addresses none answered; the last reason.
    Silent {
        asked: Vec<String>,
        why: String,
    },
    Answered(MembersFacts),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembersFacts {
    pub leader: bool,
    /// Of the leader, in seconds since 1970; 0 where an older one does not say.
    pub leader_clock_s: i64,
    pub members: Vec<MemberFacts>,
    /// The member with this node's name has this node's disk.
    pub same_disk: Option<bool>,
    /// Another process runs under this node's id, at this address.
    pub double: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberFacts {
    pub name: String,
    pub version: String,
    pub attached: bool,
}
