import Foundation
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing
import Verification

/// These tests compare two servers, of which one computes the prompts and sends their keys to the other one, with one
/// rank. Model, caches, schedulers and sessions are those of service; the link is memory.
@Suite(.timeLimit(.minutes(15))) struct `A server whose prompts another server computes` {
    private static func measured(_ name: String) throws -> (any Model, Workload.Measure) {
        let golden = try Golden(name)
        let model = try golden.directory.load(drafts: Golden.draftingCases.contains(name))
        let measure = Workload.Measure(
            selecting: golden.directory.description.selection?.firstPosition,
            entry: golden.directory.description.longestEntry,
            contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        return (model, measure)
    }

    private static func verdict(_ notation: String, of name: String, _ damage: DamagedCache.Damage? = nil) throws
        -> Verification.Verdict
    {
        let (model, measure) = try measured(name)
        let verification = Verification(DamagedCache(model, damage), measure)
        return try verification.check(VerificationCase(notation: notation, for: model.parallelShape))
    }

    /// 40 pairs for each of 14 checkpoints, and more in the rare case that these send too little.
    @Test(arguments: Golden.cases + Golden.draftingCases)
    func `gives one rank's bits in a sample that differs each time`(name: String) throws {
        let hasGroups = try Self.keepsSeveralLayers(name)
        let isEnough = { (sent: TransferCoverage) in
            sent.frames > sent.lateFrames + 100 && sent.losses > 0 && (sent.earlyFrames > 10) == hasGroups
        }
        var sent = try Self.checkSample(of: name)
        for _ in 0..<9 where !isEnough(sent) { sent = try Self.checkSample(of: name) }
        #expect(isEnough(sent), "\(sent)")
    }

    /// True if several layers keep entries as long as their request. Those of the last such layer wait for the end of the
    /// step, so with a single one no frame is sent earlier.
    private static func keepsSeveralLayers(_ name: String) throws -> Bool {
        try measured(name).0.cacheFormat(.float32, pageSize: 256).layers
            .count { $0.contains { $0.lifetime == .request } } > 1
    }

    /// Compares a sample, and returns what was sent.
    private static func checkSample(of name: String) throws -> TransferCoverage {
        let seed = UInt64.random(in: 0..<1 << 32)
        print(
            "again: braid verify --model-path Tests/Golden/\(name)/checkpoint --from all --layouts 40 --seed \(seed)")
        let (model, measure) = try measured(name)
        let shape = model.parallelShape
        let conditions = ServingConditions.all(
            longestPrompt: measure.longestPrompt, canDraft: model.canDraft, alignment: model.positionAlignment,
            profiles: try Golden(name).profiles)
        let layouts = LayoutMatrix(shape, maxRanks: 8, minKeys: [1, measure.longestPrompt / 2]).layouts
        let plan = VerificationPlan(layouts, conditions, limit: 40, seed: seed)
            .withPrefillServers(.all, layouts, seed: seed).comparingRoundedLayoutsInF32(shape)
        var settings = Verification.Settings()
        settings.seed = seed
        let verification = Verification(model, measure, settings)
        for candidate in plan.cases {
            let verdict = try verification.check(candidate)
            if case .close = verdict, !verification.mustBeEqual(candidate) { continue }
            #expect(verdict == .equal, "\(name), seed \(seed): \(candidate.notation)")
        }
        return verification.coverage.transfers
    }

    /// Both servers' processes keep their own parts of the keys, so frames go between several caches on each side.
    @Test(arguments: [("v32-drafts", 8), ("v4-drafts", 32)], [(1, 4), (4, 1), (4, 2), (2, 4)])
    func `gives one rank's bits where processes divide the keys, on either side`(
        model: (name: String, page: Int), processes: (decode: Int, prefill: Int)
    ) throws {
        let servers = [
            ("cp8 ep8 dcp8 interleave gathered", "pp2 cp4 ep4 dcp4 zigzag gathered"),
            ("pp2 cp2 tp2 ep4 dense2 dcp4 zigzag gathered", "cp8 ep8 dcp4:2 interleave alltoall"),
            ("dp2 cp4 ep8 dcp4:2 alltoall", "cp4 ep4 contiguous"), ("tp4 ep4", "dp2 cp4 ep8 dcp4 alltoall"),
        ]
        let conditions = [
            ("chunk-1 cold mixed", "chunk7 draft0 link-whole"), ("chunk5 warm draft2 mixed fp8_e4m3", "chunk9 draft2"),
            ("chunk61 shared draft1 preemption", "chunk41 draft3 link-drops cached-by-prefill"),
            ("chunk7 bfloat16 cold long", "chunk-1 draft1 link-cuts"),
        ]
        let notations = servers.flatMap { decode, prefill in
            conditions.map {
                "\(decode) \($0) page\(model.page) from \(prefill) \($1) page\(model.page * 2)"
            }
        }
        let (loaded, measure) = try Self.measured(model.name)
        let (found, coverage) = try verdictsInProcesses(
            notations, of: loaded, measure, processes: processes.decode, prefillProcesses: processes.prefill)
        for (notation, verdict) in zip(notations, found) { #expect(verdict == .equal, "\(notation)") }
        #expect(coverage.transfers.losses > 0 && coverage.dcpChunks > 0)
        #expect(try (coverage.transfers.earlyFrames > 0) == Self.keepsSeveralLayers(model.name))
        // Prompts of the other model are shorter than pages whose entries divide among eight owners.
        if model.name == "v32-drafts" { #expect(coverage.cachedTokens > 0) }
    }

    /// An entry that is wrong in the prefill server's cache after its prompt was computed changes only rows of the
    /// decode server, and only if that has received the entry. It is one of the last layer: others may be sent before they
    /// are damaged. Ranks of the prefill server compute different requests, so none reads it after the damage.
    @Test(arguments: ["one", "tp2", "pp2"]) func `reads the keys that it was sent`(layout: String) throws {
        let notation = "\(layout) chunk-1 page4 fp8_e4m3 cold mixed from dp2 chunk-1 page16"
        #expect(try Self.verdict(notation, of: "v3") == .equal)
        // The third request of the first session.
        let damage = DamagedCache.Damage.wrongScale(layer: 2, request: 1 << 32 + 2, position: 4)
        guard case .different(.value(let value)) = try Self.verdict(notation, of: "v3", damage) else {
            Issue.record("\(layout): a wrong scale was not found")
            return
        }
        #expect(value.key == StageRecords.Key(layer: 2, stage: .attention))
        #expect(value.place.request == 3 && value.place.position >= 68, "the first row behind the prompt")
    }

    /// Wrong keys of the next-token block would change no token, but fewer drafts would be accepted.
    @Test(arguments: Golden.draftingCases) func `accepts as many drafts as one server`(name: String) throws {
        let (model, measure) = try Self.measured(name)
        let page = max(16, model.positionAlignment)
        let alone = "cp2 chunk-1 page\(page) cold draft3"
        for mix in ["mixed", "short"] {
            var counts: [SpeculationCount] = []
            for other in ["", " from tp2 chunk7 page\(2 * page) draft3", " from pp2 chunk-1 page\(page) draft3"] {
                let verification = Verification(model, measure)
                let notation = "\(alone) \(mix)\(other)"
                #expect(
                    try verification.check(VerificationCase(notation: notation, for: model.parallelShape)) == .equal)
                counts.append(verification.coverage.speculation)
            }
            #expect(counts[0].drafted > 0 && counts.allSatisfy { $0 == counts[0] }, "\(mix): \(counts)")
        }
    }

    @Test func `needs a prefill server that drafts tokens if it drafts any`() throws {
        let shape = try Self.measured("v32-drafts").0.parallelShape
        #expect(throws: NotationError.self) { try VerificationCase(notation: "one draft1 from one", for: shape) }
        #expect(throws: NotationError.self) { try VerificationCase(notation: "one from tp2 warm", for: shape) }
        #expect(throws: Never.self) { try VerificationCase(notation: "one draft1 from one draft3", for: shape) }
    }
}

/// The caches of processes that are simulated in this one, in the order in which they were allocated.
final class FollowerCaches: Sendable {
    private let caches: Mutex<[[CacheStore]]>

    init(processes: Int) { caches = Mutex(Array(repeating: [], count: processes)) }

    func put(_ cache: CacheStore, of process: Int) { caches.withLock { $0[process].append(cache) } }

    /// Returns the next cache of every process but the first, and waits until there are some.
    func take() -> [CacheStore] {
        while true {
            let taken = caches.withLock { caches -> [CacheStore]? in
                guard caches.dropFirst().allSatisfy({ !$0.isEmpty }) else { return nil }
                return caches.indices.dropFirst().map { caches[$0].removeFirst() }
            }
            if let taken { return taken }
            Thread.sleep(forTimeInterval: 0.0005)
        }
    }
}
