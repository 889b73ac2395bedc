//! The wire: types of `haus.v1` frames and REST bodies, error codes, times. No I/O and no SQL.
//!
//! `docs/protocol.md` is the text these types are tested against.

pub mod codes;
pub mod frame;
pub mod json;
pub mod reply;
pub mod size;
pub mod time;
pub mod types;

pub use codes::{CloseCode, ErrorCode};
