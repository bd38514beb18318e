import Checkpoints

/// Generation defaults are what the checkpoint recommends for generation; requests override them.
///
/// They are the members of `generation_config.json` that vLLM or SGLang read, and `do_sample`.
package struct GenerationDefaults: Sendable, Equatable {
    /// The tokens that end a generation.
    package var endTokens: [Int32]
    package var temperature: Float?
    package var topP: Float?
    package var topK: Int?
    package var minP: Float?
    package var repetitionPenalty: Float?
    package var presencePenalty: Float?
    package var frequencyPenalty: Float?
    /// The most new tokens of an answer; `nil` for as many as the context leaves.
    package var maxNewTokens: Int?
    /// False if the text of an answer shows control tokens.
    package var skipsSpecialTokens: Bool?
    /// The members by which transformers would generate otherwise, and which have no effect here, sorted.
    package var unusedMembers: [String] = []

    init(config: ConfigurationValue, generation: ConfigurationValue?) throws(CheckpointError) {
        let vocabulary = try config.int("vocab_size", in: 1...10_000_000)
        var endTokens: [Int32] = []
        for file in [generation, config] {
            guard endTokens.isEmpty, let file, file.contains("eos_token_id"), !file.isNull("eos_token_id") else {
                continue
            }
            endTokens = try file.intArray("eos_token_id", in: 0...vocabulary - 1, acceptingSingle: true)
                .map { Int32($0) }
        }
        self.endTokens = endTokens
        guard let generation else { return }
        unusedMembers = Self.unused.filter { generation.asks(for: $0, neutral: $1) }.map(\.name).sorted()
        if generation.contains("max_new_tokens"), !generation.isNull("max_new_tokens") {
            maxNewTokens = try generation.int("max_new_tokens", in: 1...Int.max)
        }
        if generation.contains("skip_special_tokens") {
            skipsSpecialTokens = try generation.bool("skip_special_tokens", default: true)
        }
        func number(_ key: String, in range: ClosedRange<Double>, default usual: Double) throws(CheckpointError)
            -> Float?
        {
            generation.contains(key) ? Float(try generation.double(key, in: range, default: usual)) : nil
        }
        repetitionPenalty = try number("repetition_penalty", in: 0.01...2, default: 1)
        presencePenalty = try number("presence_penalty", in: -2...2, default: 0)
        frequencyPenalty = try number("frequency_penalty", in: -2...2, default: 0)
        // With do_sample false the file's temperature is only a placeholder.
        guard try generation.bool("do_sample", default: true) else {
            temperature = 0
            return
        }
        temperature = try number("temperature", in: 0...100, default: 1)
        minP = try number("min_p", in: 0...1, default: 0)
        topP = try number("top_p", in: 1e-6...1, default: 1)
        // Some files give -1 for all tokens.
        if generation.contains("top_k") { topK = max(try generation.int("top_k", in: -1...10_000_000, default: 0), 0) }
    }

    /// The members of transformers' `GenerationConfig` that change an answer and that neither vLLM nor SGLang reads, with
    /// the numbers that ask for nothing.
    private static let unused: [(name: String, neutral: Double)] = [
        ("max_length", 20), ("min_length", 0), ("min_new_tokens", 0), ("max_time", 0), ("stop_strings", 0),
        ("num_beams", 1), ("num_beam_groups", 1), ("length_penalty", 1), ("diversity_penalty", 0), ("penalty_alpha", 0),
        ("top_h", 1), ("typical_p", 1), ("epsilon_cutoff", 0), ("eta_cutoff", 0), ("dola_layers", 0),
        ("no_repeat_ngram_size", 0), ("bad_words_ids", 0), ("force_words_ids", 0), ("constraints", 0),
        ("forced_eos_token_id", -1), ("exponential_decay_length_penalty", 0), ("suppress_tokens", 0),
        ("begin_suppress_tokens", 0), ("sequence_bias", 0), ("token_healing", 0), ("guidance_scale", 1),
        ("watermarking_config", 0),
    ]
}
