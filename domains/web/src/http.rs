//! HTTP/1.1 (RFC 9110, RFC 9112) as far as a read-only site needs it: requests in, responses out, no I/O.

pub mod connection;
pub mod content_type;
pub mod date;
pub mod page;
pub mod range;
pub mod request;
pub mod respond;
pub mod status;
pub mod target;
