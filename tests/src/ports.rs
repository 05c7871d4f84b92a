//! Free loopback ports below the range from which the system gives ports to outgoing connections, so that a node that
//! is killed finds its port free when it comes back.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 18_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port nobody listens on now, not given out before by this process.
pub fn free() -> u16 {
    // Test processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = (FIRST + offset) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback between {FIRST} and {}", FIRST + COUNT)
}
