import Grammar
package import KVCache

extension StepPlan: WireCodable {
    package static var empty: StepPlan { StepPlan(number: 0, chunks: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&number)
        try wire.pass(&chunks)
        try wire.pass(&grammars)
        try wire.pass(&endedGrammars)
        try wire.pass(&isTraced)
    }

    /// Returns what is wrong with a plan that another process sent; `nil` if ranks can run it.
    ///
    /// - Parameters:
    ///   - format: The format of the cache.
    ///   - pages: The number of pages in the cache.
    ///   - windowPages: The number of window pages in the cache.
    ///   - groups: The number of data groups.
    ///   - groupRanks: The number of ranks of a data group in each stage.
    package func problem(
        _ format: CacheFormat, pages: Int, windowPages: Int, vocabularySize: Int, groups: Int, groupRanks: Int
    ) -> String? {
        let pageSize = format.pageSize
        for chunk in chunks {
            let (end, isOver) = chunk.start.addingReportingOverflow(chunk.tokens.count)
            if chunk.tokens.isEmpty || chunk.start < 0 || isOver || end > pages * pageSize {
                return "request \(chunk.request) has rows \(chunk.start)..<\(end)"
            }
            if chunk.pages.count < (end + pageSize - 1) / pageSize
                || !chunk.pages.allSatisfy({ (0..<pages).contains(Int($0)) })
            {
                return "request \(chunk.request) has pages that are not in the cache"
            }
            if let problem = chunk.windowProblem(format, end: end, windowPages: windowPages) {
                return "request \(chunk.request) has \(problem)"
            }
            if let problem = chunk.sourcesProblem(format, ranks: groupRanks) {
                return "request \(chunk.request) has \(problem)"
            }
            if !(0..<groups).contains(chunk.group) { return "there is no data group \(chunk.group)" }
            let sample = chunk.sample
            let tokens = [
                chunk.tokens, chunk.score.map(\.target), sample?.generated ?? [], sample?.prompt ?? [],
                Array(sample?.parameters.stopTokens ?? []), Array(sample?.parameters.logitBias.keys ?? [:].keys),
                chunk.speculation?.next.map { [$0] } ?? [],
            ]
            if !tokens.joined().allSatisfy({ (0..<vocabularySize).contains(Int($0)) }) {
                return "request \(chunk.request) has tokens that are not in the vocabulary"
            }
            if let speculation = chunk.speculation,
                !(0..<chunk.tokens.count).contains(speculation.drafted) || speculation.ahead < 0
                    || speculation.ahead > 0 && sample == nil
            {
                return "request \(chunk.request) has \(speculation.drafted) drafts and wants \(speculation.ahead)"
            }
            let rows = chunk.score.map(\.row)
            if !rows.allSatisfy(chunk.tokens.indices.contains) || zip(rows, rows.dropFirst()).contains(where: >=) {
                return "request \(chunk.request) scores rows that it has not"
            }
            if !(0...vocabularySize).contains(chunk.topLogProbs ?? 0) {
                return "request \(chunk.request) wants \(chunk.topLogProbs ?? 0) alternatives"
            }
            if let problem = sample?.problem { return "request \(chunk.request) has \(problem)" }
        }
        return nil
    }
}

extension StepPlan.Sample {
    /// The problem of a sample that another process sent; `nil` if it is valid.
    fileprivate var problem: String? {
        let legal = 0...Int(Int32.max)
        if !legal.contains(position) || !legal.contains(minTokensRemaining) {
            return "a token to sample at position \(position), \(minTokensRemaining) before a stop token"
        }
        do throws(EngineError) {
            try parameters.check()
            return nil
        } catch {
            return "sampling parameters that no request may have: \(error)"
        }
    }
}

