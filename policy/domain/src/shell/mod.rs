//! The admin shell's language: the commands, and tables that read well on 80 columns. Editing and echo are the console
//! domain's business.

mod command;
mod table;

pub use command::{COMMANDS, Command, Subject, parse};
pub use table::{Grid, bytes_text, seconds_text};

/// What the shell says when it is ready for a line.
pub const PROMPT: &str = "bulkhead> ";
