import Foundation

/// A text table is a table for a terminal: columns are as wide as their cells, and numbers are right-aligned.
package struct TextTable {
    private var rows: [[String]]
    /// The first `left` columns are words, and left-aligned.
    private let left: Int

    package init(_ titles: [String], left: Int) {
        rows = [titles]
        self.left = left
    }

    package mutating func add(_ row: [String]) {
        precondition(row.count == rows[0].count, "\(row.count) cells for \(rows[0].count) columns")
        rows.append(row)
    }

    package var lines: [String] {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max()! }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return column < left ? cell + space : space + cell
            }
            return String(cells.joined(separator: "  ").reversed().drop { $0 == " " }.reversed())
        }
    }
}

/// Returns a number of bytes with three digits or more, in powers of 1000, such as `1.23 MB`.
package func bytesText(_ bytes: Double) -> String {
    var (value, unit) = (bytes, 0)
    let units = ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5, unit < units.count - 1 { (value, unit) = (value / 1000, unit + 1) }
    let digits = value == value.rounded() && unit == 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0
    return String(format: "%.\(digits)f \(units[unit])", value)
}

/// Returns a fraction in percent, such as `12.5 %`.
package func percent(_ fraction: Double) -> String { String(format: "%.1f %%", 100 * fraction) }
