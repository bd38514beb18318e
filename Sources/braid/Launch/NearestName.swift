/// Returns the name that differs least from `name`, if it differs in less than a third of its characters.
func nearest(to name: String, in names: [String]) -> String? {
    let best = names.map { (distance: distance(name, $0), name: $0) }.min { $0 < $1 }
    guard let best, best.distance * 3 < max(name.count, 4) + 2 else { return nil }
    return best.name
}

/// Returns the Levenshtein distance: the number of characters to insert, delete or replace.
private func distance(_ first: String, _ second: String) -> Int {
    let (first, second) = (Array(first.prefix(64)), Array(second.prefix(64)))
    var row = Array(0...second.count)
    for (i, left) in first.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, right) in second.enumerated() {
            let cost = min(diagonal + (left == right ? 0 : 1), row[j] + 1, row[j + 1] + 1)
            diagonal = row[j + 1]
            row[j + 1] = cost
        }
    }
    return row[second.count]
}
