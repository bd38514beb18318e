import Inference
import KVCache
import TestSupport
import Testing

/// These simulated ranks run a model without arithmetic: the next token is a hash of *all* tokens before it, read back
/// from the pages that the scheduler assigned. So the text changes if a page is given to two requests, a position is
/// computed twice or never, or a token is lost in a preemption.
///
/// Their next-token block drafts the right token two times in three. It stores the token that follows each position,
/// which is checked whenever that position is read.
struct HashingRanks {
    let pageSize: Int
    let vocabularySize: Int
    /// The number of data groups that have caches of their own; 1 if all groups share one.
    private let caches: Int
    /// The token in each slot of each cache; -1 where nothing was written.
    private var memory: [Int32]
    /// The token that followed the slot's token.
    private var following: [Int32]
    /// Tokens that a row sees in window pages; 0 where the model has no windows.
    private let window: Int
    /// For each slot of the window pages a hash of all tokens up to its position.
    private var windows: [Int32]
    /// The entries that each rank has; `nil` if all read the same.
    private var divided: DividedWindows?

    init(_ configuration: SchedulerConfiguration) {
        pageSize = configuration.pageSize
        vocabularySize = configuration.vocabularySize
        caches = configuration.groupsShareKeys ? 1 : configuration.dataGroups
        memory = [Int32](repeating: -1, count: caches * configuration.totalPages * configuration.pageSize)
        following = memory
        window = configuration.window
        windows = [Int32](repeating: -1, count: caches * configuration.windowPages * configuration.pageSize)
        divided = DividedWindows(configuration)
    }

    /// Returns the index of a slot of a data group in an array with those of all caches.
    private func index(_ slot: Int, ofGroup group: Int, in array: [Int32]) -> Int {
        slot + group % caches * (array.count / caches)
    }

    mutating func run(_ plan: StepPlan) -> StepResult {
        let result = StepResult(chunks: plan.chunks.map { run($0) })
        let hashes = plan.chunks.map { chunk in
            Self.hashes((0..<chunk.start + chunk.tokens.count).map { memory[slot($0, chunk)] }[...])
        }
        #expect((divided?.run(plan, hashes) ?? []) == [])
        return result
    }

    /// Writes what a prefix store has of some positions of a prefix.
    mutating func restore(_ positions: Range<Int>, of prefix: IdentifiedPrefix, in pages: [Int32]) {
        for position in positions {
            let slot = Int(pages[position / pageSize]) * pageSize + position % pageSize
            memory[index(slot, ofGroup: prefix.group, in: memory)] = prefix.tokens[prefix.tokens.startIndex + position]
        }
    }

    /// Writes what rows after a position of a prefix see of its window, and nothing else.
    mutating func restoreWindow(before end: Int, of prefix: IdentifiedPrefix, in list: CacheStore.PageList) {
        let hashes = Self.hashes(prefix.tokens.prefix(end))
        for position in max(0, end - window + 1)..<end {
            let slot = Int(list.pages[position / pageSize - list.first]) * pageSize + position % pageSize
            windows[index(slot, ofGroup: prefix.group, in: windows)] = hashes[position]
            divided?.restore(hashes[position], in: slot, ofGroup: prefix.group)
        }
    }

    private mutating func run(_ chunk: StepPlan.Chunk) -> StepResult.ChunkResult {
        let end = chunk.start + chunk.tokens.count
        expectExactPages(chunk, end)
        for (row, token) in chunk.tokens.enumerated() { memory[slot(chunk.start + row, chunk)] = token }
        let prefix = (0..<end).map { memory[slot($0, chunk)] }
        writeWindow(of: chunk, prefix)
        let model = HashModel(vocabularySize: vocabularySize)
        let chosen = chunk.sampledRows.enumerated().map { index, row in
            let sample = chunk.sample(at: index)
            #expect(sample.position == chunk.start + row + 1)
            return model.choose(
                after: prefix.prefix(sample.position), forbidden: sample.forbidden, topCount: chunk.topLogProbs)
        }
        let sampled = Array(chosen.prefix(chunk.acceptedCount(chosen.map(\.token))))
        let scored = chunk.score.map {
            model.score($0.target, after: prefix.prefix(chunk.start + $0.row + 1), topCount: chunk.topLogProbs)
        }
        var result = StepResult.ChunkResult(request: chunk.request, sampled: sampled, scored: scored)
        if let speculation = chunk.speculation {
            follow(chunk, speculation, prefix, chosen.map(\.token))
            result.drafts = drafts(behind: chunk, speculation, prefix, sampled.map(\.token))
        }
        return result
    }

