import Grammar

private let vocabulary = GrammarVocabulary(
    bytes: (0..<256).map { [UInt8($0)] } + ["{\"", "\":", "true", "12", "  "].map { Array($0.utf8) } + [[]],
    controlTokens: ["<end>": 261], size: 262)

extension Target {
    /// A schema, a pattern or a grammar of a request: a token that the mask allows can be taken.
    ///
    /// The first byte says which of the three, the second which tokens are taken.
    static func grammar(_ bytes: [UInt8]) -> CInt {
        guard bytes.count > 2 else { return 0 }
        let text = String(decoding: bytes.dropFirst(2), as: UTF8.self)
        let source: GrammarSource =
            switch bytes[0] % 3 {
            case 0: .jsonSchema(text)
            case 1: .pattern(text)
            default: .ebnf(text)
            }
        guard let grammar = try? CompiledGrammar(source, vocabulary), var state = try? grammar.start else { return 0 }
        for step in 0..<8 {
            guard let mask = try? state.mask() else { return 0 }
            let allowed = (0..<Int32(261)).filter(mask.contains)
            guard !allowed.isEmpty else { return 0 }
            do {
                let next = try state.advanced(by: allowed[(Int(bytes[1]) + step * 31) % allowed.count])
                guard let next else { fatalError("the mask allows a token that cannot be taken") }
                state = next
            } catch {
                return 0
            }
        }
        return 0
    }
}
