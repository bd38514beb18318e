package import KVCache

/// A transfer plan tells which process of the prefill server sends an entry to which process of the decode server. It
/// is a function of the two servers' placements and of the request's data groups, so both servers know it, and no
/// number is sent with an entry.
///
/// Every process of the decode server that keeps an entry receives it from exactly one process of those that keep it in
/// the prefill server. Of m such processes, receiver number j receives entry e from number `(e / 64 + j) mod m`:
/// equally divided caches pair one to one, and copies share the load in runs of 64 entries.
package struct TransferPlan: Sendable {
    package let layers: Range<Int>
    let source: CachePlacement
    let target: CachePlacement
    /// The routes of each of `layers`: of key sets that live as long as their request, and of those with a window.
    private let routes: [(request: Route, window: Route)]

    /// The processes that keep entries, by owner, on both sides.
    private struct Route: Sendable, Hashable {
        let senders: [[Int]]
        let senderRun: Int
        let receivers: [[Int]]
        let receiverRun: Int

        func sender(of entry: Int, to receiver: Int) -> Int? {
            let holders = receivers[entry / receiverRun % receivers.count]
            guard let number = holders.firstIndex(of: receiver) else { return nil }
            let keeping = senders[entry / senderRun % senders.count]
            return keeping[(entry / TransferPlan.run + number) % keeping.count]
        }

        /// The number of entries after which senders and receivers repeat.
        var period: Int {
            let counts = senders.reduce(1) { TransferPlan.commonMultiple($0, $1.count) }
            return TransferPlan.commonMultiple(
                TransferPlan.commonMultiple(TransferPlan.run * counts, senderRun * senders.count),
                receiverRun * receivers.count)
        }
    }

    /// The number of consecutive entries that one of several copies sends.
    private static let run = 64

    /// - Parameters:
    ///   - group: the data group whose ranks compute the request in the prefill server.
    ///   - targetGroup: the data group whose ranks read the keys in the decode server.
    ///   - layers: the layers whose keys are sent, from the first on: without those of the next-token block if the
    ///     decode server drafts no tokens. Both servers keep them.
    package init(
        from source: CachePlacement, group: Int, to target: CachePlacement, group targetGroup: Int, layers: Range<Int>
    ) {
        precondition(
            layers.lowerBound == 0 && source.isCompatible(with: target, layers: layers), "the caches store other bytes")
        self.layers = layers
        self.source = source
        self.target = target
        routes = layers.map { layer in
            func route(isWindow: Bool) -> Route {
                Route(
                    senders: source.holders(stage: source.stages[layer], group: group, isWindow: isWindow),
                    senderRun: source.run,
                    receivers: target.holders(stage: target.stages[layer], group: targetGroup, isWindow: isWindow),
                    receiverRun: target.run)
            }
            return (route(isWindow: false), route(isWindow: true))
        }
    }

    private func route(of set: KeySetID) -> Route {
        source.format[set].window == nil ? routes[set.layer].request : routes[set.layer].window
    }

    /// Returns the process that sends an entry to a receiver; `nil` if the receiver does not keep it.
    package func sender(of entry: Int, _ set: KeySetID, to receiver: Int) -> Int? {
        route(of: set).sender(of: entry, to: receiver)
    }

    /// Returns the entries of a set that one process sends to another, ascending: those whose last tokens are at the
    /// given positions.
    package func entries(of set: KeySetID, _ positions: Range<Int>, from sender: Int, to receiver: Int) -> [Int] {
        let (route, tokens) = (route(of: set), source.format[set].tokensPerEntry)
        return (positions.lowerBound / tokens..<positions.upperBound / tokens).filter {
            route.sender(of: $0, to: receiver) == sender
        }
    }

    /// Returns the sets of a layer that are sent while the prompt is computed, or after that if they have a window.
    func sets(of layer: Int, isWindow: Bool) -> [KeySetID] {
        source.format.layers[layer].indices.map { KeySetID(layer: layer, $0) }
            .filter { (source.format[$0].window != nil) == isWindow }
    }

    /// Returns the layers of which one process sends entries of one kind of sets to another, for some length of prompt.
    package func layers(from sender: Int, to receiver: Int, isWindow: Bool) -> [Int] {
        var known: [Route: Bool] = [:]
        return layers.filter { layer in
            guard !sets(of: layer, isWindow: isWindow).isEmpty else { return false }
            let route = isWindow ? routes[layer].window : routes[layer].request
            if let known = known[route] { return known }
            let exchanges = (0..<route.period).contains { route.sender(of: $0, to: receiver) == sender }
            known[route] = exchanges
            return exchanges
        }
    }

    /// Returns the position from which on all processes that send entries of windows have them, at the end of a prompt.
    func firstWholeEntry(before end: Int) -> Int {
        let isDivided = routes.contains { $0.window.senders[0].count > 1 }
        guard isDivided, source.format.window > 0 else { return 0 }
        return source.format.firstWholeEntry(before: end, receiverPageSize: target.format.pageSize)
    }

    /// Returns the number of bytes that one process sends to another for positions of a prompt: keys without those of
    /// windows, and without the frames' headers.
    package func bytes(_ positions: Range<Int>, from sender: Int, to receiver: Int) -> Int {
        layers(from: sender, to: receiver, isWindow: false).flatMap { sets(of: $0, isWindow: false) }.reduce(0) {
            $0 + entries(of: $1, positions, from: sender, to: receiver).count * source.format[$1].bytesPerEntry
        }
    }

    fileprivate static func commonMultiple(_ a: Int, _ b: Int) -> Int {
        var (left, right) = (a, b)
        while right != 0 { (left, right) = (right, left % right) }
        return a / left * b
    }
}
