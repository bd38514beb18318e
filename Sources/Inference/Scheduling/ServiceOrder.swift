/// Who is served first: the larger priority, then the earlier arrival. Smaller means sooner.
struct Precedence: Comparable, Sendable {
    let priority: Int
    /// Unique, so that no two requests are equal; a request keeps it for life, also when it is put back.
    let arrival: UInt64

    static func < (left: Precedence, right: Precedence) -> Bool {
        left.priority == right.priority ? left.arrival < right.arrival : left.priority > right.priority
    }
}

/// Requests in the order in which they are served. The queue is one of these, and so are the running requests.
struct ServiceOrder: Sendable {
    struct Entry: Sendable {
        let precedence: Precedence
        let request: UInt64
    }

    /// Ascending by precedence.
    private(set) var entries: [Entry] = []

    var isEmpty: Bool { entries.isEmpty }
    var count: Int { entries.count }
    var first: Entry? { entries.first }
    var last: Entry? { entries.last }

    mutating func insert(_ request: UInt64, at precedence: Precedence) {
        entries.insert(Entry(precedence: precedence, request: request), at: index(of: precedence))
    }

    /// The request must be there.
    mutating func remove(at precedence: Precedence) {
        let index = index(of: precedence)
        precondition(
            index < entries.count && entries[index].precedence == precedence, "no request with \(precedence)")
        entries.remove(at: index)
    }

    mutating func removeAll() { entries.removeAll() }

    /// Index of the first entry that does not come before `precedence`.
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
