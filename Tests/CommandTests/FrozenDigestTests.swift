import ArgumentParser
import DeepSeekV32
import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Tensors
import TestSupport
import Testing
import braid

/// These answers were recorded once, from the embedded model and random ones, and must be bitwise equal ever since,
/// whatever the parallel configuration and the conditions.
///
/// `Tests/Frozen/answers` has a file for each model. If a bit has to change, `BRAID_RECORD_FROZEN=1` makes `swift test
/// --filter Frozen` write the files anew, provided that all configurations agree, and fail.
@Suite(.timeLimit(.minutes(15))) struct `Frozen answers` {
    @Test(arguments: FrozenModel.all) func `are given by every configuration, bit for bit`(model: FrozenModel)
        async throws
    {
        let loaded = try model.load()
        let requests = model.requests(vocabulary: loaded.vocabularySize)
        let isRecording = ProcessInfo.processInfo.environment["BRAID_RECORD_FROZEN"] == "1"
        var frozen = isRecording ? [:] : try model.recorded()
        var met = FrozenSetup.Met()
        var differences = 0
        for cacheType in CacheType.plain {
            var differing: [String] = []
            for setup in FrozenSetup.all where setup.isTried(on: model, with: cacheType) {
                let configuration = try setup.configuration(
                    for: loaded, cacheType, serving: requests, drafts: model.canDraft)
                for answers in try await setup.answers(of: loaded, configuration, to: requests, &met) {
                    for (number, answer) in answers.enumerated() {
                        let key = "\(cacheType.rawValue) \(number)"
                        if isRecording && setup == FrozenSetup.all[0] { frozen[key] = answer.text }
                        if answer.text == frozen[key] { continue }
                        differing.append(
                            "'\(setup)': request \(number) gives\n\(answer.text)\nnot\n\(frozen[key] ?? "nothing")")
                    }
                }
            }
            let count = differing.count
            #expect(
                count == 0,
                "\(model) with \(cacheType.rawValue): \(count) answers differ, first under \(differing.first ?? "")"
            )
            differences += count
        }
        #expect(met.preemptions > 0 && met.cachedTokens > 0, "nothing was preempted or found in the prefix cache")
        #expect(!model.canDraft || met.acceptedDrafts > 0, "no draft was accepted")
        guard isRecording else { return }
        if differences == 0 { try model.record(frozen) }
        Issue.record("recorded the answers of \(model) anew, unless configurations differ")
    }
}

/// A model whose answers are frozen.
struct FrozenModel: Sendable, CustomTestStringConvertible, CustomStringConvertible {
    let name: String
    /// `nil` for the model in `Models/demo`.
    let checkpoint: RandomCheckpoint?
    let canDraft: Bool

    static let all =
        [FrozenModel(name: "demo", checkpoint: nil, canDraft: true)] + [
            random("v3-f32") { $0.indexTopK = nil },
            random("v3-bf16-mtp") { ($0.indexTopK, $0.storage, $0.hasNextTokenBlock, $0.seed) = (nil, .bf16, true, 2) },
            random("v3-fp8") { ($0.indexTopK, $0.storage, $0.sharedExperts, $0.seed) = (nil, .fp8, 2, 3) },
            random("v32-f32-mtp") { ($0.heads, $0.hasNextTokenBlock, $0.usesYaRN, $0.seed) = (16, true, false, 4) },
            random("v32-bf16") { ($0.storage, $0.indexTopK, $0.seed) = (.bf16, 11, 5) },
            random("v32-fp8-mtp") { ($0.storage, $0.hasNextTokenBlock, $0.hidden, $0.seed) = (.fp8, true, 152, 6) },
            random("glm-bf16-mtp") {
                ($0.storage, $0.selectionPattern, $0.hasNextTokenBlock) = (.bf16, "FSFS", true)
                ($0.usesYaRN, $0.seed) = (false, 7)
            },
        ]

    private static func random(_ name: String, _ change: (inout RandomCheckpoint) -> Void) -> FrozenModel {
        var checkpoint = RandomCheckpoint()
        change(&checkpoint)
        return FrozenModel(name: name, checkpoint: checkpoint, canDraft: checkpoint.hasNextTokenBlock)
    }

    var description: String { name }
    var testDescription: String { name }

