import Synchronization

/// A grammar compiled for one vocabulary; it says which tokens may come next. Many threads may use it at once.
///
/// What is computed about it is kept in memory that grows with use, up to a bound, and is shared by all texts that
/// follow the grammar.
package final class CompiledGrammar: Sendable {
    private let network: TransitionNetwork
    let vocabulary: GrammarVocabulary
    private let symbols: [String: UInt16]
    private let memory: Mutex<Memory>

    /// Holds the item sets of a grammar behind a lock.
    final class Memory: Sendable {
        let sets: Mutex<ItemSets>
        init(_ sets: consuming ItemSets) { self.sets = Mutex(sets) }
    }

    init(_ rules: RuleSet, _ vocabulary: GrammarVocabulary) throws(GrammarError) {
        self.vocabulary = vocabulary
        symbols = vocabulary.symbolOfControl
        network = try NetworkBuilder.network(of: rules, controlSymbols: symbols)
        memory = Mutex(Memory(ItemSets(network, vocabulary, symbolCount: 256 + symbols.count)))
        _ = try start
    }

    /// The state before any token.
    package var start: GrammarState {
        get throws(GrammarError) {
            let memory = currentMemory
            let set = try memory.sets.withLock { sets throws(GrammarError) in try sets.start() }
            return GrammarState(grammar: self, memory: memory, set: set)
        }
    }

    /// The memory that new states use; it is replaced by an empty one when it has become too large.
    var currentMemory: Memory {
        memory.withLock { current in
            if current.sets.withLock({ $0.byteCount > ItemSets.maxBytes }) {
                current = Memory(ItemSets(network, vocabulary, symbolCount: 256 + symbols.count))
            }
            return current
        }
    }

    /// The estimated memory in use, in bytes.
    package var byteCount: Int {
        currentMemory.sets.withLock { $0.byteCount + $0.maskByteCount } + network.states.count * 100
    }

    /// The number of nodes of token trees that mask searches have read since the current memory was begun.
    package var searchedNodes: Int { currentMemory.sets.withLock { $0.searchedNodes } }
}

/// The position of a text in a grammar. It is a value: to go back, keep the earlier one.
package struct GrammarState: Sendable {
    private let grammar: CompiledGrammar
    private var memory: CompiledGrammar.Memory
    private var set: Int32

    init(grammar: CompiledGrammar, memory: CompiledGrammar.Memory, set: Int32) {
        self.grammar = grammar
        self.memory = memory
        self.set = set
    }

    /// Returns the state after one more token; `nil` if the grammar does not allow it.
    ///
    /// - Throws: if the computation takes too long.
    package func advanced(by token: Int32) throws(GrammarError) -> GrammarState? {
        let vocabulary = grammar.vocabulary
        if let symbol = vocabulary.controlSymbol(of: token) { return try advanced(by: CollectionOfOne(Int(symbol))) }
        let bytes = vocabulary.bytes(of: token)
        return bytes.isEmpty ? nil : try advanced(by: bytes.lazy.map { Int($0) })
    }

    /// Returns the state after some bytes; `nil` if the grammar does not allow them.
    package func advanced(by bytes: [UInt8]) throws(GrammarError) -> GrammarState? {
        try advanced(by: bytes.lazy.map { Int($0) })
    }

    private func advanced(by symbols: some Sequence<Int>) throws(GrammarError) -> GrammarState? {
        var state = self
        let current = grammar.currentMemory
        if current !== memory {
            let old = memory.sets.withLock { $0 }
            state.set = current.sets.withLock { old.copy(set, into: &$0) }
            state.memory = current
        }
        let from = state.set
        state.set = try current.sets.withLock { sets throws(GrammarError) in
            try sets.set(after: symbols, from: from)
        }
        return state.set == 0 ? nil : state
    }

    /// True if the text may end here.
    package var mayEnd: Bool { memory.sets.withLock { $0.accepts(set) } }

    /// True if nothing may follow.
    package var isFinal: Bool { memory.sets.withLock { $0.isFinal(set) } }

    /// Returns the tokens that may follow. The end of the text is not among them: see `mayEnd`.
    ///
    /// - Throws: if the computation takes too long.
    package func mask() throws(GrammarError) -> TokenMask {
        try memory.sets.withLock { sets throws(GrammarError) in try sets.mask(of: set) }
    }
}
