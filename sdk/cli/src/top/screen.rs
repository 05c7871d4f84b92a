//! The terminal while `top` has it: its other screen, keys at once and unseen. It is given back as it was, however `top`
//! ends.

use super::frame::{Line, Look, Size};
use crate::failure::Failure;
use crate::output::Out;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Where the size can't be read.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// What the person did.
pub(super) enum Key {
    Quit,
    Resized,
}

pub(super) struct Screen {
    keys: mpsc::Receiver<u8>,
    interrupt: Signal,
    terminate: Signal,
    resize: Signal,
    _before: Before,
}

/// The terminal's modes as they were.
struct Before(Option<Termios>);

impl Screen {
    pub(super) fn open(out: &mut Out<'_>) -> Result<Screen, Failure> {
        let screen = Screen {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            resize: signal(SignalKind::window_change())?,
            keys: keys(),
            _before: Before::take(),
        };
        out.screen(ENTER)?;
        Ok(screen)
    }

    /// The next thing that the person does.
    pub(super) async fn key(&mut self) -> Key {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return Key::Quit,
                _ = self.terminate.recv() => return Key::Quit,
                _ = self.resize.recv() => return Key::Resized,
                key = self.keys.recv() => match key {
                    Some(b'q' | b'Q' | 4) | None => return Key::Quit,
                    Some(_) => {}
                },
            }
        }
    }

    /// What comes of the work, or nothing where the person quits before it is done.
    pub(super) async fn unless_quit<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                key = self.key() => match key {
                    Key::Quit => return None,
                    Key::Resized => {}
                },
            }
        }
    }

    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 1 => {
                Size { columns: size.ws_col.into(), rows: usize::from(size.ws_row) }
            }
            _ => USUAL,
        }
    }

    /// In one write, over what stands there, so that nothing flickers.
    pub(super) fn show(&self, out: &mut Out<'_>, lines: &[Line]) -> Result<(), Failure> {
        let mut frame = String::from("\x1b[H");
        for (at, line) in lines.iter().enumerate() {
            let end = if at + 1 < lines.len() { "\r\n" } else { "" };
            frame += &format!("{}{}\x1b[0m\x1b[K{end}", code(line.look), line.text);
        }
        out.screen(&(frame + "\x1b[J"))
    }
}

fn code(look: Look) -> &'static str {
    match look {
        Look::Title => "\x1b[1m",
        Look::Head => "\x1b[7m",
        Look::Plain => "",
        Look::Warning => "\x1b[33m",
        Look::Faint => "\x1b[2m",
    }
}

/// Keys as they are pressed. The thread waits for one more until the process ends.
fn keys() -> mpsc::Receiver<u8> {
    let (out, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut key = [0u8; 1];
        while matches!(std::io::stdin().read(&mut key), Ok(1)) && out.blocking_send(key[0]).is_ok() {}
    });
    keys
}

impl Before {
    fn take() -> Before {
        let Ok(before) = tcgetattr(std::io::stdin()) else { return Before(None) };
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        let changed = tcsetattr(std::io::stdin(), OptionalActions::Now, &modes).is_ok();
        Before(changed.then_some(before))
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
