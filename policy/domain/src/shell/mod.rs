//! The admin shell: a line editor, the commands, and tables that read well on 80 columns.

mod command;
mod line;
mod table;

pub use command::{COMMANDS, Command, Subject, parse};
pub use line::{Editor, Input};
pub use table::{Grid, bytes_text, seconds_text};

/// What the shell says when it is ready for a line.
pub const PROMPT: &str = "bulkhead> ";
