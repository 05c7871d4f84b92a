//! What a client shows of itself, and by which CA it knows the cluster.

use crate::error::{Code, Error};
use std::fmt;
use std::path::Path;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tonic::{Request, Status};

/// The API key itself.
pub const API_KEY_VARIABLE: &str = "QUORATE_API_KEY";
/// File with the cluster's CA, in PEM form.
pub const CA_VARIABLE: &str = "QUORATE_CA";
/// Files with a client's certificate and its key, in PEM form.
pub const CERT_VARIABLE: &str = "QUORATE_CERT";
pub const CERT_KEY_VARIABLE: &str = "QUORATE_CERT_KEY";

/// Keys and certificates for [`Client::connect_with`](crate::Client::connect_with). All are optional.
#[derive(Clone, Default)]
pub struct Credentials {
    api_key: Option<String>,
    ca_pem: Option<Vec<u8>>,
    identity_pem: Option<(Vec<u8>, Vec<u8>)>,
}

/// Says what there is, never what it is.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |is: bool| if is { "set" } else { "none" };
        f.debug_struct("Credentials")
            .field("api_key", &set(self.api_key.is_some()))
            .field("ca", &set(self.ca_pem.is_some()))
            .field("certificate", &set(self.identity_pem.is_some()))
            .finish()
    }
}

impl Credentials {
    /// `QUORATE_API_KEY`, and the files that `QUORATE_CA`, `QUORATE_CERT` and `QUORATE_CERT_KEY` name.
    ///
    /// # Errors
    /// `UNREADABLE` for a file, `BAD_CREDENTIALS` for a certificate without its key.
    pub fn from_env() -> Result<Credentials, Error> {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
        let mut credentials = Credentials::default();
        if let Some(key) = set(API_KEY_VARIABLE) {
            credentials = credentials.with_api_key(&key);
        }
        if let Some(file) = set(CA_VARIABLE) {
            credentials = credentials.with_ca_file(Path::new(&file))?;
        }
        match (set(CERT_VARIABLE), set(CERT_KEY_VARIABLE)) {
            (Some(cert), Some(key)) => credentials.with_certificate_files(Path::new(&cert), Path::new(&key)),
            (None, None) => Ok(credentials),
            _ => Err(half()),
        }
    }

    /// Sent with every call. Blanks around it are dropped.
    pub fn with_api_key(mut self, key: &str) -> Credentials {
        self.api_key = Some(key.trim().to_string());
        self
    }

    /// The same, from a file that holds nothing else.
    pub fn with_api_key_file(self, file: &Path) -> Result<Credentials, Error> {
        let key = String::from_utf8(read(file)?).map_err(|_| bad("the file of the API key is no text"))?;
        Ok(self.with_api_key(&key))
    }

    /// The CA of the cluster's nodes. With it endpoints mean TLS.
    pub fn with_ca_pem(mut self, pem: &[u8]) -> Credentials {
        self.ca_pem = Some(pem.to_vec());
        self
    }

    pub fn with_ca_file(self, file: &Path) -> Result<Credentials, Error> {
        Ok(self.with_ca_pem(&read(file)?))
    }

    /// A client certificate and its key.
    pub fn with_certificate_pem(mut self, certificate: &[u8], key: &[u8]) -> Credentials {
        self.identity_pem = Some((certificate.to_vec(), key.to_vec()));
        self
    }

    pub fn with_certificate_files(self, certificate: &Path, key: &Path) -> Result<Credentials, Error> {
        Ok(self.with_certificate_pem(&read(certificate)?, &read(key)?))
    }

    /// A file without a certificate in it would be taken for a CA that trusts nobody.
    pub(crate) fn check(&self) -> Result<(), Error> {
        const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
        let has_one = |pem: &Vec<u8>| pem.windows(BEGIN.len()).any(|window| window == BEGIN);
        match self.ca_pem.as_ref().is_none_or(has_one) {
            true => Ok(()),
            false => Err(Error::local(
                Code::InvalidArgument,
                "BAD_CREDENTIALS",
                "there is no certificate in the file of the CA",
                "give ca.crt, as `quorate cert init` made it",
            )),
        }
    }

    /// How TLS is spoken; `None` without a CA.
    pub(crate) fn tls(&self) -> Option<ClientTlsConfig> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.ca_pem.as_ref()?));
        Some(match &self.identity_pem {
            Some((certificate, key)) => tls.identity(Identity::from_pem(certificate, key)),
            None => tls,
        })
    }

    /// A certificate cannot be shown over a connection in clear.
    pub(crate) fn needs_tls(&self) -> bool {
        self.identity_pem.is_some()
    }

    pub(crate) fn bearer(&self) -> Result<Bearer, Error> {
        let Some(key) = &self.api_key else { return Ok(Bearer(None)) };
        // Checked here, so that a key with a line end in it is not quoted by whoever cannot send it.
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("the API key is empty, or has characters that no key has"));
        }
        let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {key}").parse();
        let mut value = value.map_err(|_| bad("the API key cannot be sent"))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file).map_err(|why| {
        let message = format!("{} cannot be read", file.display());
        Error::local(Code::InvalidArgument, "UNREADABLE", message, "check its path and permissions")
            .with_cause(why.to_string())
    })
}

fn bad(message: &str) -> Error {
    let next = "use the key as `quorate key new` printed it";
    Error::local(Code::InvalidArgument, "BAD_CREDENTIALS", message, next)
}

fn half() -> Error {
    let next = "set QUORATE_CERT and QUORATE_CERT_KEY, or --cert and --cert-key, together";
    Error::local(Code::InvalidArgument, "BAD_CREDENTIALS", "a certificate and its key belong together", next)
}

/// Puts the key onto every call.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::service::Interceptor;

    #[test]
    fn the_key_is_sent_and_never_shown() {
        let credentials = Credentials::default().with_api_key(" qk_secretword\n").with_ca_pem(b"x");
        assert!(!format!("{credentials:?}").contains("secretword"));
        let mut bearer = credentials.bearer().unwrap();
        assert!(!format!("{bearer:?}").contains("secretword"));
        let sent = bearer.call(Request::new(())).unwrap();
        assert_eq!(sent.metadata().get("authorization").unwrap(), "Bearer qk_secretword");
        assert!(Credentials::default().bearer().unwrap().0.is_none());
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for key in ["", "secretword with blanks", "secretword\nsecretword", "secretwörd"] {
            let error = Credentials::default().with_api_key(key).bearer().unwrap_err();
            assert!(
                error.reason == "BAD_CREDENTIALS" && !format!("{error:?}").contains("secretw"),
                "{error:?}"
            );
        }
    }
}
