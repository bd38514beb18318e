import Synchronization

/// Caches the compiled grammars of one vocabulary by their sources, so that requests with the same source share one.
/// Many threads may use it at once.
///
/// The cache keeps the grammars that were used last. A grammar that it no longer keeps is still found while a request uses
/// it, since compiling it again would take time and twice the memory.
package final class GrammarCache: Sendable {
    package let vocabulary: GrammarVocabulary
    /// The grammars from the latest use on. The first ones are kept.
    private let entries = Mutex<[Entry]>([])

    private struct Entry {
        let source: GrammarSource
        /// The grammar, as long as anything uses it.
        weak let grammar: CompiledGrammar?
        /// The grammar if the cache keeps it; `nil` if only requests do.
        var kept: CompiledGrammar?

        init(_ source: GrammarSource, _ grammar: CompiledGrammar) {
            (self.source, self.grammar, kept) = (source, grammar, grammar)
        }
    }

    /// Beyond this many grammars, or this many bytes of all, those used least recently are not kept. As many requests may be
    /// queued, each with a grammar of its own, that ranks should find when the request runs; but a hostile client could queue
    /// gigabytes of them, so requests in the queue keep none.
    package static let maxEntries = 256
    private static let maxBytes = 512 << 20

    package init(_ vocabulary: GrammarVocabulary) { self.vocabulary = vocabulary }

    /// Returns the grammar of a source, which is compiled unless it is known.
    ///
    /// - Throws: for sources that cannot be compiled.
    package func grammar(for source: GrammarSource) throws(GrammarError) -> CompiledGrammar {
        if let known = changeEntries({ Self.use(source, among: &$0) }) { return known }
        // Compiled outside the lock, so that other requests need not wait for it.
        let grammar = try CompiledGrammar(source, vocabulary)
        return changeEntries { entries in
            // Another thread may have compiled the same meanwhile.
            if let known = Self.use(source, among: &entries) { return known }
            entries.insert(Entry(source, grammar), at: 0)
            Self.trim(&entries)
            return grammar
        }
    }

    /// Changes the entries under their lock. Grammars that are dropped are released after it, because that takes a while.
    private func changeEntries<Result>(_ change: (inout [Entry]) -> Result) -> Result {
        let (result, before) = entries.withLock { entries in
            let before = entries
            return (change(&entries), before)
        }
        withExtendedLifetime(before) {}
        return result
    }

    /// Returns the grammar of a source, and makes it the one that was used last; `nil` if it is not known.
    private static func use(_ source: GrammarSource, among entries: inout [Entry]) -> CompiledGrammar? {
        guard let index = entries.firstIndex(where: { $0.source.isIdentical(to: source) }) else { return nil }
        let entry = entries.remove(at: index)
        guard let grammar = entry.grammar else { return nil }
        entries.insert(Entry(source, grammar), at: 0)
        if entry.kept == nil { trim(&entries) }
        return grammar
    }

    /// Keeps no more grammars than the bounds allow, and forgets those that nothing uses.
    private static func trim(_ entries: inout [Entry]) {
        var bytes = 0
        for index in entries.indices {
            guard let kept = entries[index].kept else { continue }
            bytes += kept.byteCount
            if index >= maxEntries || index > 0 && bytes > maxBytes { entries[index].kept = nil }
        }
        entries.removeAll { $0.grammar == nil }
    }
}
