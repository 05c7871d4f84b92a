//! Models that the cluster knows: `model list --cluster`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, bytes, table};
use quorate_sdk::Client;
use quorate_sdk::data::Model;

pub(crate) async fn list(client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    out.many(&client.cluster().models().await?, list_table)?;
    Ok(Exit::Ok)
}

pub(crate) fn list_table(models: &[Model]) -> String {
    let row = |it: &Model| {
        vec![it.name.clone(), bytes(it.bytes), it.holders.join(","), it.digest.chars().take(16).collect()]
    };
    let rows: Vec<_> = models.iter().map(row).collect();
    table(&["NAME", "SIZE", "HOLDERS", "DIGEST"], &rows)
}
