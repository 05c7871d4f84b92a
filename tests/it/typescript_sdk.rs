//! The TypeScript SDK against this build: its types, and its tests with real clusters.

use anyhow::ensure;
use quorate_tests::cluster::binary;
use std::path::Path;
use tokio::process::Command;

#[tokio::test]
async fn the_typescript_sdk_keeps_its_promises() -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("typescript-sdk.sh");
    let run = Command::new(script).env("QUORATE_BIN", binary()?).kill_on_drop(true).output().await?;
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{out}\n{err}");
    ensure!(run.status.success(), "tests/typescript-sdk.sh failed; what it said is above");
    Ok(())
}
