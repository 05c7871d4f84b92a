//! Progress of long work: told to whoever watches, shown on a terminal by [`Bars`].

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Is told how far a pull is. Calls come from one thread.
pub trait Watch: Sync {
    /// A stage begins; `bytes` is what it will handle, where known.
    fn stage(&self, what: &str, bytes: Option<u64>);
    /// So many bytes of the stage are done.
    fn at(&self, bytes: u64);
    /// A line for the user.
    fn say(&self, line: &str);
}

/// Watches nothing.
pub struct Silent;

impl Watch for Silent {
    fn stage(&self, _what: &str, _bytes: Option<u64>) {}
    fn at(&self, _bytes: u64) {}
    fn say(&self, _line: &str) {}
}

/// A bar on standard error; plain lines where that is no terminal.
pub struct Bars {
    bar: ProgressBar,
    terminal: bool,
}

impl Bars {
    pub fn new() -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Bars { bar: ProgressBar::with_draw_target(None, target), terminal }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Bars {
    fn stage(&self, what: &str, bytes: Option<u64>) {
        let template = match bytes {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
            None => "{msg} {spinner} {bytes}",
        };
        self.bar.set_style(ProgressStyle::with_template(template).expect("the templates above are valid"));
        self.bar.reset();
        match bytes {
            Some(bytes) => self.bar.set_length(bytes),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(what.to_string());
        self.bar.enable_steady_tick(Duration::from_millis(200));
        if !self.terminal {
            let of = bytes.map(|bytes| format!(" ({})", HumanBytes(bytes))).unwrap_or_default();
            eprintln!("{what}{of}");
        }
    }

    fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}
