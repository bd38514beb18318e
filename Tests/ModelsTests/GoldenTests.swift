import Checkpoints
import DeepSeekV32
import Foundation
import KVCache
import Modeling
import Models
import Tensors
import TestSupport
import Testing

@Suite struct `A forward agrees with the independent implementation` {
    /// The stages whose rows are compared as numbers, in the order of their computation, so that the first failure
    /// names the faulty stage.
    static let stages: [(Stage, String)] = [
        (.attentionNorm, "attention_norm"), (.indexScores, "index_scores"), (.selected, "selected"),
        (.attention, "attention"), (.feedForwardNorm, "feed_forward_norm"), (.gateExperts, "gate_experts"),
        (.gateWeights, "gate_weights"), (.feedForward, "feed_forward"), (.output, "output"),
    ]

    @Test(arguments: Golden.cases + Golden.draftingCases)
    func `stage by stage, layer by layer`(name: String) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let forward = Forward(model, cacheType: golden.cacheType)
        let logits = forward.logits(golden.prompt)
        var compared = 0
        for layer in 0..<model.description.layers.count {
            for (stage, key) in Self.stages {
                guard let expected = golden.rows("layers.\(layer).\(key)") else { continue }
                let actual = forward.recorder.rows(stage, layer: layer)
                // Rows that may select all visible keys are not scored.
                let isSelecting = stage == .indexScores || stage == .selected
                let first = isSelecting ? model.description.selection!.firstPosition : 0
                let count = golden.prompt.count - first
                try #require(actual.count == count, "\(name) layer \(layer) \(key): rows")
                // A golden case may have the last rows only.
                for row in 1...min(expected.count, count) {
                    let difference = Self.difference(actual[count - row], expected[expected.count - row])
                    try #require(
                        difference < 1e-4, "\(name) layer \(layer) \(key) row \(golden.prompt.count - row)")
                    compared += 1
                }
            }
        }
        // A dense V3 layer has five stages, others more.
        let rows = try #require(golden.rows("logits")).count
        #expect(rows >= min(golden.prompt.count, 40) && compared >= 5 * model.description.layers.count * rows)
        for (stage, actual) in [
            ("final_norm", forward.recorder.rows(.finalNorm, layer: model.description.layers.count)),
            ("logits", logits),
        ] {
            let expected = try #require(golden.rows(stage))
            for (row, (values, wanted)) in zip(actual.suffix(expected.count), expected).enumerated() {
                try #require(Self.difference(values, wanted) < 1e-4, "\(name) \(stage) row \(row)")
            }
        }
    }

    /// Returns the largest difference; the golden row may be padded with −1 or −∞ at its end.
    static func difference(_ actual: [Float], _ expected: [Float]) -> Float {
        var worst: Float = actual.allSatisfy(\.isFinite) ? 0 : .infinity
        for (index, value) in expected.enumerated() {
            if index < actual.count {
                worst = max(worst, abs(actual[index] - value) / max(1, abs(value)))
            } else if value != -1 && value != -.infinity {
                return .infinity
            }
        }
        return actual.count <= expected.count ? worst : .infinity
    }

    @Test(arguments: Golden.cases + Golden.draftingCases)
    func `greedy continuation`(name: String) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let forward = Forward(model, cacheType: golden.cacheType)
        let tokens = golden.prompt + golden.continuation.dropLast()
        let logits = forward.logits(tokens, chunks: [golden.prompt.count, 1])
        for (index, expected) in golden.continuation.enumerated() {
            let row = logits[golden.prompt.count - 1 + index]
            let best = row.indices.max { row[$0] < row[$1] }
            #expect(best == Int(expected), "token \(index), lead \(golden.gaps[index])")
            let sum = row.reduce(0.0) { $0 + exp(Double($1)) }
            #expect(
                abs(Double(row[Int(expected)]) - log(sum) - Double(golden.logProbs[index])) < 1e-4, "token \(index)")
        }
    }
}

@Suite struct `The next-token block` {
    @Test(arguments: Golden.draftingCases)
    func `agrees with the independent implementation`(name: String) throws {
        let golden = try Golden(name)
        let expected = try #require(golden.rows("drafts"))
        let forward = Forward(try golden.directory.load(drafts: true), isRecording: false)
        let actual = forward.drafts(golden.prompt, count: expected.count - golden.prompt.count + 2)
        try #require(actual.count == expected.count)
        for row in expected.indices {
            let difference = `A forward agrees with the independent implementation`.difference(
                actual[row], expected[row])
            #expect(difference < 1e-4, "\(name) row \(row)")
        }
    }

