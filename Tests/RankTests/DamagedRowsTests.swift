import DeepSeekV32
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// These tests receive rows with valid frames and invalid contents, as a process with damaged memory or an attacker
/// would send them.
@Suite(.timeLimit(.minutes(15))) struct `Rows from another process` {
    private static let layouts = [
        ParallelConfiguration(context: 2, kvSharding: KVSharding(ranks: 2, minKeys: 1)),
        ParallelConfiguration(tensor: 2, expert: 2, exchange: .allToAll),
        ParallelConfiguration(context: 2, expert: 2),
        ParallelConfiguration(
            context: 2, tensor: 2, expert: 4, exchange: .allToAll, kvSharding: KVSharding(ranks: 4, minKeys: 1)),
        ParallelConfiguration(context: 2, expert: 1, expertTensor: 2, pipeline: 2),
    ]

    /// These bits are invalid as an index in one way or another, as an integer or as a number.
    private static let bits: [UInt32] = [
        0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0x0000_ffff, 0xffff_fff0, Float.nan.bitPattern,
        Float.infinity.bitPattern,
        Float(-1).bitPattern, Float(1e9).bitPattern, Float(0.5).bitPattern,
    ]

    /// Damages, in the message with this number, words that look like indices: small integers, or small whole numbers.
    /// Numbers of rows in a message are damaged only in every eighth one.
    private static func damager(_ number: Int) -> @Sendable (Message) -> Message {
        let state = Mutex((draw: SplitMix64(seed: UInt64(number)), next: 0))
        return { message in
            guard message.kind == .rows, message.bodyBytes >= 8 else { return message }
            return state.withLock { state in
                defer { state.next += 1 }
                guard state.next == number else { return message }
                var body = message.bodyCopy
                let head = number % 8 == 7 ? 0 : 2 + Int(body[0])
                for word in min(head, body.count / 4)..<body.count / 4 {
                    let bytes = 4 * word..<4 * word + 4
                    let value = body[bytes].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
                    let number = Float(bitPattern: value)
                    let looksWhole = number.rounded() == number && abs(number) < 256 && number != 0
                    guard value < 4096 || looksWhole, state.draw.below(2) == 0 else { continue }
                    let wrong = bits[state.draw.below(bits.count)]
                    for (place, index) in bytes.enumerated() { body[index] = UInt8(wrong >> (8 * place) & 0xff) }
                }
                return message.copy(body: body)
            }
        }
    }

    /// Runs a prompt in chunks and some steps with drafts; returns `nil`, or the reason why the job ended.
    private static func failure(
        of model: any Model, _ prompt: [Int32], _ layout: ParallelConfiguration, pageSize: Int = 4,
        process sender: Int = 1,
        damaging number: Int?
    ) throws -> GroupFailure? {
        let transports = InMemoryTransport.network(2)
        defer { for transport in transports { transport.leave() } }
        var configuration = EngineConfiguration(smallCache: layout)
        configuration.processes = 2
        configuration.drafts = model.canDraft ? 2 : 0
        configuration.pageSize = pageSize
        if let number { transports[sender].damage(damager(number)) }
        return try onEveryRank(of: 2) { [configuration] process -> GroupFailure? in
            let processes = Processes(transports[process])
            guard process == 0 else {
                try RankFollower(model, processes).run()
                return nil
            }
            defer { RankFollower.dismiss(processes) }
            let pool = RankPool(model, configuration, processes: processes)
            defer { pool.stop() }
            do throws(GroupFailure) {
                for (step, range) in [0..<20, 20..<40, 40..<41, 41..<42, 42..<43].enumerated() {
                    // Short requests beside the long one, so that ranks of either process sample a token.
                    let others = (2...4).map { Self.chunk(request: $0, prompt[0..<4], model, pageSize) }
                    let chunks = [Self.chunk(request: 1, prompt[range], model, pageSize)]
                    _ = try pool.run(StepPlan(number: step, chunks: chunks + (step == 0 ? others : [])))
                }
                return nil
            } catch {
                return error
            }
        }[0]
    }

    private static func chunk(
        request: Int, _ tokens: ArraySlice<Int32>, _ model: any Model, _ pageSize: Int
    ) -> StepPlan.Chunk {
        // The first request is the long one.
        let last = request == 1 ? 40 : 3 * request
        let pages = (0..<(tokens.endIndex + 3 + pageSize - 1) / pageSize).map { Int32(last - $0) }
        let hasWindows = model.cacheFormat(.float32, pageSize: pageSize).window > 0
        return StepPlan.Chunk(
            request: UInt64(request), tokens: Array(tokens), start: tokens.startIndex, pages: pages,
            windowPages: hasWindows ? pages : [],
            sample: StepPlan.Sample(parameters: SamplingParameters(), position: tokens.endIndex),
            speculation: .init(ahead: 2))
    }

    @Test func `whose contents cannot be right end the job in its name, and reach no memory`() throws {
        let golden = try Golden("v32-drafts")
        let model = try golden.directory.load(drafts: true)
        #expect(golden.prompt.count >= 43 && model.description.selection!.topK < 40)
        var reasons: [String] = []
        for layout in Self.layouts {
            for number in 0..<72 {
                guard let failure = try Self.failure(of: model, golden.prompt, layout, damaging: number) else {
                    continue
                }
                reasons.append(failure.reason)
                #expect(failure.rank >= layout.world / 2, "\(layout), message \(number): \(failure)")
                #expect(
                    failure.reason.hasPrefix("it s") || failure.reason.hasPrefix("process 1 sent"),
                    "\(layout), message \(number): \(failure)")
            }
        }
        for kind in ["candidates", "selection", "experts", "sampled token", "rows of another number or shape"] {
            #expect(reasons.contains { $0.contains(kind) }, "nothing was tried that has to do with \(kind)")
        }
    }

    /// A later layer reuses a selection that an earlier pipeline stage made.
    @Test func `whose selection cannot be right ends the job in the name of the earlier stage`() throws {
        let model = ToyModel(longEntry: 16)
        let prompt = (0..<43).map { Int32($0 * 7 % 40) }
        let layout = ParallelConfiguration(pipeline: 2)
        #expect(try Self.failure(of: model, prompt, layout, pageSize: 16, damaging: nil) == nil)
        var reasons: [String] = []
        for number in 0..<12 {
            let failure = try Self.failure(of: model, prompt, layout, pageSize: 16, process: 0, damaging: number)
            guard let failure else { continue }
            reasons.append(failure.reason)
            #expect(failure.rank == 0, "message \(number): \(failure)")
        }
        #expect(reasons.contains { $0.contains("selection") }, "\(reasons)")
    }

    @Test func `are the usual ones where nothing is damaged`() throws {
        let golden = try Golden("v32-drafts")
        let model = try golden.directory.load(drafts: true)
        for layout in Self.layouts {
            let failure = try Self.failure(of: model, golden.prompt, layout, damaging: nil)
            #expect(failure == nil, "\(layout)")
        }
    }
}
