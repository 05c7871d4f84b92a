//! The few calls to the machine that safe Rust has no words for: mapped files, huge pages, the priority
//! and the cores of a thread, how much memory there is, leaving namespaces.
//!
//! It is not a portability layer and holds no policy: callers decide what to map and whom to slow down.
//! Read: `mapped` (a file as bytes), `huge`, `thread`, `memory`, `disk`, `isolate`.

mod clock;
pub mod disk;
mod huge;
mod isolate;
mod mapped;
mod memory;
mod thread;

pub use clock::clock_is_kept;
pub use huge::advise_huge;
pub use isolate::{NAMESPACES, close_all_on_exec, leave_namespaces, make_mount_read_only};
pub use mapped::{MapError, Mapped};
pub use memory::{resident_bytes, total_memory};
pub use thread::{ThreadError, allowed_cores, lower_priority, pin_to_cores};