    /// Loads the model. The directory of a random one is created, and removed again: its files stay mapped.
    func load() throws -> any Model {
        guard let checkpoint else {
            return try ModelDirectory(Golden.root + "/Models/demo").load(drafts: canDraft)
        }
        let path = FileManager.default.temporaryDirectory.path + "/braid-frozen-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try checkpoint.write(to: path)
        return try ModelDirectory(path).load(drafts: canDraft)
    }

    /// Returns requests to be served together: of one token and of more than a row selects, greedy and sampled, scored
    /// and not.
    func requests(vocabulary: Int) -> [GenerationRequest] {
        var random = SplitMix64(seed: checkpoint?.seed ?? 0)
        return [1, 2, 7, 33, 64, checkpoint == nil ? 131 : 51].enumerated().map { number, length in
            var sampling = SamplingParameters()
            sampling.seed = random.next()
            sampling.maxNewTokens = 5 + number % 3
            sampling.temperature = number % 2 == 0 ? 0 : 0.8
            sampling.topP = number == 3 ? 0.9 : 1
            sampling.topK = number == 5 ? 20 : 0
            sampling.repetitionPenalty = number == 3 ? 1.1 : 1
            sampling.frequencyPenalty = number == 5 ? 0.5 : 0
            // With only a few likely tokens, drafts are accepted often, whatever the weights.
            if number > 3 { for _ in 0..<3 { sampling.logitBias[Int32(random.below(vocabulary))] = 50 } }
            return GenerationRequest(
                prompt: (0..<length).map { _ in Int32(random.below(vocabulary)) }, sampling: sampling,
                logProbs: LogProbOptions(topCount: number % 3, promptStart: [0, 0, nil, 5, 0, 30][number]))
        }
    }

    private var file: URL { URL(fileURLWithPath: Golden.root + "/Tests/Frozen/answers/\(name).txt") }

    /// The recorded answers, by cache type and number of the request.
    func recorded() throws -> [String: String] {
        var answers: [String: String] = [:]
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1)
            try #require(parts.count == 2, "\(file.path): '\(line)' is no answer")
            answers[String(parts[0])] = parts[1].trimmingCharacters(in: .whitespaces)
        }
        return answers
    }

    func record(_ answers: [String: String]) throws {
        let lines = answers.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)\n" }
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(lines.joined().utf8).write(to: file)
    }
}

/// The answer to a request.
struct FrozenAnswer {
    private var tokens: [Int32] = []
    /// The digest is FNV-1a over every token, log-probability and alternative.
    private var digest: UInt64 = 0xcbf2_9ce4_8422_2325
    private var failure: String?

    /// The recorded line: the tokens, and a digest of all log-probabilities' bits.
    var text: String { failure ?? tokens.map { "\($0)" }.joined(separator: " ") + " | " + String(digest, radix: 16) }

    mutating func add(_ event: GenerationEvent) {
        switch event {
        case .promptLogProbs(let scored): for score in scored { add(score) }
        case .token(let token):
            tokens.append(token.token)
            add(token)
        case .finished: break
        case .failed(let reason): failure = reason
        }
    }

    private mutating func add(_ scored: TokenLogProbs) {
        add(scored.token, scored.logProb)
        for other in scored.top { add(other.token, other.logProb) }
    }

    private mutating func add(_ token: Int32, _ logProb: Float?) {
        for word in [UInt32(bitPattern: token), logProb?.bitPattern ?? .max] {
            for byte in SafeTensorsWriter.littleEndian(word) { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01b3 }
        }
    }
}

/// A configuration tells which ranks serve the requests, under which conditions.
struct FrozenSetup: Sendable, Equatable, CustomStringConvertible {
    /// The command's options for ranks.
    let ranks: String
    var chunk = -1
    var page = 16
    var drafts = 0
    var threads = 1
    /// Tells whether the cache has room only for the prompts and a few tokens, so that requests are preempted.
    var hasPreemption = false
    /// The number of times the requests are served; the second time their keys are in the prefix cache.
    var times = 1
    var kernels: Kernels.Level?
    /// Tells whether kernels have other block sizes than usual.
    var hasOddBlocks = false

    var description: String {
        ([
            ranks.isEmpty ? "one rank" : ranks, "chunk \(chunk)", "page \(page)", "drafts \(drafts)",
            "threads \(threads)", "times \(times)",
        ]
            + (hasPreemption ? ["crowded"] : []) + (kernels.map { ["kernels \($0.rawValue)"] } ?? [])
            + (hasOddBlocks ? ["odd blocks"] : [])).joined(separator: ", ")
    }

