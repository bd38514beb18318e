import DeepSeekV32
import Inference
import KVCache
import Modeling
import Models
import Parallelism
import TestSupport
import Testing
import Verification

/// A comparison with one rank must find faults and their place; parity tests rely on it.
@Suite(.timeLimit(.minutes(15))) struct `A verification` {
    private static let measure = Workload.Measure(longestPrompt: 20, contextLength: 256, vocabularySize: 32)

    private static func verification(_ fault: FaultyModel.Fault? = nil) -> Verification {
        Verification(FaultyModel(fault), measure)
    }

    /// Returns a golden model with a damaged cache, and prompts long enough to select keys.
    private static func damaged(_ name: String, _ damage: DamagedCache.Damage?) throws -> (Verification, ModelShape) {
        let golden = try Golden(name)
        let model = DamagedCache(try golden.directory.load(), damage)
        let measure = Workload.Measure(
            selecting: golden.directory.description.selection?.firstPosition,
            entry: golden.directory.description.longestEntry,
            contextLength: model.contextLength, vocabularySize: model.vocabularySize)
        return (Verification(model, measure), model.parallelShape)
    }

    /// Returns the verdict on a case with some damage.
    private static func finding(
        _ name: String, _ damage: DamagedCache.Damage?, _ notation: String
    ) throws -> Verification.Verdict {
        let (verification, shape) = try damaged(name, damage)
        return try verification.check(try VerificationCase(notation: notation, for: shape))
    }

    private static func candidate(_ notation: String) throws -> VerificationCase {
        try VerificationCase(notation: notation, for: FaultyModel().parallelShape)
    }

    /// Returns the value that differs; there must be one.
    private static func value(_ fault: FaultyModel.Fault, _ notation: String) throws -> Difference.Value {
        let verdict = try verification(fault).check(try candidate(notation))
        guard case .different(.value(let value)) = verdict else {
            Issue.record("\(notation): \(verdict)")
            throw CancellationError()
        }
        return value
    }

    @Test(arguments: ["cp4", "tp2", "tp4 dp2", "pp3 cp2", "pp2:1,2 tp2 dp2", "one"], Workload.Kind.allCases)
    func `finds a faultless model equal`(layout: String, mix: Workload.Kind) throws {
        #expect(try Self.verification().check(Self.candidate("\(layout) chunk7 \(mix)")) == .equal)
    }

    @Test(arguments: [
        (0, Stage.attentionNorm), (0, .attention), (1, .attention), (1, .output), (2, .attentionNorm), (2, .output),
    ])
    func `names layer, stage, row and value of one wrong bit`(layer: Int, stage: Stage) throws {
        for layout in ["cp2", "tp2", "dp2", "pp2:1,2", "pp3 cp2 tp2"] {
            for chunk in ["chunk-1", "chunk3"] {
                let fault = FaultyModel.Fault.flipsBit(layer: layer, stage: stage, request: 3, position: 12)
                let found = try Self.value(fault, "\(layout) \(chunk) mixed")
                #expect(found.key == StageRecords.Key(layer: layer, stage: stage), "\(layout)")
                #expect(found.place == StageRecords.Place(request: 3, position: 12), "\(layout)")
                #expect(found.index == 2 && found.rows == 1 && found.isRepeatable, "\(layout)")
                #expect(found.expected.bitPattern ^ found.found.bitPattern == 1 << 18, "\(layout)")
            }
        }
    }

    @Test func `finds one wrong rank, where that rank has the row`() throws {
        let notation = "cp4 contiguous chunk-1 long"
        // The third of four ranks has rows 10 to 14 of twenty.
        let right = FaultyModel.Fault.flipsBitOnRank(2, layer: 1, stage: .output, request: 1, position: 12)
        let found = try Self.value(right, notation)
        #expect(found.place == StageRecords.Place(request: 1, position: 12))
        #expect(found.key == StageRecords.Key(layer: 1, stage: .output))
        let elsewhere = FaultyModel.Fault.flipsBitOnRank(1, layer: 1, stage: .output, request: 1, position: 12)
        #expect(try Self.verification(elsewhere).check(Self.candidate(notation)) == .equal)
    }

    @Test func `is not led astray by tokens that differ in consequence`() throws {
        // The fault is in the prompt's last row, so other tokens follow, and with them other rows in every layer.
        let fault = FaultyModel.Fault.flipsBit(layer: 2, stage: .output, request: 1, position: 19)
        let found = try Self.value(fault, "cp2 chunk7 long")
        #expect(found.key == StageRecords.Key(layer: 2, stage: .output))
        #expect(found.place == StageRecords.Place(request: 1, position: 19))
    }

    @Test func `names the layer whose sum is added in another order`() throws {
        for layer in 0..<3 {
            let found = try Self.value(.addsInSequence(layer: layer), "tp2 chunk7 mixed")
            #expect(found.key == StageRecords.Key(layer: layer, stage: .attention))
            #expect(found.rows > 1)
        }
    }

    @Test func `says when a difference does not recur`() throws {
        let fault = FaultyModel.Fault.flipsBitOnce(layer: 1, stage: .output, request: 1, position: 5)
        let found = try Self.value(fault, "cp2 chunk-1 long")
        #expect(!found.isRepeatable)
        #expect(found.key.stage == .logits)
        #expect(found.place == StageRecords.Place(request: 1, position: 5))
    }

    @Test func `reports a failed rank with its reason, and goes on`() throws {
        let verification = Self.verification(.fails(rank: 1, layer: 1))
        let expected = Difference.failure("rank 1 failed: a fault of the test")
        #expect(try verification.check(Self.candidate("cp2 mixed")) == .different(expected))
        #expect(try verification.check(Self.candidate("one chunk3 mixed")) == .equal)
    }

    @Test func `allows rounding where no more was promised, and no more than that`() throws {
        // Three ranks cut a sum of eight addends where one does not.
        let uneven = VerificationCase(ParallelConfiguration(tensor: 3))
        #expect(!Self.verification().mustBeEqual(uneven))
        guard case .close(let distance) = try Self.verification().check(uneven) else {
            Issue.record("three ranks should be equal to rounding")
            return
        }
        #expect(distance > 0 && distance < 1e-6)
        let fault = FaultyModel.Fault.flipsBit(layer: 2, stage: .output, request: 3, position: 12)
        guard case .different(.value(let found)) = try Self.verification(fault).check(uneven) else {
            Issue.record("a flipped bit is more than rounding")
            return
        }
        #expect(found.key == StageRecords.Key(layer: 2, stage: .output))
        #expect(found.place == StageRecords.Place(request: 3, position: 12) && found.index == 2)
    }

    @Test(arguments: ["one", "cp2", "tp2 dp2", "pp2"], ["warm", "shared"])
    func `finds a page of the prefix cache that holds other tokens' keys`(layout: String, prefix: String) throws {
        for (name, cache) in [("v3", "float32"), ("v32", "bfloat16"), ("v32", "fp8_e4m3")] {
            let notation = "\(layout) chunk-1 page4 \(cache) \(prefix) mixed"
            #expect(try Self.finding(name, nil, notation) == .equal, "\(name), \(notation)")
            let verdict = try Self.finding(name, .stalePage(layer: 1), notation)
            guard case .different(let difference) = verdict else {
                Issue.record("\(name), \(notation): \(verdict)")
                continue
            }
            #expect("\(difference)".hasPrefix("served again: ") == (prefix == "warm"))
            #expect(difference.value?.key.layer == 1 && difference.value?.isRepeatable == true)
        }
    }

    @Test(arguments: CacheType.withFP4Index, ["cp2", "tp2", "dp2", "cp4 dcp2", "pp2"])
    func `finds index keys in FP4 equal in all layouts`(type: CacheType, layout: String) throws {
        for profile in ["f32", "bf16"] {
            #expect(
                try Self.finding("v4-fp4-index", nil, "\(layout) chunk9 page128 \(type.rawValue) warm mixed \(profile)")
                    == .equal
            )
        }
    }

    @Test(arguments: ["v3", "v4-fp8-cache"], ["cp2", "tp2", "dp2", "cp4 dcp2"])
    func `finds one wrong scale of an FP8 cache, in the rows after it`(name: String, layout: String) throws {
        let notation = "\(layout) chunk9 page4 fp8_e4m3 cold mixed"
        #expect(try Self.finding(name, nil, notation) == .equal)
        let verdict = try Self.finding(name, .wrongScale(layer: 0, request: 3, position: 4), notation)
        guard case .different(.value(let value)) = verdict else {
            Issue.record("\(layout): \(verdict)")
            return
        }
        #expect(value.key == StageRecords.Key(layer: 0, stage: .attention))
        #expect(value.place == StageRecords.Place(request: 3, position: 9), "the first of the next chunk")
    }

    @Test(arguments: ["cp2 dcp2", "cp4 dcp4", "tp2 dcp2"])
    func `finds a rank that is wrong by one in the keys it owns`(layout: String) throws {
        let notation = "\(layout) chunk-1 page16 float32 cold draft0 long"
        #expect(try Self.finding("v3", nil, notation) == .equal)
        let verdict = try Self.finding("v3", .ownerOffByOne(rank: 1), notation)
        guard case .different(.value(let value)) = verdict else {
            Issue.record("\(layout): \(verdict)")
            return
        }
        #expect(value.key == StageRecords.Key(layer: 0, stage: .attention))
    }

    @Test func `counts what it has exercised`() throws {
        let (verification, shape) = try Self.damaged("v32", nil)
        _ = try verification.check(VerificationCase(notation: "cp2 page1 cold preemption", for: shape))
        #expect(verification.coverage.preemptions > 0 && verification.coverage.cachedTokens == 0)
        #expect(verification.coverage.dcpChunks == 0)
        for prefix in ["warm", "shared"] {
            let before = verification.coverage.cachedTokens
            _ = try verification.check(VerificationCase(notation: "cp2 page4 \(prefix) long", for: shape))
            #expect(verification.coverage.cachedTokens > before, "\(prefix)")
        }
        _ = try verification.check(VerificationCase(notation: "cp2 dcp2 long", for: shape))
        #expect(verification.coverage.dcpChunks > 0)
    }

    @Test func `has mixes with a single token, and with more than a chunk`() throws {
        let mixes = Workload.Kind.allCases.map { Workload($0, Self.measure, seed: 1) }
        #expect(mixes.flatMap(\.requests).contains { $0.prompt.count == 1 })
        #expect(mixes.flatMap(\.requests).contains { $0.prompt.count == 20 })
    }
}
