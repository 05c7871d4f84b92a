//! The wire: generated messages and services. No logic; conversions of ids only.
//!
//! `v1` is public and stable (port 7400); `internal::v1` is spoken between nodes (port 7401).

#![allow(missing_docs, clippy::all, unreachable_pub, elided_lifetimes_in_paths)]

/// The public services: tasks, agents, quotas, the cluster, context.
pub mod v1 {
    tonic::include_proto!("quorate.v1");
}

/// Between nodes: raft, the link, the ledger, segments, live tokens.
pub mod internal {
    pub mod v1 {
        tonic::include_proto!("quorate.internal.v1");
    }
}

/// Every message and service as a serialised `FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
