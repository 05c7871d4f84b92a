use super::accept::{Incoming, Port, incoming};
use super::dial::NodeDialer;
use super::*;
use crate::config::Config;
use crate::identity::{Identity, Role};
use coordinator::raft::Dialer;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration as StdDuration;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tonic_health::pb::health_client::HealthClient;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A CA and a node's certificate below a folder.
fn made(folder: &Path, node: &str) -> TlsFiles {
    if !folder.join("ca.crt").exists() {
        issue::ca(folder, "test", 10, now()).unwrap();
    }
    issue::node(folder, node, &["127.0.0.1".into(), "localhost".into()], 10, now()).unwrap();
    files(folder, node)
}

fn files(folder: &Path, name: &str) -> TlsFiles {
    let file = |name: String| folder.join(name);
    TlsFiles {
        ca: file("ca.crt".into()),
        cert: file(format!("{name}.crt")),
        key: file(format!("{name}.key")),
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn certificates_say_who_and_where_and_their_keys_are_private() {
    let folder = folder();
    made(folder.path(), "n1");
    let shown = &issue::show(&folder.path().join("n1.crt")).unwrap()[0];
    assert_eq!(shown.who, Some(Who::Node { cluster: "test".into(), name: "n1".into() }));
    assert_eq!(shown.addresses, ["127.0.0.1", "localhost"]);
    let left = shown.not_after_s - now().unix_timestamp();
    assert!((9 * 86_400..=10 * 86_400).contains(&left), "{left}");
    let ca = &issue::show(&folder.path().join("ca.crt")).unwrap()[0];
    assert!(ca.is_ca && ca.who.is_none() && ca.subject == shown.issuer);
    for key in ["ca.key", "n1.key"] {
        let mode = std::fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn nothing_is_overwritten_and_wrong_words_are_refused() {
    let folder = folder();
    let path = folder.path();
    assert!(issue::node(path, "n1", &[], 10, now()).unwrap_err().to_string().contains("quorate cert init"));
    made(path, "n1");
    let before = std::fs::read(path.join("n1.key")).unwrap();
    assert!(matches!(issue::ca(path, "test", 10, now()), Err(issue::IssueError::Exists(_))));
    assert!(matches!(issue::node(path, "n1", &["a".into()], 10, now()), Err(issue::IssueError::Exists(_))));
    assert!(matches!(issue::node(path, "ca", &["a".into()], 10, now()), Err(issue::IssueError::Exists(_))));
    assert_eq!(std::fs::read(path.join("n1.key")).unwrap(), before);
    assert!(issue::node(path, "../n2", &[], 10, now()).is_err());
    for address in ["host:7401", "a b", "", "https://a"] {
        assert!(issue::node(path, "n3", &[address.into()], 10, now()).is_err(), "{address}");
    }
    assert!(!path.join("n3.key").exists());
}

#[test]
fn wrong_files_are_noticed_at_the_start() {
    let (own, other) = (folder(), folder());
    let good = made(own.path(), "n1");
    made(other.path(), "n1");
    let identity = Identity::new("ci", "*", Role::Admin).unwrap();
    issue::client(own.path(), &identity, 10, now()).unwrap();
    issue::node(own.path(), "late", &["127.0.0.1".into()], 1, now() - Duration::days(3)).unwrap();
    assert!(Tls::load(&good).is_ok());
    let cases = [
        (TlsFiles { ca: files(other.path(), "n1").ca, ..good.clone() }, "not accepted by this node's own CA"),
        (TlsFiles { key: files(other.path(), "n1").key, ..good.clone() }, "cannot be used together"),
        (TlsFiles { cert: good.key.clone(), ..good.clone() }, "there is no certificate in it"),
        (TlsFiles { key: own.path().join("absent"), ..good.clone() }, "the key"),
        (files(own.path(), "ci"), "it is not a node's"),
        (files(own.path(), "late"), "expired"),
    ];
    for (files, says) in cases {
        let said = Tls::load(&files).err().expect(says).to_string();
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{said}");
        assert!(said.contains("quorate cert") || said.contains("made together"), "{said}");
    }
}

#[test]
fn a_node_does_not_start_with_anothers_certificate() {
    let folder = folder();
    let tls = Some(made(folder.path(), "n1"));
    let text = |name: &str| format!("name = \"{name}\"\nroles = [\"worker\"]\ndata_dir = \"d\"\n");
    let with = |name: &str| {
        let config = Config::parse("x", &text(name), crate::config::Exposure::LoopbackOnly).unwrap();
        crate::security::Security::load(&Config { tls: tls.clone(), ..config })
    };
    assert!(with("n1").is_ok());
    let said = with("n2").err().expect("another's").to_string();
    assert!(said.contains("\"n1\"") && said.contains("\"n2\""), "{said}");
}

/// A health service behind a port; answers its address.
async fn serve(tls: Tls, port: Port) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = tonic_health::server::HealthService::from_health_reporter(Default::default());
    let server = tonic_health::pb::health_server::HealthServer::new(service);
    let router = tonic::transport::Server::builder().add_service(server);
    let incoming: Incoming = incoming(listener, Some(tls), port);
    tokio::spawn(router.serve_with_incoming(incoming));
    address
}

async fn asks(dialer: &NodeDialer, address: &str) -> Result<(), tonic::Status> {
    let mut client = HealthClient::new(dialer.channel(address).unwrap());
    client.check(tonic_health::pb::HealthCheckRequest::default()).await.map(|_| ())
}

fn dialer(files: &TlsFiles) -> NodeDialer {
    NodeDialer::new(Some(Tls::load(files).unwrap()))
}

#[tokio::test]
async fn nodes_of_one_ca_reach_each_other_and_nobody_else_does() {
    let (own, other) = (folder(), folder());
    let (n1, n2) = (made(own.path(), "n1"), made(own.path(), "n2"));
    let stranger = made(other.path(), "n1");
    let address = serve(Tls::load(&n1).unwrap(), Port::Internal).await;
    asks(&dialer(&n2), &address).await.unwrap();
    assert!(asks(&dialer(&stranger), &address).await.is_err());
    assert!(asks(&NodeDialer::new(None), &address).await.is_err(), "plaintext is served");
    // The right CA is not enough between nodes, and the name must be the one that was dialled.
    let identity = Identity::new("ci", "*", Role::Admin).unwrap();
    issue::client(own.path(), &identity, 10, now()).unwrap();
    let client = files(own.path(), "ci");
    let posing = Tls::load(&n2).unwrap();
    let roots = Arc::new(roots(&n2.ca).unwrap());
    let shown =
        Own { files: &client, chain: chain("", &client.cert).unwrap(), key: key(&client.key).unwrap() };
    let dial = shown.dials(roots).unwrap();
    *posing.now.write().unwrap() = Arc::new(InForce { dial, ..read(&n2).unwrap() });
    assert!(asks(&NodeDialer::new(Some(posing)), &address).await.is_err(), "a client is taken for a node");
    issue::node(own.path(), "n3", &["other.example".into()], 10, now()).unwrap();
    let elsewhere = serve(Tls::load(&files(own.path(), "n3")).unwrap(), Port::Internal).await;
    assert!(asks(&dialer(&n2), &elsewhere).await.is_err(), "another name is accepted");
}

#[tokio::test]
async fn a_reload_is_in_force_for_the_next_connection() {
    let (own, other) = (folder(), folder());
    let n1 = made(own.path(), "n1");
    let new = made(other.path(), "n1");
    let tls = Tls::load(&n1).unwrap();
    let address = serve(tls.clone(), Port::Internal).await;
    let old_peer = dialer(&made(own.path(), "n2"));
    asks(&old_peer, &address).await.unwrap();
    // Half a change leaves everything as it was.
    std::fs::copy(&new.cert, &n1.cert).unwrap();
    assert!(tls.reload().is_err());
    asks(&old_peer, &address).await.unwrap();
    std::fs::copy(&new.ca, &n1.ca).unwrap();
    std::fs::copy(&new.key, &n1.key).unwrap();
    tls.reload().unwrap();
    asks(&dialer(&made(other.path(), "n2")), &address).await.unwrap();
    assert!(asks(&old_peer, &address).await.is_err(), "the old CA still counts");
}

#[tokio::test]
async fn two_cas_hold_while_one_takes_over() {
    let (old, new) = (folder(), folder());
    let n1 = made(old.path(), "n1");
    let n2 = made(new.path(), "n2");
    let both = std::fs::read_to_string(&n1.ca).unwrap() + &std::fs::read_to_string(&n2.ca).unwrap();
    std::fs::write(&n1.ca, &both).unwrap();
    std::fs::write(&n2.ca, &both).unwrap();
    let address = serve(Tls::load(&n1).unwrap(), Port::Internal).await;
    asks(&dialer(&n2), &address).await.unwrap();
}

/// A silent connection is closed after 5 s, and holds up nobody meanwhile; plain text is refused at once.
#[tokio::test]
async fn whoever_does_not_shake_hands_is_let_go() {
    let own = folder();
    let n1 = made(own.path(), "n1");
    let address = serve(Tls::load(&n1).unwrap(), Port::Clients).await;
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(StdDuration::from_secs(3), plain.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "plain text hangs");
    asks(&dialer(&made(own.path(), "n2")), &address).await.unwrap();
    let ended = tokio::time::timeout(StdDuration::from_secs(8), silent.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "a silent connection is kept");
}

#[tokio::test]
async fn a_clients_certificate_says_who_calls() {
    let own = folder();
    let n1 = made(own.path(), "n1");
    let identity = Identity::new("ci", "a/b", Role::Submitter).unwrap();
    issue::client(own.path(), &identity, 10, now()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connections = incoming(listener, Some(Tls::load(&n1).unwrap()), Port::Clients);
    let client = files(own.path(), "ci");
    let shown =
        Own { files: &client, chain: chain("", &client.cert).unwrap(), key: key(&client.key).unwrap() };
    let dial = shown.dials(Arc::new(roots(&n1.ca).unwrap())).unwrap();
    let connector = tokio_rustls::TlsConnector::from(dial);
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let (mine, theirs) = tokio::join!(connector.connect(name, stream), connections.next());
    mine.unwrap();
    assert_eq!(theirs.unwrap().unwrap().peer.certified, Some(identity));
}

/// Each node does its part of a step when it likes: whoever has done this step and whoever has not yet still meet.
#[tokio::test]
async fn a_ca_is_followed_by_another_and_nobody_is_left_out() {
    let pki = folder();
    let step =
        |files: &[PathBuf]| files.iter().map(|file| file.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    made(pki.path(), "n1");
    made(pki.path(), "n2");
    let identity = Identity::new("ci", "*", Role::Admin).unwrap();
    issue::client(pki.path(), &identity, 10, now()).unwrap();
    assert!(rotate::issue_all(pki.path(), now()).is_err() && rotate::finish(pki.path()).is_err());
    let first = copied(pki.path(), "n2");

    assert_eq!(step(&rotate::trust(pki.path(), 10, now()).unwrap()), ["ca.crt"]);
    assert!(rotate::trust(pki.path(), 10, now()).is_err() && rotate::finish(pki.path()).is_err());
    assert_eq!(issue::show(&pki.path().join("ca.crt")).unwrap().len(), 2);
    let second = copied(pki.path(), "n2");
    meet(&first, &second).await.unwrap();

    let made = step(&rotate::issue_all(pki.path(), now()).unwrap());
    assert_eq!(made, ["ci.crt", "ci.key", "n1.crt", "n1.key", "n2.crt", "n2.key"]);
    assert!(rotate::trust(pki.path(), 10, now()).is_err() && rotate::issue_all(pki.path(), now()).is_err());
    let shown = &issue::show(&pki.path().join("n1.crt")).unwrap()[0];
    assert_eq!(shown.addresses, ["127.0.0.1", "localhost"]);
    let third = copied(pki.path(), "n2");
    meet(&second, &third).await.unwrap();
    assert!(meet(&first, &third).await.is_err(), "whoever trusts the old CA alone is left behind");

    assert_eq!(step(&rotate::finish(pki.path()).unwrap()), ["ca.crt"]);
    assert!(rotate::finish(pki.path()).is_err());
    let fourth = copied(pki.path(), "n2");
    meet(&third, &fourth).await.unwrap();
    assert!(meet(&second, &fourth).await.is_err(), "the old CA still counts");
    // The folder goes on as any other, and the next change begins with the new CA.
    issue::node(pki.path(), "n3", &["127.0.0.1".into()], 10, now()).unwrap();
    rotate::trust(pki.path(), 10, now()).unwrap();
}

/// A node's files as they are now, in a folder of its own.
fn copied(from: &Path, node: &str) -> (tempfile::TempDir, TlsFiles) {
    let own = folder();
    for file in ["ca.crt".to_string(), format!("{node}.crt"), format!("{node}.key")] {
        std::fs::copy(from.join(&file), own.path().join(&file)).unwrap();
    }
    let files = files(own.path(), node);
    (own, files)
}

type Copied = (tempfile::TempDir, TlsFiles);

/// Each dials the other.
async fn meet(one: &Copied, other: &Copied) -> Result<(), tonic::Status> {
    for (dials, serves) in [(one, other), (other, one)] {
        let address = serve(Tls::load(&serves.1).unwrap(), Port::Internal).await;
        asks(&dialer(&dials.1), &address).await?;
    }
    Ok(())
}
