//! Encrypted connections: to those we trust, and nobody else.

use crate::support::*;
use providers::{Client, Destinations, Reason};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A provider behind TLS with a certificate of its own; what it was told, in clear.
struct Encrypted {
    port: u16,
    certificate: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Encrypted {
    fn start() -> Encrypted {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            versions.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (config, told) = (Arc::new(config), Arc::<Mutex<Vec<String>>>::default());
        let kept = told.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                if let Ok(request) = serve(stream, connection) {
                    kept.lock().expect("whole").push(request);
                }
            }
        });
        Encrypted { port, certificate: made.cert.pem(), told }
    }

    fn client(&self, authority: Option<&str>) -> Client {
        let folder = tempfile::tempdir().expect("a folder");
        let (key, authorities) = (folder.path().join("key"), folder.path().join("ca.pem"));
        std::fs::write(&key, "the-key-of-this-test").expect("written");
        let mut endpoint = endpoint("openai", &format!("https://localhost:{}/v1", self.port), "");
        endpoint.key_file = Some(key);
        if let Some(authority) = authority {
            std::fs::write(&authorities, authority).expect("written");
            endpoint.ca_file = Some(authorities);
        }
        Client::open(endpoint, &Destinations::new(7)).expect("it opens")
    }
}

fn serve(mut stream: TcpStream, mut connection: ServerConnection) -> std::io::Result<String> {
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let (mut request, mut part) = (String::new(), [0; 4096]);
    while !request.ends_with('}') {
        let read = tls.read(&mut part)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        request.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let body = whole("openai");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length:";
    write!(tls, "{head} {}\r\n\r\n{body}", body.len())?;
    connection.send_close_notify();
    connection.complete_io(&mut stream)?;
    Ok(request)
}

#[tokio::test]
async fn a_provider_whose_authority_is_named_is_asked() {
    let server = Encrypted::start();
    let called = ask(&server.client(Some(&server.certificate))).await;
    assert_eq!(called.shown(), "Hello", "{:?}", called.outcome);
    assert!(server.told.lock().expect("whole")[0].contains("Bearer the-key-of-this-test"));
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_gets_neither_key_nor_prompt() {
    let (server, other) = (Encrypted::start(), Encrypted::start());
    let called = ask(&server.client(Some(&other.certificate))).await;
    let failure = called.failure();
    assert_eq!((failure.reason, failure.unknown), (Reason::Unreachable, false), "{failure}");
    assert!(failure.message.contains("ca_file"), "{failure}");
    assert!(server.told.lock().expect("whole").is_empty());
}
