//! What a server writes, measured on its way to rmcp: that drops a line over the bound in silence, and whoever waits for
//! its answer should not have to wait for the end of their time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

pub(super) struct Measured<R> {
    inner: R,
    most_bytes: usize,
    line_bytes: usize,
    /// How many lines were too long.
    dropped: watch::Sender<u64>,
}

impl<R> Measured<R> {
    pub(super) fn new(inner: R, most_bytes: usize) -> (Measured<R>, watch::Receiver<u64>) {
        let dropped = watch::Sender::new(0);
        let told = dropped.subscribe();
        (Measured { inner, most_bytes, line_bytes: 0, dropped }, told)
    }

    fn pass(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let before = self.line_bytes;
            self.line_bytes += piece.len();
            if before <= self.most_bytes && self.line_bytes > self.most_bytes {
                self.dropped.send_modify(|dropped| *dropped += 1);
            }
            if piece.ends_with(b"\n") {
                self.line_bytes = 0;
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Measured<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        this.pass(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn long_lines_are_counted_once_and_everything_passes() {
        let text = ["short", "exactly 10", &"x".repeat(40), "", "again long long"].join("\n");
        let (mut measured, told) = Measured::new(text.as_bytes(), 11);
        let mut passed = Vec::new();
        measured.read_to_end(&mut passed).await.expect("read");
        assert_eq!((passed, *told.borrow()), (text.clone().into_bytes(), 2));
        // However it comes in pieces.
        let (mut measured, told) = Measured::new(&b""[..], 11);
        text.as_bytes().chunks(3).for_each(|piece| measured.pass(piece));
        assert_eq!(*told.borrow(), 2);
    }
}
