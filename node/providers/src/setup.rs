//! What keeps an endpoint from being used at all.

use crate::key::KeyError;

/// An endpoint that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("[[provider]] {provider:?}: {key} is not right: {why}; {next}")]
    Wrong { provider: String, key: &'static str, why: &'static str, next: &'static str },
    #[error("[[provider]] {provider:?}: {cause}")]
    Key { provider: String, cause: KeyError },
    #[error(
        "[[provider]] {provider:?}: cannot read ca_file {path}: {cause}; it must be certificates in PEM form"
    )]
    Authorities { provider: String, path: String, cause: String },
    #[error("[[provider]] {provider:?}: the header {header:?} is not one; use letters, digits and -")]
    Header { provider: String, header: String },
    #[error(
        "[[provider]] {provider:?}: encryption cannot be set up: {cause}; install ca-certificates or set ca_file"
    )]
    Encryption { provider: String, cause: String },
    #[error("[[provider]] {provider:?}: cannot make the cassette folder {path}: {cause}")]
    Folder { provider: String, path: String, cause: std::io::Error },
}
