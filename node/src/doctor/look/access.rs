//! Ports, certificates, keys.

use crate::config::{Listen, TlsFiles};
use crate::doctor::facts::{CertificateFacts, KeysFacts, PortFacts, TlsFacts};
use crate::keys::Keys;
use crate::tls::certificate::{Certificate, Who};
use crate::tls::{Tls, issue};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) fn ports(listen: &Listen) -> Vec<PortFacts> {
    let all = [
        ("listen.clients", listen.clients),
        ("listen.internal", listen.internal),
        ("listen.http", listen.http),
    ];
    all.into_iter().map(port).collect()
}

fn port((key, address): (&'static str, SocketAddr)) -> PortFacts {
    let taken = TcpListener::bind(address).err().map(|error| error.to_string());
    PortFacts { key, address: address.to_string(), taken }
}

pub(super) fn tls(files: &TlsFiles) -> TlsFacts {
    TlsFacts {
        unusable: Tls::load(files).err().map(|error| error.to_string()),
        key_file: files.key.display().to_string(),
        key_mode: mode(&files.key),
        cert_file: files.cert.display().to_string(),
        own: issue::show(&files.cert).ok().and_then(|shown| shown.first().map(certificate)),
        ca: issue::show(&files.ca).unwrap_or_default().iter().map(certificate).collect(),
    }
}

fn certificate(read: &Certificate) -> CertificateFacts {
    CertificateFacts {
        subject: read.subject.clone(),
        node: match &read.who {
            Some(Who::Node { name, .. }) => Some(name.clone()),
            _ => None,
        },
        addresses: read.addresses.clone(),
        from_s: read.not_before_s,
        until_s: read.not_after_s,
    }
}

pub(super) fn keys(file: &Path) -> KeysFacts {
    KeysFacts {
        file: file.display().to_string(),
        mode: mode(file),
        unusable: Keys::load(file).err().map(|error| error.to_string()),
    }
}

fn mode(file: &Path) -> Option<u32> {
    Some(file.metadata().ok()?.permissions().mode())
}