extension StepPlan.Chunk {
    /// What is wrong with the window pages of rows that end before position `end`; `nil` where the rows can be computed.
    fileprivate func windowProblem(_ format: CacheFormat, end: Int, windowPages total: Int) -> String? {
        guard format.window > 0 else {
            return windowPages.isEmpty && firstWindowPage == 0 ? nil : "window pages of a model without windows"
        }
        let seen = max(0, start - format.window + 1)
        guard windowPages.allSatisfy({ (0..<total).contains(Int($0)) }) else {
            return "window pages that are not in the cache"
        }
        guard (0...seen / format.pageSize).contains(firstWindowPage),
            (firstWindowPage + windowPages.count) * format.pageSize >= end
        else {
            return "\(windowPages.count) window pages from \(firstWindowPage) on, and sees positions \(seen)..<\(end)"
        }
        return nil
    }
}

extension StepPlan.Chunk {
    /// Returns the problem with the sources of window entries of earlier steps; `nil` if the ranks can send them. The
    /// window pages must have been checked.
    fileprivate func sourcesProblem(_ format: CacheFormat, ranks count: Int) -> String? {
        guard let sources = windowSources else { return nil }
        let (end, alignment) = (sources.end, format.positionAlignment)
        guard format.window > 0, end <= start, end > firstWindowPage * format.pageSize, end % alignment == 0,
            sources.ranks.count <= min(end, format.window + alignment) / alignment
        else {
            return "window entries of \(sources.ranks.count) units before \(end), and window pages from "
                + "\(firstWindowPage) on, and rows from \(start) on"
        }
        guard sources.ranks.allSatisfy({ (-1..<count).contains(Int($0)) }) else {
            return "window entries of ranks \(sources.ranks), and a data group has \(count)"
        }
        return nil
    }
}

extension StepPlan.WindowSources: WireCodable {
    package static var empty: StepPlan.WindowSources { StepPlan.WindowSources(end: 0, ranks: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&end)
        try wire.pass(&ranks)
    }
}

extension StepPlan.Chunk: WireCodable {
    package static var empty: StepPlan.Chunk { StepPlan.Chunk(request: 0, tokens: [], start: 0, pages: []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&request)
        try wire.pass(&group)
        try wire.pass(&tokens)
        try wire.pass(&start)
        try wire.pass(&pages)
        try wire.pass(&windowPages)
        try wire.pass(&firstWindowPage)
        try wire.pass(&windowSources)
        try wire.pass(&sample)
        try wire.pass(&speculation)
        try wire.pass(&score)
        try wire.pass(&topLogProbs)
    }
}

extension StepPlan.Chunk.Speculation: WireCodable {
    package static var empty: Self { Self() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&drafted)
        try wire.pass(&next)
        try wire.pass(&ahead)
    }
}

extension StepPlan.ScoreRow: WireCodable {
    package static var empty: StepPlan.ScoreRow { StepPlan.ScoreRow(row: 0, target: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&row)
        try wire.pass(&target)
    }
}

extension StepPlan.Sample: WireCodable {
    package static var empty: StepPlan.Sample { StepPlan.Sample(parameters: SamplingParameters(), position: 0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&parameters)
        try wire.pass(&position)
        try wire.pass(&generated)
        try wire.pass(&prompt)
        try wire.pass(&minTokensRemaining)
        try wire.pass(&isConstrained)
    }
}

extension SamplingParameters: WireCodable {
    package static var empty: SamplingParameters { SamplingParameters() }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&temperature)
        try wire.pass(&topP)
        try wire.pass(&topK)
        try wire.pass(&minP)
        try wire.pass(&frequencyPenalty)
        try wire.pass(&presencePenalty)
        try wire.pass(&repetitionPenalty)
        var (biased, biases) = (logitBias.keys.sorted(), [Float]())
        biases = biased.map { logitBias[$0]! }
        try wire.pass(&biased)
        try wire.pass(&biases)
        guard biased.count == biases.count else { throw Wire.Failure(description: "a bias for each token") }
        logitBias = Dictionary(zip(biased, biases)) { $1 }
        try wire.pass(&seed)
        try wire.pass(&maxNewTokens)
        try wire.pass(&minNewTokens)
        try wire.pass(&stopTokens)
    }
}

extension Wire {
    fileprivate mutating func pass(_ tokens: inout Set<Int32>) throws(Failure) {
        var sorted = tokens.sorted()
        try pass(&sorted)
        tokens = Set(sorted)
    }
}
