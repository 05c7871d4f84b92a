//! How often members asked the disk for durability, by their own counters: nothing has to watch them for it.

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The sum of counters that members show at these ports; each name is the beginning of a line.
pub(crate) async fn count(ports: &[u16], names: &[&str]) -> anyhow::Result<u64> {
    let mut sum = 0;
    for port in ports {
        let text = metrics(*port).await?;
        let values = text.lines().filter(|line| names.iter().any(|name| line.starts_with(name)));
        let values: Vec<f64> = values.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        ensure!(!values.is_empty(), "port {port} shows none of {names:?}");
        sum += values.iter().sum::<f64>() as u64;
    }
    Ok(sum)
}

async fn metrics(port: u16) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("metrics")?;
    Ok(answer)
}
