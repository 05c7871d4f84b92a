//! Makes a cluster's CA and what it signs. Keys are made where they are written, readable by their owner alone; nothing
//! is ever overwritten.

use super::certificate::{Certificate, Who};
use crate::config::is_name;
use crate::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// A CA outlives many generations of what it signs; taking another one is work on every node.
pub(crate) const CA_DAYS: u32 = 3650;
pub(crate) const NODE_DAYS: u32 = 365;
pub(crate) const CLIENT_DAYS: u32 = 90;
/// Clocks of two machines are never quite the same.
const BACKDATED: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("{0} is there already and is not overwritten; move it away or give another folder or name")]
    Exists(PathBuf),
    #[error("{file}: {cause}; check the folder and its permissions, or make a CA with `quorate cert init`")]
    Io { file: PathBuf, cause: std::io::Error },
    #[error("{what}: {why}")]
    Invalid { what: &'static str, why: String },
    #[error("the certificate could not be made: {0}; are ca.crt and ca.key the two that were made together?")]
    Crypto(#[from] rcgen::Error),
}

/// Two files: what is shown, and what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Made {
    fn named(folder: &Path, name: &str) -> Made {
        Made { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
    }

    fn write(self, certificate: &str, key: &KeyPair) -> Result<Made, IssueError> {
        if let Some(there) = [&self.certificate, &self.key].into_iter().find(|file| file.exists()) {
            return Err(IssueError::Exists(there.clone()));
        }
        write(&self.key, &key.serialize_pem(), 0o600)?;
        write(&self.certificate, certificate, 0o644)?;
        Ok(self)
    }
}

/// Writes a file that is not there yet.
pub(crate) fn write(file: &Path, text: &str, mode: u32) -> Result<(), IssueError> {
    let io = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::AlreadyExists => IssueError::Exists(file.into()),
        _ => IssueError::Io { file: file.into(), cause },
    };
    let mut opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(io)?;
    opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all()).map_err(io)
}

fn named(what: &'static str, name: &str) -> Result<(), IssueError> {
    let rule = "letters, digits, `-`, `_` and `.`, beginning with a letter or digit";
    match is_name(name) {
        true => Ok(()),
        false => Err(IssueError::Invalid { what, why: format!("{name:?} is not a name: {rule}") }),
    }
}

/// Makes `ca.crt` and `ca.key`. The key is needed to sign further certificates and for nothing else: keep it off the nodes.
pub(crate) fn ca(folder: &Path, cluster: &str, days: u32, now: OffsetDateTime) -> Result<Made, IssueError> {
    named("the cluster's name", cluster)?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| IssueError::Io { file: folder.into(), cause })?;
    let mut params = params(cluster, &format!("{cluster} CA"), days, now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Made::named(folder, "ca").write(&certificate, &key)
}

/// Makes `NAME.crt` and `NAME.key` for a node that answers under these host names and addresses.
pub(crate) fn node(
    folder: &Path,
    name: &str,
    addresses: &[String],
    days: u32,
    now: OffsetDateTime,
) -> Result<Made, IssueError> {
    named("the node's name", name)?;
    let ca = Ca::open(folder)?;
    let who = Who::Node { cluster: ca.cluster.clone(), name: name.into() };
    let mut params = ca.leaf(&who, name, days, now)?;
    for address in addresses {
        params.subject_alt_names.push(answers_at(address)?);
    }
    // A node dials and is dialled.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    ca.sign(params, &Made::named(folder, name))
}

/// Makes `SUBJECT.crt` and `SUBJECT.key` for a client. No node accepts it on its internal port.
pub(crate) fn client(
    folder: &Path,
    identity: &Identity,
    days: u32,
    now: OffsetDateTime,
) -> Result<Made, IssueError> {
    let ca = Ca::open(folder)?;
    let who = Who::Client { cluster: ca.cluster.clone(), identity: identity.clone() };
    let mut params = ca.leaf(&who, &identity.subject, days, now)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    ca.sign(params, &Made::named(folder, &identity.subject))
}

/// Reads the certificates of a file.
pub(crate) fn show(file: &Path) -> Result<Vec<Certificate>, IssueError> {
    let invalid = |why: String| IssueError::Invalid {
        what: "the certificate",
        why: format!("{}: {why}", file.display()),
    };
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|why| invalid(why.to_string()))?;
    if found.is_empty() {
        return Err(invalid("there is none in it".into()));
    }
    found.iter().map(|der| Certificate::read(der).map_err(invalid)).collect()
}

fn params(cluster: &str, name: &str, days: u32, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days.into());
    params
}

fn answers_at(address: &str) -> Result<SanType, IssueError> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let host_like = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    if address.is_empty() || address.len() > 253 || !address.chars().all(host_like) {
        let why = format!("{address:?} is not a host name or an address, without a port");
        return Err(IssueError::Invalid { what: "--addr", why });
    }
    Ok(SanType::DnsName(address.try_into()?))
}

struct Ca {
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn open(folder: &Path) -> Result<Ca, IssueError> {
        let files = Made::named(folder, "ca");
        let read = |file: &PathBuf| {
            fs::read_to_string(file).map_err(|cause| IssueError::Io { file: file.clone(), cause })
        };
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        let said = show(&files.certificate)?.into_iter().next().and_then(|ca| ca.cluster);
        let no_cluster = || IssueError::Invalid { what: "ca.crt", why: "it names no cluster".into() };
        Ok(Ca {
            cluster: said.ok_or_else(no_cluster)?,
            issuer: Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?,
        })
    }

    fn leaf(
        &self,
        who: &Who,
        name: &str,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<CertificateParams, IssueError> {
        let mut params = params(&self.cluster, name, days, now);
        params.subject_alt_names = vec![SanType::URI(who.uri().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(&self, params: CertificateParams, files: &Made) -> Result<Made, IssueError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        files.clone().write(&certificate, &key)
    }
}
