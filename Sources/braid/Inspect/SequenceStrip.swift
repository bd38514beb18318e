/// A sequence strip shows the owner of each part of a sequence, as a strip of characters, or of runs to draw.
package struct SequenceStrip: Sendable {
    /// A run is a range of consecutive tokens with one owner.
    package struct Run: Sendable, Equatable {
        package let owner: Int
        package var tokens: Range<Int>
    }

    private let owners: [Int]
    private let width: Int
    package let runs: [Run]

    /// - Parameters:
    ///   - owners: The owner of each token.
    ///   - width: The largest number of cells.
    package init(_ owners: [Int], width: Int) {
        precondition(!owners.isEmpty && width > 0, "a strip of \(owners.count) tokens in \(width) cells")
        self.owners = owners
        self.width = width
        var runs: [Run] = []
        for (token, owner) in owners.enumerated() {
            if runs.last?.owner == owner {
                runs[runs.count - 1].tokens = runs[runs.count - 1].tokens.lowerBound..<token + 1
            } else {
                runs.append(Run(owner: owner, tokens: token..<token + 1))
            }
        }
        self.runs = runs
    }

    /// True if cells are single tokens of the beginning, because the whole sequence has more changes of owner
    /// than cells.
    package var isBeginning: Bool { runs.count > width && owners.count > width }

    /// The tokens that each cell represents; its owner is that of the middle one.
    package var cells: [Range<Int>] {
        let count = min(width, owners.count)
        if isBeginning { return (0..<count).map { $0..<$0 + 1 } }
        return (0..<count).map { owners.count * $0 / count..<owners.count * ($0 + 1) / count }
    }

    package func owner(of cell: Range<Int>) -> Int { owners[cell.lowerBound + cell.count / 2] }

    package var text: String { String(cells.map { Self.digit(owner(of: $0)) }) }

    package var caption: String {
        if isBeginning { return "one character is one token: the first \(width) of \(grouped(owners.count))" }
        let tokens = cells.map(\.count)
        let each =
            tokens.min()! == tokens.max()!
            ? grouped(tokens[0]) : "\(grouped(tokens.min()!)) or \(grouped(tokens.max()!))"
        return each == "1" ? "one character is one token" : "one character is \(each) tokens"
    }

    /// Returns the character of an owner: 0 … 9, a … z, A … Z, and two more.
    package static func digit(_ place: Int) -> Character {
        let digits = Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@#")
        return place < digits.count ? digits[place] : "?"
    }
}
