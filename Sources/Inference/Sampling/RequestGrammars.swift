import Grammar
import Synchronization

/// This object holds the grammars of the requests that a process's ranks compute, and the state of each request's text
/// in its grammar.
///
/// Plans announce a request's grammar once, before its first token is sampled, and say when the request has ended. The
/// state of a text is a function of its tokens alone, which plans contain; keeping it only saves reading all of them
/// again. So it makes no difference which rank samples a row, or whether the request was preempted in between.
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

    /// Registers the grammars that a plan announces and releases those of ended requests, before the plan's rows are
    /// computed. Plans must be prepared in order.
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

    /// The choices that a request's grammar leaves for the next token.
    struct Choices {
        /// The tokens that may come next, including stop tokens where the text may end.
        var allowed: TokenMask
        /// True if only a stop token may come next.
        var mustEnd: Bool
    }

    /// - Parameters:
    ///   - known: The number of the sample's generated tokens that are final; those after them are drafts.
    /// - Returns: The choices; `nil` if the request has no grammar, or a draft has ended the text.
    /// - Throws: `SamplingFailure` if drafts have left the grammar, or it has no further state.
    func choices(
        for request: UInt64, _ sample: StepPlan.Sample, known: Int
    ) throws(SamplingFailure) -> Choices? {
        guard sample.isConstrained else { return nil }
        do {
            var state = try settledState(of: request, sample.generated[..<min(known, sample.generated.count)])
            for token in sample.generated.dropFirst(known) {
                // No token after the end of the text is needed.
                if sample.parameters.stopTokens.contains(token) { return nil }
                guard let next = try state.advanced(by: token) else {
                    throw GrammarError(.invalid, "a draft leaves the grammar")
                }
                state = next
            }
            let mask = try state.mask()
            var choices = Choices(allowed: mask, mustEnd: state.isFinal)
            // A stop token that is also text must not occur inside a text, which would end there, incomplete.
            let mayEnd = state.mayEnd
            for token in sample.parameters.stopTokens {
                if mayEnd { choices.allowed.insert(token) } else { choices.allowed.remove(token) }
            }
            guard !choices.allowed.isEmpty || mask.isEmpty else {
                throw GrammarError(
                    .invalid,
                    "only tokens of stop_token_ids could follow, before the answer is complete; leave out those "
                        + "that are text")
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
        // A text normally only grows; if it has not, it is read from its start.
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
