/// Holds the item sets of one grammar, which are computed while texts are matched, as in Earley's algorithm.
///
/// An item is a state of the network and a frame: where to continue when the state's rule ends. A frame is the set of
/// the items after all calls that began the rule at one position. Equal frames, and equal sets, are stored once, so
/// that sets and the moves between them form a deterministic automaton that is built as far as it is used. Set 0 is
/// empty.
struct ItemSets {
    private let network: TransitionNetwork
    private let vocabulary: GrammarVocabulary
    /// Maps each symbol to its class: no move distinguishes symbols of one class.
    private let classes: [UInt16]
    private let classCount: Int
    /// The control tokens that the grammar names.
    private let controls: [(symbolClass: UInt16, token: Int32)]

    private var sets: [ItemSet] = []
    private var numbers: [[UInt64]: Int32] = [:]
    private var frames: [Frame] = []
    private var frameNumbers: [[UInt64]: Int32] = [:]
    /// Maps each set and class to the next set; -1 if it is not known yet.
    private var moves: [Int32] = []
    private var masks: [Int32: TokenMask] = [:]
    private var admitsPlain: [Int32: Bool] = [:]
    /// The number of items of all sets and frames.
    private var storedItems = 0
    /// The number of items that the current operation has read.
    private var work = 0
    /// The number of nodes of token trees that were read.
    private(set) var searchedNodes = 0

    private struct ItemSet {
        var items: [UInt64]
        var accepts: Bool
    }

    private struct Frame {
        var returns: [UInt64]
        var depth: Int
    }

    /// Rules nested deeper than this cannot be entered.
    static let maxDepth = 1000
    /// The bytes, masks aside, beyond which a grammar's memory is replaced by an empty one.
    static let maxBytes = 24 << 20
    /// The number of masks at which all masks are dropped.
    static let maxMasks = 512
    /// The number of items that one operation may read; an operation that needs more fails.
    private static let maxWork = 2_000_000
    /// The item that follows the root rule: a set that has it accepts the text so far.
    private static let endOfText = UInt64.max

    init(_ network: TransitionNetwork, _ vocabulary: GrammarVocabulary, symbolCount: Int) {
        self.network = network
        self.vocabulary = vocabulary
        var borders = PlainText.borders.union([0, 256])
        for move in network.states.lazy.flatMap(\.moves) {
            borders.insert(Int(move.low))
            borders.insert(Int(move.high) + 1)
        }
        var (classes, count) = ([UInt16](), 0)
        for symbol in 0..<symbolCount {
            if borders.contains(symbol) { count += 1 }
            classes.append(UInt16(count - 1))
        }
        (self.classes, classCount) = (classes, count)
        let named = Set(network.states.lazy.flatMap(\.moves).filter { $0.low >= 256 }.map(\.low))
        controls = vocabulary.controlSymbols.filter { named.contains($0.symbol) }.map {
            (classes[Int($0.symbol)], $0.token)
        }
        frames = [Frame(returns: [Self.endOfText], depth: 0)]
        frameNumbers = [[Self.endOfText]: 0]
        _ = number(ItemSet(items: [], accepts: false))
    }

    /// Returns the set before anything was read.
    mutating func start() throws(GrammarError) -> Int32 {
        work = 0
        return try close([], calling: (Int32(RuleSet.root), [Self.endOfText]), accepts: network.rootIsNullable)
    }

    /// The estimated bytes of the sets, masks aside.
    var byteCount: Int { moves.count * 4 + storedItems * 8 + (sets.count + frames.count) * 100 }

    var maskByteCount: Int { masks.count * vocabulary.size / 8 }

    func accepts(_ set: Int32) -> Bool { sets[Int(set)].accepts }

    /// Returns true if nothing can follow.
    func isFinal(_ set: Int32) -> Bool { sets[Int(set)].items.isEmpty }

    /// Returns the set after some symbols; 0 if they cannot follow.
    mutating func set(after symbols: some Sequence<Int>, from set: Int32) throws(GrammarError) -> Int32 {
        work = 0
        var set = set
        for symbol in symbols {
            set = try next(set, classes[symbol])
            if set == 0 { break }
        }
        return set
    }

    private static func pack(_ state: Int32, _ frame: Int32) -> UInt64 { UInt64(state) << 32 | UInt64(frame) }

    @inline(__always)
    private mutating func next(_ set: Int32, _ symbolClass: UInt16) throws(GrammarError) -> Int32 {
        let known = moves[Int(set) * classCount + Int(symbolClass)]
        return known >= 0 ? known : try findNext(set, symbolClass)
    }

