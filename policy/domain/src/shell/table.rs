//! Text in columns.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Rows under a heading, each column as wide as its widest cell.
pub struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// A table with this heading.
    pub fn new(heading: &[&str]) -> Self {
        Grid { rows: [heading.iter().map(ToString::to_string).collect()].into() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Without any row but the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() <= 1
    }

    /// The lines. Columns of numbers are set to the right.
    pub fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let width = |column| self.rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
        let numeric = |column| {
            let plain = |text: String| text == "-" || text.starts_with(|c: char| c.is_ascii_digit());
            self.rows.len() > 1 && self.rows.iter().skip(1).all(|row| plain(cell(row, column)))
        };
        let shape: Vec<(usize, bool)> = (0..columns).map(|column| (width(column), numeric(column))).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = shape
                .iter()
                .enumerate()
                .map(|(column, &(width, right))| match right {
                    true => format!("{:>width$}", cell(row, column)),
                    false => format!("{:<width$}", cell(row, column)),
                })
                .collect();
            cells.join("  ").trim_end().to_string()
        };
        self.rows.iter().map(line).collect()
    }
}

/// Bytes as people say them.
pub fn bytes_text(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes {
        bytes if bytes >= 10 * MIB || bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        bytes => format!("{} KiB", bytes / 1024),
    }
}

/// Seconds with two digits after the point, without floating point.
pub fn seconds_text(nanoseconds: u64) -> String {
    format!("{}.{:02} s", nanoseconds / 1_000_000_000, nanoseconds / 10_000_000 % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let mut grid = Grid::new(&["domain", "id"]);
        grid.row(["policy".into(), "0".into()]);
        grid.row(["web".into(), "12".into()]);
        assert_eq!(grid.lines(), ["domain  id", "policy   0", "web     12"]);
    }

    #[test]
    fn quantities() {
        assert_eq!(bytes_text(16 << 20), "16 MiB");
        assert_eq!(bytes_text(1536 << 10), "1536 KiB");
        assert_eq!(seconds_text(1_234_567_890), "1.23 s");
        assert_eq!(seconds_text(45_000_000), "0.04 s");
    }
}
