//! Nodes and clients know each other by certificates of one CA, over TLS 1.3 alone; all files are read again at SIGHUP.
//!
//! Connections ask for what is in force when they begin, so a reload needs no restart and breaks nothing that is open.
//!
//! Read: this file (what is in force), `certificate` (what one says), `accept` and `dial` (the two ends), `issue`
//! (makes them), `rotate` (from one CA to the next).

pub(crate) mod accept;
pub(crate) mod certificate;
pub(crate) mod dial;
pub(crate) mod issue;
mod nodes_only;
pub(crate) mod rotate;

use crate::config::TlsFiles;
use certificate::{Certificate, Who};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {file} cannot be used: {why}; `quorate cert` makes such files")]
    File { what: &'static str, file: PathBuf, why: String },
    #[error(
        "the certificate {file} is not accepted by this node's own CA {ca}: {why}; make one with `quorate cert node`"
    )]
    NotOfCa { file: PathBuf, ca: PathBuf, why: String },
    #[error("the certificate {file} {why}; {next}")]
    NotNow { file: PathBuf, why: String, next: &'static str },
    #[error(
        "certificate {cert} and key {key} cannot be used together: {why}; use the two that were made together"
    )]
    Mismatch { cert: PathBuf, key: PathBuf, why: String },
}

/// What is in force. Cheap to clone; `reload` changes all clones.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Arc<TlsFiles>,
    now: Arc<RwLock<Arc<InForce>>>,
}

/// Everything made from the files at one moment.
struct InForce {
    /// Other nodes only.
    internal: Arc<ServerConfig>,
    /// Clients, which may show a certificate.
    clients: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    dial: Arc<ClientConfig>,
    own: Certificate,
}

impl Tls {
    pub(crate) fn load(files: &TlsFiles) -> Result<Tls, TlsError> {
        let now = Arc::new(RwLock::new(Arc::new(read(files)?)));
        Ok(Tls { files: Arc::new(files.clone()), now })
    }

    /// Reads the files again and answers until when this node's certificate holds, in seconds since 1970. After an
    /// error everything stays as it was.
    pub(crate) fn reload(&self) -> Result<i64, TlsError> {
        let fresh = Arc::new(read(&self.files)?);
        let until_s = fresh.own.not_after_s;
        *self.now.write().expect("no panic while held") = fresh;
        Ok(until_s)
    }

    /// Until when this node's certificate holds, in seconds since 1970.
    pub(crate) fn until_s(&self) -> i64 {
        self.in_force().own.not_after_s
    }

    /// Of this node, as its certificate has it.
    pub(crate) fn name(&self) -> String {
        match &self.in_force().own.who {
            Some(Who::Node { name, .. }) => name.clone(),
            _ => String::new(),
        }
    }

    fn in_force(&self) -> Arc<InForce> {
        self.now.read().expect("no panic while held").clone()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(files: &TlsFiles) -> Result<InForce, TlsError> {
    let roots = Arc::new(roots(&files.ca)?);
    let chain = chain("the certificate", &files.cert)?;
    let own = own(files, &roots, &chain)?;
    let identity = Own { files, chain, key: key(&files.key)? };
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
    let nodes = verifier.clone().build().map_err(|why| refused("the CA", &files.ca, why))?;
    let anyone = verifier.allow_unauthenticated().build().map_err(|why| refused("the CA", &files.ca, why))?;
    Ok(InForce {
        internal: identity.serves(Arc::new(nodes_only::NodesOnly(nodes)), b"h2")?,
        clients: identity.serves(anyone.clone(), b"h2")?,
        http: identity.serves(anyone, b"http/1.1")?,
        dial: identity.dials(roots)?,
        own,
    })
}

fn refused(what: &'static str, file: &Path, why: impl ToString) -> TlsError {
    TlsError::File { what, file: file.into(), why: why.to_string() }
}

/// One CA, or several while one takes over from another.
fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain("the CA", file)? {
        roots.add(certificate).map_err(|why| refused("the CA", file, why))?;
    }
    Ok(roots)
}

fn chain(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|why| refused(what, file, why))?;
    if found.is_empty() { Err(refused(what, file, "there is no certificate in it")) } else { Ok(found) }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others may read this node's key: chmod 600 it");
    }
    PrivateKeyDer::from_pem_file(file).map_err(|why| refused("the key", file, why))
}

/// Checks at home what other nodes will check, so that a wrong file is noticed at the start.
fn own(
    files: &TlsFiles,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
) -> Result<Certificate, TlsError> {
    let refuse = |why: String| refused("the certificate", &files.cert, why);
    let own = Certificate::read(&chain[0]).map_err(refuse)?;
    if !matches!(own.who, Some(Who::Node { .. })) {
        return Err(refuse("it is not a node's".into()));
    }
    in_its_time(&own, &files.cert, crate::security::now_s())?;
    let address = own.addresses.first().ok_or_else(|| refuse("it names no address".into()))?;
    let name = ServerName::try_from(address.clone()).map_err(|why| refuse(why.to_string()))?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build();
    let verifier = verifier.map_err(|why| refused("the CA", &files.ca, why))?;
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).map_err(|why| {
        TlsError::NotOfCa { file: files.cert.clone(), ca: files.ca.clone(), why: why.to_string() }
    })?;
    Ok(own)
}

/// A wrong clock looks like a wrong certificate, so both are named.
fn in_its_time(own: &Certificate, file: &Path, now_s: i64) -> Result<(), TlsError> {
    let now = certificate::day(now_s);
    let refuse = |why: String, next| Err(TlsError::NotNow { file: file.into(), why, next });
    if now_s < own.not_before_s {
        let why = format!(
            "holds only from {}, and this machine's clock says {now}",
            certificate::day(own.not_before_s)
        );
        return refuse(
            why,
            "set the clock (`timedatectl status`), or make another certificate with `quorate cert node`",
        );
    }
    if now_s > own.not_after_s {
        let why = format!(
            "expired: it held until {}, and this machine's clock says {now}",
            certificate::day(own.not_after_s)
        );
        return refuse(
            why,
            "make another with `quorate cert node`, or set the clock if that is what is wrong",
        );
    }
    Ok(())
}

/// What this node shows of itself.
struct Own<'a> {
    files: &'a TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Own<'_> {
    fn serves(
        &self,
        verifier: Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>,
        protocol: &[u8],
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|why| self.mismatch(&why))?.with_client_cert_verifier(verifier);
        let served = builder.with_single_cert(self.chain.clone(), self.key.clone_key());
        let mut served = served.map_err(|why| self.mismatch(&why))?;
        served.alpn_protocols = vec![protocol.to_vec()];
        // A resumed session would not be looked at again; nodes connect too rarely to need it.
        served.send_tls13_tickets = 0;
        Ok(Arc::new(served))
    }

    fn dials(&self, roots: Arc<RootCertStore>) -> Result<Arc<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
        let builder = builder.map_err(|why| self.mismatch(&why))?.with_root_certificates(roots);
        let dialled = builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key());
        let mut dialled = dialled.map_err(|why| self.mismatch(&why))?;
        dialled.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(dialled))
    }

    fn mismatch(&self, why: &tokio_rustls::rustls::Error) -> TlsError {
        TlsError::Mismatch {
            cert: self.files.cert.clone(),
            key: self.files.key.clone(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