    /// Computes the set after a class, and thereby for the neighbouring classes that have the same moves.
    private mutating func findNext(_ set: Int32, _ symbolClass: UInt16) throws(GrammarError) -> Int32 {
        var kernel: [UInt64] = []
        var (first, last) = (UInt16(0), UInt16(classCount - 1))
        for item in sets[Int(set)].items {
            for move in network.states[Int(item >> 32)].moves {
                let (low, high) = (classes[Int(move.low)], classes[Int(move.high)])
                if high < symbolClass {
                    first = max(first, high + 1)
                } else if low > symbolClass {
                    last = min(last, low - 1)
                } else {
                    (first, last) = (max(first, low), min(last, high))
                    kernel.append(Self.pack(move.target, Int32(truncatingIfNeeded: item)))
                }
            }
        }
        try spend(sets[Int(set)].items.count)
        let found = kernel.isEmpty ? 0 : try close(kernel)
        let row = Int(set) * classCount
        for place in Int(first)...Int(last) { moves[row + place] = found }
        return found
    }

    /// Returns the set of some items and all that follow from them without reading.
    ///
    /// Ends of rules, whose frames are known, and empty moves come first. Calls are collected by rule, and made in an
    /// order in which a rule's frame is complete before the rule is entered.
    private mutating func close(
        _ kernel: [UInt64], calling root: (rule: Int32, returns: [UInt64])? = nil, accepts: Bool = false
    ) throws(GrammarError) -> Int32 {
        var (set, calls) = (ItemSet(items: [], accepts: accepts), PendingCalls())
        var (seen, pending) = (Set<UInt64>(), kernel)
        if let root { calls.add(root.rule, network.callOrder[Int(root.rule)], root.returns) }
        while let item = pending.popLast() {
            guard item != Self.endOfText else {
                set.accepts = true
                continue
            }
            guard seen.insert(item).inserted else { continue }
            try spend(1)
            let (state, frame) = (network.states[Int(item >> 32)], Int32(truncatingIfNeeded: item))
            if !state.moves.isEmpty { set.items.append(item) }
            if state.accepts { pending += frames[Int(frame)].returns }
            for target in state.empty { pending.append(Self.pack(target, frame)) }
            for call in state.calls { add(call, frame, &calls) }
        }
        while let (rule, returns) = calls.removeFirst() {
            guard let frame = number(returns) else { continue }
            let entry = network.entries[Int(rule)]
            try spend(entry.states.count + entry.calls.count)
            set.items += entry.states.map { Self.pack($0, frame) }
            for call in entry.calls { add(call, frame, &calls) }
        }
        set.items.sort()
        return set.items.isEmpty && !set.accepts ? 0 : number(set)
    }

    /// The calls to make, by rule.
    ///
    /// A binary heap gives the first rule: thousands of rules may begin at the same place, and ranks wait meanwhile.
    private struct PendingCalls {
        private var returns: [Int32: [UInt64]] = [:]
        /// The rules with their places in `callOrder`, all different. The children of an element are at twice its index
        /// plus 1 and plus 2.
        private var heap: [(order: Int32, rule: Int32)] = []

        mutating func add(_ rule: Int32, _ order: Int32, _ frames: [UInt64]) {
            guard returns[rule] == nil else {
                returns[rule]! += frames
                return
            }
            returns[rule] = frames
            heap.append((order, rule))
            var index = heap.count - 1
            while index > 0, heap[index].order < heap[(index - 1) / 2].order {
                heap.swapAt(index, (index - 1) / 2)
                index = (index - 1) / 2
            }
        }

        mutating func removeFirst() -> (rule: Int32, returns: [UInt64])? {
            guard let first = heap.first, let last = heap.popLast() else { return nil }
            if !heap.isEmpty { sink(last) }
            return (first.rule, Set(returns.removeValue(forKey: first.rule) ?? []).sorted())
        }

        /// Puts an element in the first one's place, and then behind those that precede it.
        private mutating func sink(_ element: (order: Int32, rule: Int32)) {
            var index = 0
            heap[0] = element
            while true {
                var next = index
                for child in [2 * index + 1, 2 * index + 2]
                where child < heap.count && heap[child].order < heap[next].order {
                    next = child
                }
                guard next != index else { return }
                heap.swapAt(index, next)
                index = next
            }
        }
    }

    /// Adds a call. If it is the last thing in its rule, what follows the rule follows the call, as in a tail call.
    private mutating func add(_ call: TransitionNetwork.Call, _ frame: Int32, _ calls: inout PendingCalls) {
        let isLast = network.states[Int(call.target)].isBareEnd
        let returns = isLast ? frames[Int(frame)].returns : [Self.pack(call.target, frame)]
        work += returns.count
        calls.add(call.rule, network.callOrder[Int(call.rule)], returns)
    }

    private mutating func spend(_ count: Int) throws(GrammarError) {
        work += count
        guard work <= Self.maxWork else {
            throw GrammarError(
                .tooLarge, "the grammar is too ambiguous here: finding what may follow takes too many steps")
        }
    }

