/// A priority queue of nodes with the least recently used one first: a binary heap that knows the position of each
/// node.
///
/// Inserting and removing a node take time O(log n).
struct LeafOrder: Sendable {
    private struct Entry: Sendable {
        let node: Int
        let lastUse: UInt64
    }

    private var heap: [Entry] = []
    /// The position of each node in the heap; -1 if the node is not in it.
    private var places: [Int] = []

    var count: Int { heap.count }

    /// The least recently used node.
    var first: Int? { heap.first?.node }

    func contains(_ node: Int) -> Bool { places.indices.contains(node) && places[node] >= 0 }

    /// Adds a node, which must not be in the queue.
    mutating func insert(_ node: Int, lastUse: UInt64) {
        while places.count <= node { places.append(-1) }
        precondition(places[node] < 0, "node \(node) is there already")
        heap.append(Entry(node: node, lastUse: lastUse))
        places[node] = heap.count - 1
        rise(from: heap.count - 1)
    }

    /// Removes a node if it is in the queue.
    mutating func remove(_ node: Int) {
        guard contains(node) else { return }
        let place = places[node]
        places[node] = -1
        let last = heap.removeLast()
        guard place < heap.count else { return }
        put(last, at: place)
        rise(from: place)
        sink(from: places[last.node])
    }

    private mutating func rise(from start: Int) {
        var place = start
        while place > 0, heap[place].lastUse < heap[(place - 1) / 2].lastUse {
            swap(place, (place - 1) / 2)
            place = (place - 1) / 2
        }
    }

    private mutating func sink(from start: Int) {
        var place = start
        while true {
            let children = (2 * place + 1..<2 * place + 3).clamped(to: 0..<heap.count)
            guard let child = children.min(by: { heap[$0].lastUse < heap[$1].lastUse }),
                heap[child].lastUse < heap[place].lastUse
            else { return }
            swap(place, child)
            place = child
        }
    }

    private mutating func swap(_ one: Int, _ other: Int) {
        let moved = heap[one]
        put(heap[other], at: one)
        put(moved, at: other)
    }

    private mutating func put(_ entry: Entry, at place: Int) {
        heap[place] = entry
        places[entry.node] = place
    }
}