    /// What rows see of window pages must still be there, and right.
    private mutating func writeWindow(of chunk: StepPlan.Chunk, _ prefix: [Int32]) {
        guard window > 0 else { return #expect(chunk.windowPages.isEmpty && chunk.firstWindowPage == 0) }
        let hashes = Self.hashes(prefix[...])
        func slot(_ position: Int) -> Int {
            let page = Int(chunk.windowPages[position / pageSize - chunk.firstWindowPage])
            return index(page * pageSize + position % pageSize, ofGroup: chunk.group, in: windows)
        }
        for position in chunk.start..<prefix.count { windows[slot(position)] = hashes[position] }
        for position in max(0, chunk.start - window + 1)..<chunk.start {
            #expect(windows[slot(position)] == hashes[position], "the window entry of \(position) is another's")
        }
    }

    /// Returns a hash of all tokens up to each position.
    private static func hashes(_ tokens: ArraySlice<Int32>) -> [Int32] {
        var hash: Int32 = 0
        return tokens.map { token in
            hash = hash &* 31 &+ token &+ 1
            return hash
        }
    }

    private func expectExactPages(_ chunk: StepPlan.Chunk, _ end: Int) {
        #expect(!chunk.tokens.isEmpty)
        let ahead = chunk.speculation?.ahead ?? 0
        let pages = (end + pageSize - 1) / pageSize...(end + max(ahead - 1, 0) + pageSize - 1) / pageSize
        // A request may have pages for drafts that were not used.
        let isRight =
            chunk.speculation == nil ? pages.contains(chunk.pages.count) : chunk.pages.count >= pages.lowerBound
        #expect(isRight, "exactly the pages of the positions so far")
    }

    /// Writes the next-token block's keys: the token that follows each row.
    private mutating func follow(
        _ chunk: StepPlan.Chunk, _ speculation: StepPlan.Chunk.Speculation, _ prefix: [Int32], _ chosen: [Int32]
    ) {
        for position in 0..<chunk.start {
            #expect(
                following[slot(position, chunk)] == prefix[position + 1], "the block's key of \(position) is another's")
        }
        let next = Array(chunk.tokens.dropFirst().map(Optional.some)) + [speculation.next]
        for (row, token) in next.enumerated() {
            let isSampling = chunk.sampledRows.contains(row)
            following[slot(chunk.start + row, chunk)] =
                isSampling ? chosen[row - chunk.sampledRows.lowerBound] : token ?? -1
        }
    }

    private func drafts(
        behind chunk: StepPlan.Chunk, _ speculation: StepPlan.Chunk.Speculation, _ prefix: [Int32], _ sampled: [Int32]
    ) -> [Int32] {
        guard speculation.ahead > 0, !sampled.isEmpty else { return [] }
        let text = prefix.dropLast(chunk.drafts.count) + sampled
        let pages =
            window == 0 ? chunk.pages.count : min(chunk.pages.count, chunk.firstWindowPage + chunk.windowPages.count)
        return HashModel(vocabularySize: vocabularySize).drafts(behind: text) { drafts in
            drafts.count >= speculation.ahead || text.count + drafts.count - 2 >= pages * pageSize
        }
    }

    private func slot(_ position: Int, _ chunk: StepPlan.Chunk) -> Int {
        index(
            Int(chunk.pages[position / pageSize]) * pageSize + position % pageSize, ofGroup: chunk.group, in: memory)
    }
}

extension HashModel {
    /// Returns all events of a request that runs alone with room for everything it asks for.
    func soloRun(_ request: GenerationRequest, limit: Int) -> Transcript {
        let answer = answer(request, limit: limit)
        return Transcript(
            scores: answer.scores, tokens: answer.tokens,
            end: .finished(
                answer.reason, Usage(promptTokens: request.prompt.count, completionTokens: answer.tokens.count)))
    }
}

