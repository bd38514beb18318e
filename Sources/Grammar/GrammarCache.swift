import Synchronization

/// Caches the compiled grammars of one vocabulary by their sources, so that requests with the same source share one.
/// Many threads may use it at once.
package final class GrammarCache: Sendable {
    package let vocabulary: GrammarVocabulary
    private let entries = Mutex<[Entry]>([])

    private struct Entry {
        let source: GrammarSource
        let grammar: CompiledGrammar
    }

    /// Beyond this many grammars, or this many bytes of all, the least recently used ones are dropped; requests that
    /// use them keep them.
    private static let maxEntries = 64
    private static let maxBytes = 512 << 20

    package init(_ vocabulary: GrammarVocabulary) { self.vocabulary = vocabulary }

    /// Returns the grammar of a source, which is compiled unless it is cached.
    ///
    /// - Throws: for sources that cannot be compiled.
    package func grammar(for source: GrammarSource) throws(GrammarError) -> CompiledGrammar {
        if let known = find(source) { return known }
        // Compiled outside the lock, so that other requests need not wait for it.
        let grammar = try CompiledGrammar(source, vocabulary)
        entries.withLock { entries in
            entries.insert(Entry(source: source, grammar: grammar), at: 0)
            var bytes = 0
            let kept = entries.prefix(Self.maxEntries).prefix {
                bytes += $0.grammar.byteCount
                return bytes <= Self.maxBytes
            }
            entries.removeSubrange(max(kept.count, 1)...)
        }
        return grammar
    }

    private func find(_ source: GrammarSource) -> CompiledGrammar? {
        entries.withLock { entries in
            guard let index = entries.firstIndex(where: { $0.source.isIdentical(to: source) }) else { return nil }
            let entry = entries.remove(at: index)
            entries.insert(entry, at: 0)
            return entry.grammar
        }
    }
}
