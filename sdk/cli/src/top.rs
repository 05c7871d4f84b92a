//! `top`: the cluster on one screen, read again each second. What is seen (`seen`) becomes lines (`frame`), and lines go to
//! the terminal (`screen`).

mod frame;
mod screen;
mod seen;

use crate::failure::{Exit, Failure};
use crate::output::{Format, Out};
use crate::values;
use frame::Size;
use quorate_sdk::Client;
use screen::{Key, Screen};
use seen::Seen;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

#[derive(clap::Args, Debug)]
pub struct Top {
    /// Print one frame and end: for scripts and pipes
    #[arg(long)]
    once: bool,
    /// How often the screen is read again
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration)]
    every: Duration,
}

/// A frame that goes to a file or a pipe is as wide as this, and as high as it needs to be.
const PLAIN: Size = Size { columns: 120, rows: usize::MAX };

pub(crate) async fn perform(it: Top, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let lives = out.is_terminal() && out.format == Format::Table && std::io::stdin().is_terminal();
    if it.once || !lives {
        let seen = seen::look(client).await?;
        out.one(&seen, |seen| frame::text(seen, None, PLAIN))?;
        return Ok(Exit::Ok);
    }
    follow(it.every, client, out).await
}

/// Until `q`, Ctrl-C or a signal. A cluster that does not answer is said on the screen, and asked again.
async fn follow(every: Duration, client: &Client, out: &mut Out<'_>) -> Result<Exit, Failure> {
    let mut screen = Screen::open(out)?;
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut trouble) = (None::<Seen>, None);
    loop {
        tokio::select! {
            key = screen.key() => match key {
                Key::Quit => return Ok(Exit::Ok),
                Key::Resized => {}
            },
            _ = tick.tick() => match screen.unless_quit(seen::look(client)).await {
                None => return Ok(Exit::Ok),
                Some(Ok(seen)) => {
                    let rates = last.replace(seen).map(|before| before.totals());
                    last.as_mut().into_iter().for_each(|seen| seen.since(rates.as_ref()));
                    trouble = None;
                }
                Some(Err(error)) => trouble = Some(error),
            },
        }
        screen.show(out, &frame::lines(last.as_ref(), trouble.as_ref(), screen.size()))?;
    }
}
