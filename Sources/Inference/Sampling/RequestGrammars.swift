import Grammar
import Synchronization

/// The grammars that the requests of a process's ranks follow, and where each request's text stands in its grammar.
///
/// Plans announce a request's grammar once, before its first token is sampled, and say when it has ended. Where a text
/// stands is a function of its tokens alone, which plans carry; what is kept here only saves reading them all again. So
/// it makes no difference which rank samples a row, or whether the request was preempted in between.
final class RequestGrammars: Sendable {
    private let cache: GrammarCache?
    private let requests = Mutex<[UInt64: Entry]>([:])

    private struct Entry {
        var grammar: Result<CompiledGrammar, GrammarError>
        /// The state after the first `count` generated tokens.
        var count = 0
        var state: GrammarState?
    }

    init(_ cache: GrammarCache?) { self.cache = cache }

    /// Takes note of what a plan announces, before its rows are computed. Plans must come in order.
    func prepare(for plan: StepPlan) {
        for announced in plan.grammars {
            let grammar = Result { () throws(GrammarError) in
                guard let cache else { throw GrammarError(.unsupported, "this process has no vocabulary") }
                return try cache.grammar(for: announced.source)
            }
            requests.withLock { $0[announced.request] = Entry(grammar: grammar) }
        }
        guard !plan.endedGrammars.isEmpty else { return }
        requests.withLock { requests in
            for request in plan.endedGrammars { requests[request] = nil }
        }
    }

    /// What a request's grammar says of the next token.
    struct Choices {
        /// The tokens that may come next, stop tokens among them where the text may end.
        var allowed: TokenMask
        /// Nothing but a stop token may come.
        var mustEnd: Bool
    }

    /// - Parameters:
    ///   - known: how many of the sample's generated tokens are settled; those behind them are drafts.
    /// - Returns: `nil` where the request follows no grammar, or a draft has ended the text.
    /// - Throws: where drafts have left the grammar, or it cannot be followed any further.
    func choices(
        for request: UInt64, _ sample: StepPlan.Sample, known: Int
    ) throws(SamplingFailure) -> Choices? {
        guard sample.isConstrained else { return nil }
        do {
            var state = try settledState(of: request, sample.generated[..<min(known, sample.generated.count)])
            for token in sample.generated.dropFirst(known) {
                // Nobody asks what comes behind the end of the text.
                if sample.parameters.stopTokens.contains(token) { return nil }
                guard let next = try state.advanced(by: token) else {
                    throw GrammarError(.invalid, "a draft leaves the grammar")
                }
                state = next
            }
            var choices = Choices(allowed: try state.mask(), mustEnd: state.isFinal)
            // A stop token that is text does not come in the middle of one.
            let mayEnd = state.mayEnd
            for token in sample.parameters.stopTokens {
                if mayEnd { choices.allowed.insert(token) } else { choices.allowed.remove(token) }
            }
            return choices
        } catch {
            throw SamplingFailure(description: "structured output: \(error)")
        }
    }

    private func settledState(of request: UInt64, _ tokens: ArraySlice<Int32>) throws(GrammarError) -> GrammarState {
        guard var entry = requests.withLock({ $0[request] }) else {
            throw GrammarError(.invalid, "no grammar was announced for request \(request)")
        }
        let grammar = try entry.grammar.get()
        // A text only grows; should it not have, it is read anew.
        if entry.count > tokens.count { (entry.state, entry.count) = (nil, 0) }
        var state: GrammarState
        if let known = entry.state { state = known } else { state = try grammar.start }
        for token in tokens.dropFirst(entry.count) {
            guard let next = try state.advanced(by: token) else {
                throw GrammarError(.invalid, "token \(token) is not in the grammar")
            }
            state = next
        }
        (entry.state, entry.count) = (state, tokens.count)
        requests.withLock { requests in
            if requests[request] != nil { requests[request] = entry }
        }
        return state
    }
}
