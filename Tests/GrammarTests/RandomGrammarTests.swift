import Grammar
import Testing

/// Compares random grammars over two letters, with left recursion and empty derivations, with a naive matcher.
@Suite struct RandomGrammarTests {
    @Test(arguments: 0..<400)
    func `a random grammar accepts the texts that a naive matcher derives`(seed: UInt64) throws {
        var generator = SplitMix(state: seed)
        let naive = NaiveGrammar(using: &generator)
        let texts = Self.texts(upTo: 5)
        let language = texts.filter { naive.derives($0) }
        let compiled: CompiledGrammar
        do {
            compiled = try CompiledGrammar(.ebnf(naive.text), Self.vocabulary)
        } catch {
            // A grammar without any text is refused; then it has no longer text either.
            #expect(language.isEmpty, "\(naive.text) is refused: \(error)")
            return
        }
        for text in texts {
            let accepts = try compiled.start.advanced(by: text)?.mayEnd ?? false
            #expect(accepts == naive.derives(text), "'\(String(decoding: text, as: UTF8.self))' of\n\(naive.text)")
        }
    }

    @Test(arguments: 0..<200)
    func `a random grammar's masks allow the tokens that it can read, and always a way on`(seed: UInt64) throws {
        var generator = SplitMix(state: seed &+ 1000)
        let naive = NaiveGrammar(using: &generator)
        guard let compiled = try? CompiledGrammar(.ebnf(naive.text), Self.vocabulary) else { return }
        var states = [try compiled.start]
        for _ in 0..<4 {
            var next: [GrammarState] = []
            for state in states.prefix(20) {
                let mask = try state.mask()
                #expect(!mask.isEmpty || state.mayEnd, "nothing may follow in\n\(naive.text)")
                #expect(state.isFinal == mask.isEmpty)
                for token in 0..<Int32(Self.vocabulary.size) {
                    let advanced = try state.advanced(by: token)
                    #expect(mask.contains(token) == (advanced != nil), "token \(token) of\n\(naive.text)")
                    if let advanced { next.append(advanced) }
                }
            }
            states = next
        }
    }

    /// Lists all texts over the letters, up to a length.
    private static func texts(upTo length: Int) -> [[UInt8]] {
        var (all, last) = ([[UInt8]()], [[UInt8]()])
        for _ in 0..<length {
            last = last.flatMap { text in NaiveGrammar.letters.map { text + [$0] } }
            all += last
        }
        return all
    }

    /// Lists tokens of one to three letters; two of them are the same.
    private static let vocabulary = GrammarVocabulary(
        bytes: texts(upTo: 3) + [Array("ab".utf8)], controlTokens: [:], size: 70)
}

/// Holds a grammar of a few rules, and derives texts by the definition: positions are added until none is missing.
struct NaiveGrammar {
    static let letters = Array("ab".utf8)

    indirect enum Part {
        case letter(UInt8)
        case rule(Int)
        case sequence([Part])
        case choice([Part])
        case repeated(Part, Int, Int?)
    }

    private var rules: [Part]

    init(using generator: inout SplitMix) {
        let count = generator.below(3) + 1
        rules = []
        for _ in 0..<count { rules.append(Self.part(depth: 3, rules: count, &generator)) }
    }

    private static func part(depth: Int, rules: Int, _ generator: inout SplitMix) -> Part {
        switch generator.below(depth > 0 ? 8 : 3) {
        case 0, 1: .letter(letters[generator.below(2)])
        case 2: .rule(generator.below(rules))
        case 3, 4:
            .sequence((0..<generator.below(4)).map { _ in part(depth: depth - 1, rules: rules, &generator) })
        case 5, 6: .choice((0...generator.below(3)).map { _ in part(depth: depth - 1, rules: rules, &generator) })
        default:
            .repeated(
                part(depth: depth - 1, rules: rules, &generator), generator.below(3),
                generator.below(2) == 0 ? nil : 2 + generator.below(2))
        }
    }

    /// Is the grammar in the EBNF notation.
    var text: String {
        rules.enumerated().map { "\(Self.name($0)) ::= \(Self.text($1))" }.joined(separator: "\n")
    }

    private static func name(_ rule: Int) -> String { rule == 0 ? "root" : "rule\(rule)" }

    private static func text(_ part: Part) -> String {
        switch part {
        case .letter(let letter): "\"\(Character(Unicode.Scalar(letter)))\""
        case .rule(let rule): name(rule)
        case .sequence(let parts): "(" + parts.map(text).joined(separator: " ") + ")"
        case .choice(let parts): "(" + parts.map(text).joined(separator: " | ") + ")"
        case .repeated(let part, let least, let most): "(\(text(part))){\(least),\(most.map(String.init) ?? "")}"
        }
    }

    func derives(_ text: [UInt8]) -> Bool {
        // Maps where each rule begins to where it can end; it grows until it no longer changes.
        var ends = [[Set<Int>]](repeating: Array(repeating: [], count: text.count + 1), count: rules.count)
        var isComplete = false
        while !isComplete {
            isComplete = true
            for rule in rules.indices {
                for start in 0...text.count {
                    let found = Self.ends(of: rules[rule], from: [start], text, ends)
                    if found.isSubset(of: ends[rule][start]) { continue }
                    ends[rule][start].formUnion(found)
                    isComplete = false
                }
            }
        }
        return ends[0][0].contains(text.count)
    }

    private static func ends(
        of part: Part, from starts: Set<Int>, _ text: [UInt8], _ known: [[Set<Int>]]
    ) -> Set<Int> {
        switch part {
        case .letter(let letter): return Set(starts.filter { $0 < text.count && text[$0] == letter }.map { $0 + 1 })
        case .rule(let rule): return starts.reduce(into: []) { $0.formUnion(known[rule][$1]) }
        case .sequence(let parts): return parts.reduce(starts) { ends(of: $1, from: $0, text, known) }
        case .choice(let parts): return parts.reduce(into: []) { $0.formUnion(ends(of: $1, from: starts, text, known)) }
        case .repeated(let part, let least, let most):
            var reached = (0..<least).reduce(starts) { found, _ in ends(of: part, from: found, text, known) }
            var last = reached
            for _ in least..<(most ?? least + text.count + 1) {
                last = ends(of: part, from: last, text, known)
                reached.formUnion(last)
            }
            return reached
        }
    }
}

/// Is a small generator, so that a test's number determines all its randomness.
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
