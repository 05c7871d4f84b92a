//! What a node's callers are known by: the certificates and the keys that its configuration names, and their reload.

use crate::config::Config;
use crate::door::Access;
use crate::keys::{Keys, KeysError};
use crate::telemetry::names;
use crate::tls::dial::NodeDialer;
use crate::tls::{Tls, TlsError};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// From then on every start and reload says that a new certificate is due.
const RENEW: Duration = Duration::from_secs(14 * 86_400);

#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "the certificate {file} is that of node {named:?}, and this is {own:?}; make its own with `quorate cert node`"
    )]
    OtherNode { file: PathBuf, named: String, own: String },
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Cheap to clone; `reload` changes all clones.
#[derive(Clone, Default)]
pub struct Security {
    pub(crate) tls: Option<Tls>,
    pub(crate) keys: Option<Keys>,
}

impl Security {
    /// Reads what the configuration names. Nothing is named: plain connections, and callers of this machine are admins.
    pub fn load(config: &Config) -> Result<Security, SecurityError> {
        let security = Security {
            tls: config.tls.as_ref().map(Tls::load).transpose()?,
            keys: config.keys.as_deref().map(Keys::load).transpose()?,
        };
        if let (Some(tls), Some(files)) = (&security.tls, &config.tls) {
            let (named, own) = (tls.name(), config.name.clone());
            if named != own {
                return Err(SecurityError::OtherNode { file: files.cert.clone(), named, own });
            }
            tell_end(tls.until_s());
        }
        Ok(security)
    }

    /// Reads the same files again. What cannot be read stays as it was, and is told in the log.
    pub fn reload(&self) {
        match self.tls.as_ref().map(Tls::reload) {
            Some(Ok(until_s)) => {
                tracing::info!("certificates read again: they hold for connections from now on");
                tell_end(until_s);
            }
            Some(Err(error)) => tracing::error!(%error, "the certificates stay as they were"),
            None => {}
        }
        match self.keys.as_ref().map(Keys::reload) {
            Some(Ok(count)) => tracing::info!(count, "API keys read again"),
            Some(Err(error)) => tracing::error!(%error, "the API keys stay as they were"),
            None => {}
        }
    }

    pub(crate) fn access(&self, insecure: bool) -> Access {
        Access { insecure, keys: self.keys.clone() }
    }

    pub(crate) fn dialer(&self) -> NodeDialer {
        NodeDialer::new(self.tls.clone())
    }
}

fn tell_end(until_s: i64) {
    metrics::gauge!(names::TLS_CERT_EXPIRY_SECONDS).set(until_s as f64);
    let left_s = until_s - now_s();
    if left_s < RENEW.as_secs() as i64 {
        let days = left_s.div_euclid(86_400);
        tracing::warn!(days, "this node's certificate ends soon: make another with `quorate cert node`");
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
