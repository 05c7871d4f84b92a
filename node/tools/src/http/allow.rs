//! The operator's list of hosts.

use reqwest::Url;

/// One entry of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Allowed {
    host: Host,
    /// Without one: the ports of http and https.
    port: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    Any,
    /// `.example.com`, with its dot.
    Below(String),
    Exactly(String),
}

/// What a list says about an address: where to connect, and whether private addresses are meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) may_be_private: bool,
}

impl Allowed {
    /// The error says what an entry looks like.
    pub(crate) fn parse(entry: &str) -> Result<Allowed, String> {
        let wrong = || {
            format!(
                "{entry:?} is none of: a host, host:port, *.example.com, * (without http://, path or credentials)"
            )
        };
        if entry == "*" {
            return Ok(Allowed { host: Host::Any, port: None });
        }
        let (name, port) = split_port(entry).ok_or_else(wrong)?;
        if let Some(below) = name.strip_prefix("*.") {
            let below = normal_host(below).ok_or_else(wrong)?;
            return Ok(Allowed { host: Host::Below(format!(".{below}")), port });
        }
        Ok(Allowed { host: Host::Exactly(normal_host(name).ok_or_else(wrong)?), port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let port_fits = self.port.map_or(matches!(port, 80 | 443), |allowed| allowed == port);
        port_fits
            && match &self.host {
                Host::Any => true,
                Host::Below(suffix) => host.ends_with(suffix),
                Host::Exactly(name) => name == host,
            }
    }

    /// An operator who writes down one host with its port means that one, wherever it lies.
    fn means_private(&self) -> bool {
        self.port.is_some() && matches!(self.host, Host::Exactly(_))
    }
}

fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    let bare_v6 = entry.ends_with(']');
    match entry.rsplit_once(':') {
        Some((host, port)) if !bare_v6 => Some((host, Some(port.parse().ok()?))),
        _ => Some((entry, None)),
    }
}

/// A host as addresses have it: lower case, punycode, without the root's dot; numbers in their usual form.
fn normal_host(host: &str) -> Option<String> {
    if host.contains(['/', '@', '?', '#', '\\', '*', ' ']) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    host_of(&url).filter(|host| !host.is_empty() && url.port().is_none())
}

fn host_of(url: &Url) -> Option<String> {
    url.host_str().map(|host| host.trim_end_matches('.').to_string())
}

/// Whether an address is on the list. The error says why not.
pub(super) fn grant(allowed: &[Allowed], url: &Url) -> Result<Grant, String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("only http and https are spoken here, not {}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("addresses with credentials in them are refused; use a header".into());
    }
    let host = host_of(url).filter(|host| !host.is_empty()).ok_or("it has no host")?;
    let port = url.port_or_known_default().ok_or("it has no port")?;
    let mut fitting = allowed.iter().filter(|entry| entry.covers(&host, port)).peekable();
    if fitting.peek().is_none() {
        return Err(format!("the operator's list does not have {host}:{port}"));
    }
    let may_be_private = fitting.any(Allowed::means_private);
    Ok(Grant { host, port, may_be_private })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(list: &[&str], url: &str) -> Result<Grant, String> {
        let allowed: Vec<Allowed> = list.iter().map(|entry| Allowed::parse(entry).expect(entry)).collect();
        grant(&allowed, &Url::parse(url).expect(url))
    }

    #[test]
    fn hosts_are_compared_as_they_are_meant() {
        for (entry, url) in [
            ("api.example.com", "https://api.example.com/x"),
            ("api.example.com", "http://API.Example.com./x"),
            ("*.example.com", "https://a.b.example.com"),
            ("*", "https://anything.test"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("127.0.0.1:8080", "http://0x7f.1:8080/"),
            ("[::1]:8080", "http://[::1]:8080/"),
            ("host:80", "http://host/"),
            ("bücher.test", "http://xn--bcher-kva.test/"),
        ] {
            assert!(granted(&[entry], url).is_ok(), "{entry} {url}");
        }
        for (entry, url) in [
            ("api.example.com", "https://evil.com/api.example.com"),
            ("api.example.com", "https://api.example.com.evil.com"),
            ("api.example.com", "https://api.example.com:8443"),
            ("api.example.com", "https://api.example.com@evil.com"),
            ("api.example.com", "https://user:word@api.example.com"),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://badexample.com"),
            ("127.0.0.1:8080", "http://127.0.0.1:8081/"),
            ("*", "file:///etc/passwd"),
            ("*", "http://anything.test:22/"),
        ] {
            assert!(granted(&[entry], url).is_err(), "{entry} {url}");
        }
    }

    #[test]
    fn only_a_host_with_its_port_may_be_private() {
        assert!(granted(&["*", "127.0.0.1:80"], "http://127.0.0.1").expect("granted").may_be_private);
        assert!(!granted(&["*"], "http://127.0.0.1").expect("granted").may_be_private);
        assert!(!granted(&["localhost"], "http://localhost").expect("granted").may_be_private);
        assert!(!granted(&["*.local:80"], "http://a.local").expect("granted").may_be_private);
    }

    #[test]
    fn entries_that_are_none_are_refused() {
        for bad in ["", "http://a", "a/b", "a:b", "a:99999", "u@a", "a*b", "a b", "*.*", ":80"] {
            assert!(Allowed::parse(bad).is_err(), "{bad:?}");
        }
    }
}