/// This type collects the events of one request, and checks that they come in the order that `GenerationEvent`
/// promises.
struct Transcript: Equatable {
    var scores: [TokenLogProbs] = []
    var tokens: [TokenLogProbs] = []
    var end: GenerationEvent?
    var speculation = SpeculationCount()

    static func == (one: Self, other: Self) -> Bool {
        one.scores == other.scores && one.tokens == other.tokens && one.end == other.end
    }

    mutating func append(_ event: GenerationEvent) {
        #expect(end == nil, "nothing follows the end")
        switch event {
        case .promptLogProbs(let scores):
            #expect(tokens.isEmpty, "prompt scores come before tokens")
            #expect(!scores.isEmpty)
            self.scores += scores
        case .token(let token): tokens.append(token)
        case .finished(let reason, var usage):
            speculation = usage.speculation
            // Drafts may depend on other requests; everything else must not.
            usage.speculation = SpeculationCount()
            end = .finished(reason, usage)
        case .failed: end = event
        }
    }
}

/// A scheduler with simulated ranks, and the events of its requests.
struct Rig {
    var scheduler: Scheduler
    var ranks: HashingRanks
    var transcripts: [UInt64: Transcript] = [:]

    init(_ configuration: SchedulerConfiguration) {
        scheduler = Scheduler(configuration: configuration)
        ranks = HashingRanks(configuration)
    }

    /// Creates a small configuration: pages of 4 tokens, a context of 32, 50 token ids.
    init(pages: Int = 16, _ adjust: (inout SchedulerConfiguration) -> Void = { _ in }) {
        var configuration = SchedulerConfiguration(totalPages: pages, contextLength: 32, vocabularySize: 50)
        configuration.pageSize = 4
        adjust(&configuration)
        self.init(configuration)
    }

    mutating func submit(_ id: UInt64, _ request: GenerationRequest) throws {
        try scheduler.submit(id, request)
        transcripts[id] = Transcript()
    }

    mutating func abort(_ id: UInt64) { record(scheduler.abort(id)) }

    /// Runs one whole step and returns its plan.
    @discardableResult mutating func step() -> StepPlan? {
        guard let plan = scheduler.nextStep() else { return nil }
        finish(plan)
        return plan
    }

    mutating func finish(_ plan: StepPlan) {
        let result = ranks.run(plan)
        record(scheduler.finish(result))
        #expect(scheduler.checkInvariants() == [])
    }

    /// Runs steps until nothing is left, and returns the plans.
    @discardableResult mutating func runToEnd(limit: Int = 10_000) -> [StepPlan] {
        var plans: [StepPlan] = []
        while let plan = step() {
            plans.append(plan)
            if plans.count == limit {
                Issue.record("not done after \(limit) steps")
                break
            }
        }
        return plans
    }

    mutating func record(_ events: [Scheduler.Event]) {
        for event in events { transcripts[event.request]!.append(event.event) }
    }

    /// Returns the events of `request` when it runs alone, with `limit` new tokens if it names no number.
    func soloRun(_ request: GenerationRequest) -> Transcript {
        let room = scheduler.limits.contextLength - request.prompt.count
        return HashModel(vocabularySize: scheduler.limits.vocabularySize)
            .soloRun(request, limit: request.sampling.maxNewTokens ?? room)
    }
}

/// Returns a request with a prompt of `count` tokens that depends on `salt`.
func makeRequest(
    _ count: Int, new: Int?, salt: Int = 0, priority: Int = 0, logProbs: LogProbOptions? = nil
) -> GenerationRequest {
    var request = GenerationRequest(
        prompt: (0..<count).map { Int32(($0 * 7 + salt * 13 + 3) % 50) }, logProbs: logProbs, priority: priority)
    request.sampling.maxNewTokens = new
    return request
}

/// The number of rows of each request in a plan.
func rows(_ plan: StepPlan?) -> [UInt64: Int] {
    Dictionary(uniqueKeysWithValues: (plan?.chunks ?? []).map { ($0.request, $0.tokens.count) })
}
