//! What runs between the nodes of a local cluster: each is reached through a port of this process, which passes bytes on
//! to where the node listens, unless one of the two ends is cut off. Then bytes wait, as they do in a broken network:
//! connections stay open, and nobody is told anything.

use super::folder::Folder;
use super::plan::Layout;
use anyhow::Context;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const BUFFER_BYTES: usize = 64 << 10;

/// Names of nodes that are cut off from all others.
type Cut = BTreeSet<String>;

pub(super) struct Cables {
    cut: watch::Sender<Cut>,
}

impl Cables {
    pub(super) fn cut(&self, names: Cut) {
        self.cut.send_if_modified(|now| {
            let changed = *now != names;
            *now = names;
            changed
        });
    }

    pub(super) fn heal(&self) {
        self.cut(Cut::new());
    }
}

/// One for each node, for the life of this process.
pub(super) async fn lay(layout: &Layout, folder: &Folder) -> anyhow::Result<Cables> {
    let cut = watch::Sender::new(Cut::new());
    let names: Arc<Vec<String>> = Arc::new(layout.nodes.iter().map(|node| node.name.clone()).collect());
    let folder = Arc::new(Folder::make(folder.path())?);
    for node in &layout.nodes {
        let listener = TcpListener::bind(("127.0.0.1", node.cable)).await;
        let listener =
            listener.with_context(|| format!("listening at port {} for {}", node.cable, node.name))?;
        let cable = Cable {
            node: node.name.clone(),
            port: node.cable,
            to: node.internal,
            names: names.clone(),
            folder: folder.clone(),
        };
        tokio::spawn(cable.serve(listener, cut.subscribe()));
    }
    Ok(Cables { cut })
}

struct Cable {
    node: String,
    port: u16,
    to: u16,
    names: Arc<Vec<String>>,
    folder: Arc<Folder>,
}

impl Cable {
    async fn serve(self, listener: TcpListener, cut: watch::Receiver<Cut>) {
        // A failed accept is one connection less: whoever dialled tries again.
        loop {
            let Ok((stream, from)) = listener.accept().await else { continue };
            let ends = [self.owner(from.port()), Some(self.node.clone())];
            tokio::spawn(join(stream, self.to, ends, cut.clone()));
        }
    }

    /// The node whose process holds the other end of a connection from this port.
    fn owner(&self, port: u16) -> Option<String> {
        let inode = socket_inode(&fs::read_to_string("/proc/net/tcp").ok()?, port, self.port)?;
        let link = format!("socket:[{inode}]");
        self.names.iter().find(|name| self.folder.pid(name).is_some_and(|pid| holds(pid, &link))).cloned()
    }
}

/// The inode of the loopback socket between these ports, in the kernel's table.
fn socket_inode(table: &str, from: u16, to: u16) -> Option<String> {
    let (from, to) = (format!("0100007F:{from:04X}"), format!("0100007F:{to:04X}"));
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ours = fields.next()? == from && fields.next()? == to;
        ours.then(|| fields.nth(6).map(str::to_string)).flatten()
    })
}

fn holds(pid: u32, link: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.as_os_str() == link)
}

async fn join(near: TcpStream, to: u16, ends: [Option<String>; 2], cut: watch::Receiver<Cut>) {
    let mut open = cut.clone();
    if open.wait_for(|cut| passes(cut, &ends)).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::join!(flow(near_read, far_write, &ends, cut.clone()), flow(far_read, near_write, &ends, cut));
}

/// Whether both ends are on the same side.
fn passes(cut: &Cut, ends: &[Option<String>; 2]) -> bool {
    let [from, to] = ends.each_ref().map(|end| end.as_ref().is_some_and(|name| cut.contains(name)));
    from == to
}

async fn flow(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ends: &[Option<String>; 2],
    mut cut: watch::Receiver<Cut>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let open = cut.wait_for(|cut| passes(cut, ends)).await.is_ok();
        if !open || to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_node_hears_nobody_and_is_heard_by_nobody() {
        let ends = |from: &str, to: &str| [Some(from.to_string()), Some(to.to_string())];
        let cut = Cut::from(["a".to_string()]);
        assert!(passes(&Cut::new(), &ends("a", "b")));
        assert!(!passes(&cut, &ends("a", "b")) && !passes(&cut, &ends("b", "a")));
        assert!(passes(&cut, &ends("b", "c")));
        // Whoever is no node, such as a person's own tool, is on the side of the others.
        assert!(!passes(&cut, &[None, Some("a".into())]) && passes(&cut, &[None, Some("b".into())]));
    }

    #[test]
    fn the_kernels_table_names_the_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1111 1 x\n   \
                     1: 0100007F:C350 0100007F:1CEA 01 00000000:00000000 00:00000000 00000000     0        0 2222 1 x\n";
        assert_eq!(socket_inode(table, 50_000, 7402).as_deref(), Some("2222"));
        assert_eq!(socket_inode(table, 50_001, 7402), None);
    }

    #[tokio::test]
    async fn bytes_wait_behind_a_cut_and_come_through_when_it_heals() {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cut = watch::Sender::new(Cut::new());
        let ends = [Some("a".to_string()), Some("b".to_string())];
        let mut client = TcpStream::connect(front.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = front.accept().await.unwrap();
        tokio::spawn(join(accepted, target.local_addr().unwrap().port(), ends, cut.subscribe()));
        let (mut server, _) = target.accept().await.unwrap();
        client.write_all(b"one").await.unwrap();
        let mut heard = [0; 3];
        server.read_exact(&mut heard).await.unwrap();
        cut.send_replace(Cut::from(["b".to_string()]));
        client.write_all(b"two").await.unwrap();
        let patience = std::time::Duration::from_millis(200);
        assert!(
            tokio::time::timeout(patience, server.read_exact(&mut heard)).await.is_err(),
            "it went through a cut"
        );
        cut.send_replace(Cut::new());
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"two");
    }
}
