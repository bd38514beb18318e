/// The precedence of a request determines who is served first: the larger priority, then the earlier arrival. A smaller
/// value is served sooner.
struct Precedence: Comparable, Sendable {
    let priority: Int
    /// The arrival number is unique, so no two precedences are equal; a request keeps it when it is preempted.
    let arrival: UInt64

    static func < (left: Precedence, right: Precedence) -> Bool {
        left.priority == right.priority ? left.arrival < right.arrival : left.priority > right.priority
    }
}

/// A service order lists requests in the order in which they are served. The queue is one of these, and so are the
/// running requests.
struct ServiceOrder: Sendable {
    struct Entry: Sendable {
        let precedence: Precedence
        let request: UInt64
    }

    /// The entries ascend by precedence.
    private(set) var entries: [Entry] = []

    var isEmpty: Bool { entries.isEmpty }
    var count: Int { entries.count }
    var first: Entry? { entries.first }
    var last: Entry? { entries.last }

    mutating func insert(_ request: UInt64, at precedence: Precedence) {
        entries.insert(Entry(precedence: precedence, request: request), at: index(of: precedence))
    }

    /// Removes the request with `precedence`, which must be listed.
    mutating func remove(at precedence: Precedence) {
        let index = index(of: precedence)
        precondition(
            index < entries.count && entries[index].precedence == precedence, "no request with \(precedence)")
        entries.remove(at: index)
    }

    mutating func removeAll() { entries.removeAll() }

    /// Returns the index of the first entry that does not come before `precedence`.
    private func index(of precedence: Precedence) -> Int {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) / 2
            if entries[middle].precedence < precedence { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
