/// What engines do differently with the same layout.
package struct EngineRules: Sendable, Equatable {
    /// Bytes of one element of an activation between ranks.
    package var activationBytes: Double
    /// Tells whether each of the ranks that share heads computes for all their rows what is not per head.
    package var repeatsSharedWork: Bool
    /// Tells whether each context rank decodes all rows of its group.
    package var repeatsDecodeRows: Bool
    /// Tells whether each rank keeps and scores all index keys where the others are divided for decoding.
    package var repeatsIndexKeys: Bool
    /// Tells whether ranks that share an expert's width send each other every leaf of the canonical tree, and not one sum.
    package var sendsTreeLeaves: Bool
    /// Tells whether prompts that attend to all keys expand keys and values to heads, which is fewer operations for many rows.
    package var expandsKeys: Bool
    /// Tells whether all ranks of a data group receive the window keys and the compressors' inputs of all tokens of a prompt,
    /// and not only those that they read.
    package var gathersWholeWindows: Bool
    /// Tells whether ranks divide the embedding by vocabulary.
    package var dividesEmbedding: Bool
    /// Tells whether the head is multiplied in F32, whatever its weights are.
    package var multipliesHeadInF32: Bool

    /// The rules of Braid: every row has one owner, and activations are sent in F32.
    package static let braid = EngineRules(
        activationBytes: 4, repeatsSharedWork: false, repeatsDecodeRows: false, repeatsIndexKeys: false,
        sendsTreeLeaves: true, expandsKeys: false, gathersWholeWindows: false, dividesEmbedding: false,
        multipliesHeadInF32: true)

    /// Engines for accelerators, as SGLang 0.5 does it.
    package static let accelerators = EngineRules(
        activationBytes: 2, repeatsSharedWork: true, repeatsDecodeRows: true, repeatsIndexKeys: true,
        sendsTreeLeaves: false, expandsKeys: true, gathersWholeWindows: true, dividesEmbedding: true,
        multipliesHeadInF32: false)

    /// Those of the engine that runs on such devices.
    package static func of(_ hardware: Hardware) -> EngineRules {
        hardware.kind == .processor ? .braid : .accelerators
    }
}