    /// Tells whether a model is served so with a type of cache. The first setup is tried with every type, the others with
    /// one that differs from model to model: in this way every two of setup, model and type are tried together.
    func isTried(on model: FrozenModel, with cacheType: CacheType) -> Bool {
        let number = Self.all.firstIndex(of: self)! + FrozenModel.all.firstIndex { $0.name == model.name }!
        return self == Self.all[0] || cacheType == CacheType.plain[number % CacheType.plain.count]
    }

    /// The first configuration is one rank that computes everything at once.
    static let all = [
        FrozenSetup(ranks: ""),
        FrozenSetup(ranks: "", chunk: 7, page: 4, threads: 3),
        FrozenSetup(ranks: "", chunk: 32, kernels: .reference),
        FrozenSetup(ranks: "", chunk: 13, drafts: 1, hasOddBlocks: true),
        FrozenSetup(ranks: "", chunk: 5, page: 64, drafts: 3, threads: 2, times: 2),
        FrozenSetup(ranks: "", page: 1, drafts: 2, hasPreemption: true),
        FrozenSetup(ranks: "--tp-size 2"),
        FrozenSetup(ranks: "--tp-size 4 --ep-size 1", chunk: 11),
        FrozenSetup(ranks: "--tp-size 4 --ep-size 2", chunk: 20, threads: 2, hasOddBlocks: true),
        FrozenSetup(ranks: "--tp-size 4 --ep-size 4 --moe-dense-tp-size 1 --moe-a2a-backend alltoall", page: 1),
        FrozenSetup(ranks: "--attn-cp-size 2"),
        FrozenSetup(ranks: "--attn-cp-size 3 --cp-strategy contiguous", chunk: 10),
        FrozenSetup(ranks: "--attn-cp-size 4 --cp-strategy zigzag", chunk: 13, times: 2),
        FrozenSetup(ranks: "--attn-cp-size 4 --cp-strategy contiguous", chunk: 29, page: 1, drafts: 1),
        FrozenSetup(
            ranks: "--attn-cp-size 4 --cp-strategy interleave", chunk: 9, page: 1, drafts: 2, hasPreemption: true),
        FrozenSetup(ranks: "--attn-cp-size 5 --cp-strategy zigzag", chunk: 9),
        FrozenSetup(ranks: "--attn-cp-size 8 --ep-size 8 --moe-a2a-backend alltoall"),
        FrozenSetup(ranks: "--attn-cp-size 16 --ep-size 8", chunk: 40),
        FrozenSetup(ranks: "--tp-size 4 --attn-cp-size 2 --cp-strategy zigzag --moe-a2a-backend alltoall", chunk: 6),
        FrozenSetup(ranks: "--tp-size 8 --attn-cp-size 4 --ep-size 4", page: 2),
        FrozenSetup(ranks: "--tp-size 8 --attn-cp-size 2 --cp-strategy contiguous", chunk: 17, threads: 2),
        FrozenSetup(ranks: "--attn-dp-size 2", drafts: 3),
        FrozenSetup(ranks: "--attn-dp-size 3", chunk: 12, page: 8),
        FrozenSetup(ranks: "--attn-dp-size 4 --ep-size 4 --moe-a2a-backend alltoall", chunk: 6, times: 2),
        FrozenSetup(ranks: "--tp-size 4 --attn-dp-size 2 --ep-size 2", chunk: 21),
        FrozenSetup(
            ranks: "--tp-size 8 --attn-dp-size 2 --attn-cp-size 2 --cp-strategy zigzag --moe-a2a-backend alltoall",
            drafts: 2),
        FrozenSetup(ranks: "--pp-size 2", chunk: 16),
        FrozenSetup(ranks: "--pp-size 4", chunk: 8, drafts: 1),
        FrozenSetup(ranks: "--pp-layer-partition 1,3 --attn-cp-size 2", chunk: 15, times: 2),
        FrozenSetup(ranks: "--pp-size 2 --tp-size 4 --attn-dp-size 2", chunk: 19),
        FrozenSetup(ranks: "--pp-size 3 --tp-size 4 --attn-cp-size 2 --cp-strategy zigzag", chunk: 10),
        FrozenSetup(ranks: "--dcp-size 2 --dcp-min-keys 1"),
        FrozenSetup(ranks: "--dcp-size 4 --dcp-min-keys 1 --cp-strategy zigzag", chunk: 15, drafts: 1),
        FrozenSetup(ranks: "--dcp-size 8 --dcp-min-keys 20", chunk: 23, page: 2),
        FrozenSetup(ranks: "--tp-size 4 --dcp-size 4 --dcp-min-keys 1", chunk: 14),
        FrozenSetup(ranks: "--attn-cp-size 4 --dcp-size 2 --dcp-interleave 2 --dcp-min-keys 1", chunk: 18, threads: 2),
        FrozenSetup(
            ranks: "--tp-size 8 --attn-cp-size 4 --dcp-size 8 --dcp-min-keys 9 --cp-strategy zigzag "
                + "--moe-a2a-backend alltoall", drafts: 1, times: 2),
        FrozenSetup(
            ranks: "--tp-size 8 --attn-dp-size 2 --attn-cp-size 2 --dcp-size 4 --dcp-min-keys 1", chunk: 25, page: 1,
            hasPreemption: true),
        FrozenSetup(ranks: "--pp-size 2 --attn-cp-size 4 --dcp-size 4 --dcp-min-keys 1", chunk: 7, drafts: 3, times: 2),
        FrozenSetup(ranks: "--pp-size 2 --attn-dp-size 2 --tp-size 4 --moe-a2a-backend alltoall", chunk: 30, drafts: 2),
    ]

