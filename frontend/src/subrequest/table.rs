//! Columns of text, as Go's `tabwriter` sets them.

/// Sets rows of equally many cells; each column but the last is as wide as its widest cell plus `padding` blanks.
pub(super) fn table<const N: usize>(rows: &[[&str; N]], padding: usize) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + padding);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index + 1 < N {
                text.extend(std::iter::repeat_n(' ', widths[index] - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}