    @Test(arguments: Golden.draftingCases, CacheType.plain)
    func `has bits that do not depend on chunks or the instruction-set level`(name: String, type: CacheType) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load(drafts: true)
        func drafts(_ kernels: Kernels, chunk: Int) -> [[Float]] {
            Forward(model, cacheType: type, kernels: kernels, isRecording: false)
                .drafts(golden.prompt, count: 4, chunk: chunk)
        }
        let reference = drafts(Kernels(.reference)!, chunk: .max)
        for kernels in Kernels.available {
            for chunk in [1, 5, .max] { #expect(drafts(kernels, chunk: chunk) == reference, "\(kernels.level)") }
        }
    }

    @Test(arguments: Golden.draftingCases) func `is left out where nothing is drafted`(name: String) throws {
        let model = try Golden(name).directory.load()
        #expect(!model.canDraft)
        #expect(model.cacheFormat(.float32, pageSize: 128).layers.count == model.description.layers.count)
    }

    @Test func `is refused where the checkpoint has none, by the key that says so`() throws {
        let golden = try Golden("v3")
        let error = try #require(throws: CheckpointError.self) { try golden.directory.load(drafts: true) }
        #expect(error.subject == .key("num_nextn_predict_layers"))
        #expect(error.advice.contains("--speculative-algorithm"))
    }
}

@Suite struct `A forward's bits` {
    @Test(arguments: Golden.cases, CacheType.plain)
    func `do not depend on how the prompt is cut into chunks`(name: String, cacheType: CacheType) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let whole = Forward(model, cacheType: cacheType).logits(golden.prompt)
        for chunks in [[1], [7], [16, 1], [3, 40, 5]] {
            for pageSize in [4, 64] {
                let forward = Forward(
                    model, cacheType: cacheType, pageSize: max(pageSize, model.positionAlignment))
                #expect(forward.logits(golden.prompt, chunks: chunks) == whole, "chunks of \(chunks)")
            }
        }
    }

    @Test(arguments: ["v4", "v4-fp4-index"], CacheType.withFP4Index)
    func `with index keys in FP4 depend neither on chunks nor on the level, and are other ones than without`(
        name: String, cacheType: CacheType
    ) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let whole = Forward(model, cacheType: cacheType, kernels: Kernels(.reference)!).logits(golden.prompt)
        for kernels in Kernels.available {
            for chunks in [[golden.prompt.count], [1], [3, 40, 5]] {
                let forward = Forward(model, cacheType: cacheType, kernels: kernels, pageSize: model.positionAlignment)
                #expect(forward.logits(golden.prompt, chunks: chunks) == whole, "\(kernels.level), chunks of \(chunks)")
            }
        }
        let plain = Forward(model, cacheType: CacheType(cacheType.keys), isRecording: true)
        _ = plain.logits(golden.prompt)
        let rounded = Forward(model, cacheType: cacheType, isRecording: true)
        _ = rounded.logits(golden.prompt)
        let scored = model.description.layers.indices.filter { golden.rows("layers.\($0).index_scores") != nil }
        try #require(!scored.isEmpty)
        for layer in scored {
            #expect(
                rounded.recorder.rows(.indexScores, layer: layer) != plain.recorder.rows(.indexScores, layer: layer))
        }
    }

    @Test func `are other ones when the cache rounds keys`() throws {
        let golden = try Golden("v32")
        let model = try golden.directory.load()
        let logits = CacheType.plain.map { Forward(model, cacheType: $0).logits(golden.prompt) }
        #expect(Set(logits).count == CacheType.plain.count)
    }

    @Test(arguments: Golden.cases, CacheType.plain)
    func `are the same on every instruction-set level`(name: String, cacheType: CacheType) throws {
        let golden = try Golden(name)
        let model = try golden.directory.load()
        let reference = Forward(model, cacheType: cacheType, kernels: Kernels(.reference)!).logits(golden.prompt)
        for kernels in Kernels.available {
            let logits = Forward(model, cacheType: cacheType, kernels: kernels).logits(golden.prompt)
            #expect(logits == reference, "\(kernels.level)")
        }
    }
}