    /// - Parameter drafts: True if the model can draft tokens; if it cannot, none are drafted.
    func configuration(
        for model: any Model, _ cacheType: CacheType, serving requests: [GenerationRequest], drafts canDraft: Bool
    ) throws -> EngineConfiguration {
        let options = try ParallelOptions.parse(ranks.split(separator: " ").map(String.init))
        var configuration = EngineConfiguration()
        configuration.parallel = try options.request(environment: [:]).resolve(for: model.parallelShape)
        configuration.cacheType = cacheType
        configuration.contextLength = 512
        configuration.chunkedPrefillSize = chunk
        configuration.pageSize = page
        configuration.drafts = canDraft ? drafts : 0
        configuration.threadsPerRank = threads
        if hasPreemption { configuration.maxTotalTokens = requests.map(\.prompt.count).reduce(8, +) }
        configuration.kernels = kernels
        // Small operations are divided too, so that threads have work.
        configuration.tuning.minParallelWork = 1
        if hasOddBlocks {
            configuration.tuning.indexRowTile = 3
            configuration.tuning.indexKeyTiles = 1
            for type in DType.allCases {
                configuration.tuning.gemvMaxRows[type] = 1
                configuration.tuning.directKeyMaxHeads[type] = 1
            }
        }
        let problems = configuration.validate(for: model)
        try #require(problems == [], "'\(self)'")
        try #require(
            configuration.parallel.isBitwiseEqual(for: model.parallelShape), "'\(self)' is equal to rounding only")
        return configuration
    }

    /// Counts what happened while requests were served; what never happens is not tested.
    struct Met {
        var preemptions: UInt64 = 0
        var cachedTokens = 0
        var acceptedDrafts = 0
    }

    /// Returns the answers to requests served together, for each time they are served.
    func answers(
        of model: any Model, _ configuration: EngineConfiguration, to requests: [GenerationRequest], _ met: inout Met
    ) async throws -> [[FrozenAnswer]] {
        // The engine knows all requests before it computes the first, so that they surely compete for pages.
        let held = HeldModel(model)
        let engine = Engine(held, configuration)
        defer { engine.stop() }
        var all: [[FrozenAnswer]] = []
        for time in 0..<times {
            var answers: [FrozenAnswer] = []
            let generations: [Generation]
            do {
                defer { if time == 0 { held.letGo() } }
                generations = try requests.map { try engine.submit($0) }
            }
            for generation in generations {
                var answer = FrozenAnswer()
                for await event in generation.events {
                    answer.add(event)
                    guard case .finished(_, let usage) = event else { continue }
                    met.cachedTokens += usage.cachedTokens
                    met.acceptedDrafts += usage.speculation.accepted
                }
                answers.append(answer)
            }
            all.append(answers)
        }
        met.preemptions += engine.status().preemptions
        return all
    }
}
