//! What a certificate says: whose it is, where it answers, how long it holds.
//!
//! Who it is stands in a URI of its names: `quorate://CLUSTER/node/NAME`, or
//! `quorate://CLUSTER/client/ROLE/SUBJECT/PROJECT`, where the project may be nested, or `*`.

use crate::identity::{Identity, Role};
use std::net::IpAddr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub is_ca: bool,
    /// The organisation, which is the cluster's name.
    pub cluster: Option<String>,
    /// Absent in certificates that we did not make, and in a CA's.
    pub who: Option<Who>,
    /// Host names and addresses under which the node answers.
    pub addresses: Vec<String>,
    /// Seconds since 1970.
    pub not_before_s: i64,
    pub not_after_s: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node { cluster: String, name: String },
    Client { cluster: String, identity: Identity },
}

const SCHEME: &str = "quorate://";

impl Who {
    pub(crate) fn uri(&self) -> String {
        match self {
            Who::Node { cluster, name } => format!("{SCHEME}{cluster}/node/{name}"),
            Who::Client { cluster, identity } => format!(
                "{SCHEME}{cluster}/client/{}/{}/{}",
                identity.role.name(),
                identity.subject,
                identity.project_text()
            ),
        }
    }

    fn parse(uri: &str) -> Option<Who> {
        let mut parts = uri.strip_prefix(SCHEME)?.splitn(3, '/');
        let (cluster, kind, rest) = (parts.next()?.to_string(), parts.next()?, parts.next()?);
        match kind {
            "node" if !rest.contains('/') => Some(Who::Node { cluster, name: rest.to_string() }),
            "client" => {
                let mut parts = rest.splitn(3, '/');
                let (role, subject, project) = (parts.next()?, parts.next()?, parts.next()?);
                let identity = Identity::new(subject, project, Role::parse(role).ok()?).ok()?;
                Some(Who::Client { cluster, identity })
            }
            _ => None,
        }
    }
}

/// Seconds since 1970 as people write a time.
pub(crate) fn day(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

impl Certificate {
    /// # Errors
    /// Why these bytes are no certificate.
    pub(crate) fn read(der: &[u8]) -> Result<Certificate, String> {
        let (_, parsed) =
            parse_x509_certificate(der).map_err(|why| format!("it is not a certificate: {why}"))?;
        let mut read = Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            is_ca: parsed.is_ca(),
            cluster: parsed
                .subject()
                .iter_organization()
                .find_map(|name| name.as_str().ok())
                .map(String::from),
            who: None,
            addresses: Vec::new(),
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
        };
        read.take_names(&parsed)?;
        Ok(read)
    }

    fn take_names(&mut self, parsed: &X509Certificate<'_>) -> Result<(), String> {
        let names =
            parsed.subject_alternative_name().map_err(|why| format!("its names are not readable: {why}"))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                // Two of them would leave open who it is.
                GeneralName::URI(uri) if uri.starts_with(SCHEME) && self.who.is_some() => {
                    return Err("it says twice whose it is".into());
                }
                GeneralName::URI(uri) => self.who = self.who.take().or_else(|| Who::parse(uri)),
                GeneralName::DNSName(host) => self.addresses.push(host.to_string()),
                GeneralName::IPAddress(bytes) => {
                    self.addresses.extend(address(bytes).map(|ip| ip.to_string()))
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_survives_the_way_through_a_uri() {
        let client = |project| {
            let identity = Identity::new("ci", project, Role::Operator).unwrap();
            Who::Client { cluster: "c".into(), identity }
        };
        for who in
            [Who::Node { cluster: "c".into(), name: "n1".into() }, client("a"), client("a/b"), client("*")]
        {
            assert_eq!(Who::parse(&who.uri()), Some(who));
        }
    }

    #[test]
    fn anything_else_is_nobody() {
        for uri in [
            "https://c/node/n1",
            "quorate://c/node",
            "quorate://c/node/a/b",
            "quorate://c/boss/x",
            "quorate://c/client/boss/ci/a",
            "quorate://c/client/admin/ci",
            "quorate://c/client/admin/c i/a",
            "quorate://c/client/admin/ci/A",
        ] {
            assert_eq!(Who::parse(uri), None, "{uri}");
        }
        assert!(Certificate::read(b"nothing").is_err());
    }
}
