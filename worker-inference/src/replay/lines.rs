//! Lines of a trace, each of bounded length.

use std::io::{BufRead, ErrorKind, Read};

use super::ReplayError;

/// Bytes of one line. A request of the longest known traces has 400 kB.
const LINE_MAX: u64 = 16 << 20;

/// Calls `each` with the number and text of every line that is not blank.
pub(super) fn each_line(
    mut from: impl BufRead,
    what: &str,
    mut each: impl FnMut(usize, &str) -> Result<(), String>,
) -> Result<(), ReplayError> {
    let mut text = String::new();
    for line in 1.. {
        text.clear();
        let bad = |why: String| ReplayError::Line { what: what.to_owned(), line, why };
        match from.by_ref().take(LINE_MAX).read_line(&mut text) {
            Ok(0) => return Ok(()),
            Ok(read) if read as u64 == LINE_MAX => {
                return Err(bad(format!("it is longer than {LINE_MAX} bytes")));
            }
            Ok(_) => {}
            Err(cause) if cause.kind() == ErrorKind::InvalidData => {
                return Err(bad("it is not UTF-8 text".to_owned()));
            }
            Err(cause) => return Err(ReplayError::Read { what: what.to_owned(), cause }),
        }
        if !text.trim().is_empty() {
            each(line, text.trim()).map_err(bad)?;
        }
    }
    Ok(())
}
