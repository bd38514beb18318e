/// A transfer action is what a scheduler wants of the connection to another server, where one server computes the keys
/// of prompts and another one the tokens.
///
/// The scheduler's owner takes the actions after every call that changes the scheduler, and carries them out in order
/// before it submits the next plan: pages that an action gives up may be written by that plan.
package enum TransferAction: Sendable, Equatable {
    /// Another server shall compute this request's prompt, of which the prefix cache lacks `missing` tokens.
    /// `Scheduler.prefillStarted` or `prefillLost` answers. `attempt` is 1, and one more each time that `prefillLost`
    /// wants it asked for again.
    case requestPrefill(UInt64, GenerationRequest, missing: Int, attempt: Int)
    /// Pages for the other server's keys are reserved. `Scheduler.received` or `prefillLost` answers.
    case receive(UInt64, KVReservation)
    /// The request's keys are no longer wanted, or no longer sent. Its pages are given up.
    case cancel(UInt64)
    /// The computation of a prompt for another server has begun, in this data group.
    case prefillStarted(UInt64, group: Int)
    /// The request's keys may be sent from these pages, as far as they are computed.
    case send(UInt64, KVPages, PromptProgress)
    /// The pages of a request whose keys are being sent are given up. They are computed again, and then sent.
    case pauseSending(UInt64)
    /// The prompt is computed. The action comes again if the prompt is computed again.
    case prefilled(UInt64, PrefillResult)

    /// The request that the action is about.
    package var request: UInt64 {
        switch self {
        case .requestPrefill(let id, _, _, _), .receive(let id, _), .cancel(let id), .prefillStarted(let id, _),
            .send(let id, _, _), .pauseSending(let id), .prefilled(let id, _):
            id
        }
    }
}

/// The progress of a prompt tells how far its keys are computed.
package struct PromptProgress: Sendable, Equatable {
    /// The keys of the positions before this one are final in all layers.
    package var computed: Int
    /// The steps in flight that compute keys of the prompt, in order; each begins where the one before it ends.
    package var steps: [Step]

    /// A step in flight, which computes the keys of the positions before `end`.
    package struct Step: Sendable, Equatable {
        package var number: Int
        package var end: Int

        package init(number: Int, end: Int) {
            self.number = number
            self.end = end
        }
    }

    package init(computed: Int, steps: [Step] = []) {
        self.computed = computed
        self.steps = steps
    }
}

/// The pages of a request's keys.
package struct KVPages: Sendable, Equatable {
    /// The pages of the first positions, in order.
    package var pages: [Int32]
    /// The window pages that are held, in order; empty where the model has no windows.
    package var windowPages: [Int32]
    /// The index in `pages` of the page that has the same positions as the first of `windowPages`.
    package var firstWindowPage: Int

    package init(pages: [Int32], windowPages: [Int32] = [], firstWindowPage: Int = 0) {
        self.pages = pages
        self.windowPages = windowPages
        self.firstWindowPage = firstWindowPage
    }
}

/// The pages that a request reserves for keys of another server, and the positions whose keys it lacks.
package struct KVReservation: Sendable, Equatable {
    package var pages: KVPages
    /// The data group whose ranks read the keys.
    package var group: Int
    /// The positions without keys: from the end of the prefix that was found in the cache to the end of the prompt.
    package var positions: Range<Int>
    /// The position from which on entries of window sets have space; at most the first that the next row sees.
    package var windowStart: Int

    package init(pages: KVPages, group: Int, positions: Range<Int>, windowStart: Int) {
        self.pages = pages
        self.group = group
        self.positions = positions
        self.windowStart = windowStart
    }
}

/// The result of a prefill besides its keys.
package struct PrefillResult: Sendable, Equatable {
    /// The first token; `nil` where the request asks for no new token.
    package var token: TokenLogProbs?
    /// The draft tokens that follow `token`.
    package var drafts: [Int32]
    /// The number of prompt tokens whose keys were found in the prefix cache.
    package var cachedTokens: Int

    package init(token: TokenLogProbs?, drafts: [Int32] = [], cachedTokens: Int = 0) {
        self.token = token
        self.drafts = drafts
        self.cachedTokens = cachedTokens
    }
}

/// The choices for a request whose prefill on another server was lost.
package enum PrefillRecovery: Sendable, Equatable {
    /// Computes the rest of the prompt itself. The keys of the positions before `reached` have arrived.
    case local(reached: Int)
    /// Asks for the prefill again. The keys of the positions before `reached` have arrived.
    case again(reached: Int)
    /// Ends the request with an error. The keys of the positions before `reached` have arrived, and stay in the prefix
    /// cache.
    case fail(String, reached: Int)
}