    /// Returns the number of a frame.
    ///
    /// - Returns: `nil` if the frame would be nested too deeply.
    private mutating func number(_ returns: [UInt64]) -> Int32? {
        if let known = frameNumbers[returns] { return known }
        let depth = returns.reduce(0) {
            $1 == Self.endOfText ? $0 : max($0, frames[Int(Int32(truncatingIfNeeded: $1))].depth + 1)
        }
        guard depth <= Self.maxDepth else { return nil }
        frames.append(Frame(returns: returns, depth: depth))
        storedItems += returns.count
        frameNumbers[returns] = Int32(frames.count - 1)
        return Int32(frames.count - 1)
    }

    private mutating func number(_ set: ItemSet) -> Int32 {
        let key = set.accepts ? set.items + [Self.endOfText] : set.items
        if let known = numbers[key] { return known }
        sets.append(set)
        storedItems += set.items.count
        numbers[key] = Int32(sets.count - 1)
        moves += repeatElement(sets.count == 1 ? 0 : -1, count: classCount)
        return Int32(sets.count - 1)
    }

    // MARK: - Masks

    /// Returns the tokens that may follow.
    mutating func mask(of set: Int32) throws(GrammarError) -> TokenMask {
        if let known = masks[set] { return known }
        work = 0
        var mask = TokenMask(size: vocabulary.size)
        if try admitsPlainText(set) {
            mask.formUnion(vocabulary.plainMask)
            try search(vocabulary.otherTrie, from: set, into: &mask)
        } else {
            try search(vocabulary.trie, from: set, into: &mask)
        }
        for (symbolClass, token) in controls {
            if try next(set, symbolClass) != 0 { mask.insert(token) }
        }
        if masks.count >= Self.maxMasks { masks.removeAll(keepingCapacity: true) }
        masks[set] = mask
        return mask
    }

    private mutating func search(_ trie: TokenTrie, from set: Int32, into mask: inout TokenMask) throws(GrammarError) {
        var path = [Int32](repeating: 0, count: trie.maxDepth + 1)
        path[0] = set
        var node = 0
        var searched = 0
        while node < trie.nodeCount {
            searched += 1
            let depth = Int(trie.depths[node])
            let found = try next(path[depth], classes[Int(trie.bytes[node])])
            if found == 0 {
                node = Int(trie.ends[node])
                continue
            }
            path[depth + 1] = found
            if trie.tokens[node] >= 0 { mask.insert(trie.tokens[node]) }
            node += 1
        }
        searchedNodes += searched
    }

    /// Returns true if every plain text of up to `PlainText.maxLength` characters may follow.
    private mutating func admitsPlainText(_ set: Int32) throws(GrammarError) -> Bool {
        if let known = admitsPlain[set] { return known }
        var seen: Set<UInt64> = [UInt64(set) << 8]
        var places = [(set: set, state: 0)]
        var admits = true
        for _ in 0..<PlainText.maxLength where admits && !places.isEmpty {
            // One character at a time: all sets in `places` are between characters.
            var (pending, later) = (places, [(set: Int32, state: Int)]())
            while admits, let place = pending.popLast() {
                for move in PlainText.moves[place.state] where admits {
                    for symbolClass in classes[Int(move.range.lowerBound)]...classes[Int(move.range.upperBound)] {
                        let found = try next(place.set, symbolClass)
                        if found == 0 {
                            admits = false
                            break
                        }
                        guard seen.insert(UInt64(found) << 8 | UInt64(move.target)).inserted else { continue }
                        if move.target == 0 { later.append((found, 0)) } else { pending.append((found, move.target)) }
                    }
                }
            }
            places = later
        }
        admitsPlain[set] = admits
        return admits
    }

    // MARK: - Moving to other memory

    /// Copies a set to another memory of the same grammar and returns its number there.
    func copy(_ set: Int32, into other: inout ItemSets) -> Int32 {
        var known: [Int32: Int32] = [0: 0]
        let items = sets[Int(set)].items.map { copy($0, into: &other, &known) }.sorted()
        return other.number(ItemSet(items: items, accepts: sets[Int(set)].accepts))
    }

    private func copy(_ item: UInt64, into other: inout ItemSets, _ known: inout [Int32: Int32]) -> UInt64 {
        if item == Self.endOfText { return item }
        let (state, frame) = (Int32(item >> 32), Int32(truncatingIfNeeded: item))
        if let copied = known[frame] { return Self.pack(state, copied) }
        let returns = frames[Int(frame)].returns.map { copy($0, into: &other, &known) }.sorted()
        // The frame was not too deep here, so it is not too deep there.
        let copied = other.number(returns)!
        known[frame] = copied
        return Self.pack(state, copied)
    }
}
