//! `price set|get|list`.

use crate::failure::{Exit, Failure};
use crate::output::{Out, or_empty, table};
use crate::values::{self, usd};
use quorate_sdk::Client;
use quorate_sdk::data::Price;

#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Put a model's price into the book; it counts from the next model call on
    Set(Set),
    /// One model's price
    Get { model: String },
    /// The whole price book
    List,
}

#[derive(clap::Args, Debug)]
pub struct Set {
    model: String,
    /// input, cached or output, for a million tokens: 3usd, 0.25usd or whole micro-dollars; what is not named is 0
    #[arg(value_name = "KEY=AMOUNT", required = true, value_parser = values::price)]
    amounts: Vec<(values::PriceOf, u64)>,
    /// Why, for whoever reads it later
    #[arg(long)]
    reason: Option<String>,
    /// Refuse unless this is the etag in force; 0: the model must have no price yet
    #[arg(long)]
    etag: Option<String>,
}

pub(crate) async fn perform(command: Command, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Set(it) => out.one(&set(it, client).await?, one_table)?,
        Command::Get { model } => out.one(&client.prices().get(&model).await?, one_table)?,
        Command::List => out.many(&client.prices().list().await?, list_table)?,
    }
    Ok(Exit::Ok)
}

async fn set(it: Set, client: &Client) -> Result<Price, quorate_sdk::Error> {
    let mut change = client.prices().set(&it.model);
    for (of, amount) in it.amounts {
        change = match of {
            values::PriceOf::Input => change.input(amount),
            values::PriceOf::Cached => change.cached(amount),
            values::PriceOf::Output => change.output(amount),
        };
    }
    if let Some(reason) = it.reason {
        change = change.reason(reason);
    }
    if let Some(etag) = it.etag {
        change = change.etag(etag);
    }
    change.send().await
}

fn one_table(price: &Price) -> String {
    list_table(std::slice::from_ref(price))
}

/// Dollars for a million tokens.
pub(crate) fn list_table(prices: &[Price]) -> String {
    let row = |it: &Price| {
        let [input, cached, output] = [it.input, it.cached, it.output].map(usd);
        let (etag, since) = (it.etag.clone(), or_empty(&it.update_time));
        vec![it.model.clone(), input, cached, output, etag, it.author.clone(), since, it.reason.clone()]
    };
    let rows: Vec<_> = prices.iter().map(row).collect();
    table(&["MODEL", "INPUT/M", "CACHED/M", "OUTPUT/M", "ETAG", "BY", "SINCE", "REASON"], &rows)
}
