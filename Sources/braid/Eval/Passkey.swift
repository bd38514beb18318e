package import Inference

/// A passkey document hides eight facts such as `The pass key for Karen is 64193.` among small sentences, and ends with
/// a question about one of them; the embedded demo model was trained on such documents. It is a function of its members
/// alone.
package struct PasskeyDocument: Sendable {
    package struct Fact: Sendable, Equatable {
        package let name: String
        package let key: String
        package var sentence: String { "The pass key for \(name) is \(key)." }
    }

    /// The facts; the question is about the first.
    package let facts: [Fact]
    /// The depth of the first fact, in percent of the sentences.
    package let depth: Int
    /// The depths of the other facts, from 0 to 1.
    private let places: [Double]
    private let order: UInt64
    private let seed: UInt64

    package static let factCount = 8
    /// The maximum number of tokens of an answer; it suffices for a key whose digits are single tokens.
    package static let answerTokens = 12

    /// - Parameters:
    ///   - length: The tokens of the document, which here only distinguish documents.
    ///   - depth: The depth of the first fact, in percent.
    ///   - number: A number that distinguishes documents of the same length and depth.
    package init(length: Int, depth: Int, number: Int, seed: UInt64) {
        precondition((0...100).contains(depth), "a depth is a percentage")
        self.depth = depth
        self.seed = seed
        order = ((UInt64(length) * 128 + UInt64(depth)) << 17) + (UInt64(number) << 1)
        var random = SeededGenerator(seed: seed, stream: order)
        var (names, keys) = (Set<String>(), Set<String>())
        var facts: [Fact] = []
        while facts.count < Self.factCount {
            let name = PasskeyWords.name(&random)
            let key = (0..<5).map { _ in String(Int.random(in: 0...9, using: &random)) }.joined()
            guard !names.contains(name), !keys.contains(key) else { continue }
            names.insert(name)
            keys.insert(key)
            facts.append(Fact(name: name, key: key))
        }
        self.facts = facts
        places = facts.dropFirst().map { _ in Double.random(in: 0..<1, using: &random) }
    }

    package var expected: String { facts[0].key }

    /// Returns the document with these sentences around its facts, and the question, which a model continues with a
    /// space and the key.
    package func text(filler: [String]) -> String {
        var pieces = filler.enumerated().map { (place: Double($0.offset) + 0.5, text: $0.element) }
        let count = Double(filler.count)
        for (fact, place) in zip(facts.dropFirst(), places) {
            pieces.append((place: (place * (count + 1)).rounded(.down), text: fact.sentence))
        }
        // The first fact is the last of the facts that lie between the same two sentences, so it is at the very end at
        // 100 %; at 0 % it precedes everything.
        let place = (Double(depth) / 100 * count).rounded()
        let asked = (place: depth == 0 ? -1 : place, text: facts[0].sentence)
        let sorted = (pieces + [asked]).enumerated().sorted {
            ($0.element.place, $0.offset) < ($1.element.place, $1.offset)
        }
        let name = facts[0].name
        return sorted.map(\.element.text).joined(separator: " ")
            + "\n\nWhat is the pass key for \(name)? The pass key for \(name) is"
    }

    /// Returns the digits that an answer begins with; `nil` if it begins with anything else.
    package static func key(in answer: String) -> String? {
        let digits = answer.drop { $0.isWhitespace }.prefix { $0.isASCII && $0.isNumber }
        return digits.isEmpty ? nil : String(digits)
    }

    /// Returns the tokens of the document whose length is as close to `length` as its sentences allow.
    ///
    /// - Parameters:
    ///   - filler: Sentences, with the number of tokens that each has inside a text.
    ///   - tokens: The model's tokenizer.
    /// - Throws: `CommandError` if facts and question alone are longer, and any error of `tokens`.
    package func tokens(
        length: Int, filler: PasskeyFiller, _ tokens: (String) async throws -> [Int]
    ) async throws -> [Int] {
        let least = try await tokens(text(filler: [])).count
        guard least <= length else {
            throw CommandError("--lengths: facts and question alone have \(least) tokens, more than \(length)")
        }
        // The tokenizer may merge characters across sentences, so the real length corrects the next attempt.
        var (budget, best) = (length - least, [Int]())
        for _ in 0..<4 {
            var random = SeededGenerator(seed: seed, stream: order + 1)
            let made = try await tokens(text(filler: filler.sentences(tokens: max(budget, 0), using: &random)))
            if best.isEmpty || abs(made.count - length) < abs(best.count - length) { best = made }
            if made.count == length { break }
            budget += length - made.count
        }
        return best
    }
}

/// A passkey filler provides sentences that fill documents.
package struct PasskeyFiller: Sendable {
    private let sentences: [String]
    private let counts: [Int]

    /// - Parameter counts: The number of tokens of each sentence with a space before it, all positive.
    package init(_ sentences: [String], counts: [Int]) {
        precondition(sentences.count == counts.count && !counts.isEmpty && counts.allSatisfy { $0 > 0 })
        self.sentences = sentences
        self.counts = counts
    }

    /// Returns sentences in random order that have `tokens` tokens together, or as few less as possible.
    package func sentences(tokens: Int, using random: inout SeededGenerator) -> [String] {
        var order: [Int] = []
        func sentence(_ index: Int) -> Int {
            // All sentences are used once before any twice, each time in another order.
            while order.count <= index { order += counts.indices.shuffled(using: &random) }
            return order[index]
        }
        var (taken, rest) = (0, tokens)
        let reserve = counts.max()! * 4
        while rest > reserve {
            rest -= counts[sentence(taken)]
            taken += 1
        }
        let last = Self.subset(of: (taken..<taken + 100).map { counts[sentence($0)] }, sum: rest)
        return (0..<taken).map { sentences[sentence($0)] } + last.map { sentences[sentence(taken + $0)] }
    }

    /// Returns the ascending indices of values whose sum is `sum`, or as little less as possible.
    package static func subset(of values: [Int], sum: Int) -> [Int] {
        // For each sum that can be reached, the index of the last value added; -1 for the empty sum. Following them
        // backwards gives ever smaller indices.
        var last = [Int?](repeating: nil, count: sum + 1)
        last[0] = -1
        for (index, value) in values.enumerated() where value <= sum {
            for reached in stride(from: sum, through: value, by: -1)
            where last[reached] == nil && last[reached - value] != nil {
                last[reached] = index
            }
        }
        var (indices, rest) = ([Int](), last.lastIndex { $0 != nil }!)
        while rest > 0 {
            indices.append(last[rest]!)
            rest -= values[last[rest]!]
        }
        return indices.reversed()
    }
}

/// These are the words of passkey documents.
package enum PasskeyWords {
    /// Returns the owner of a pass key: mostly a person, sometimes a thing.
    static func name(_ random: inout SeededGenerator) -> String {
        if Int.random(in: 0..<4, using: &random) > 0 { return people.randomElement(using: &random)! }
        return "the \(qualities.randomElement(using: &random)!) \(things.randomElement(using: &random)!)"
    }

    /// Returns sentences that cannot be mistaken for a fact.
    package static func sentences(_ count: Int, seed: UInt64) -> [String] {
        var random = SeededGenerator(seed: seed, stream: .max)
        func any(_ words: [String]) -> String { words.randomElement(using: &random)! }
        return (0..<count).map { _ in
            let thing = "the \(any(qualities)) \(any(things))"
            return switch Int.random(in: 0..<10, using: &random) {
            case 0: any(whole)
            case 1, 2, 3: "The \(any(actors)) \(any(deeds)) \(thing) \(any(endings))."
            case 4, 5, 6: "\(any(times)), the \(any(actors)) \(any(deeds)) \(thing)."
            case 7, 8: "\(any(times)), the \(any(actors)) \(any(deeds)) \(thing) \(any(endings))."
            default: "\"I have never seen \(thing),\" said the \(any(actors))."
            }
        }
    }

    private static let people = words(
        """
        Alice Anna Arthur Ben Bob Carl Clara Daniel David Diana Edgar Ella Emma Eric Felix Frank George Grace Greta \
        Hannah Helen Henry Hugo Ida Iris Jack Jane Joan Julia Karen Kate Kevin Laura Leo Linda Lucy Maria Mark Martin \
        Max Nina Nora Olive Oscar Paula Peter Rachel Robert Rose Ruth Sam Sara Simon Steve Susan Thomas Tom Vera Victor \
        Walter Wendy William
        """)
    private static let qualities = words(
        "red blue green black white golden quiet happy old young brave gentle wild iron stone wooden tall round grey dark"
    )
    private static let things = words(
        "river fox garden castle lion tower horse ship lantern mirror bridge forest wolf candle island mountain clock")
    private static let actors =
        ["captain", "baker", "teacher", "gardener", "king", "queen", "farmer", "child", "doctor"]
        + ["sailor", "old man", "little girl", "miller", "driver", "painter", "young woman"]
    private static let deeds =
        ["walked to", "looked at", "stood near", "thought of", "talked about", "found", "left"]
        + ["watched", "passed by", "asked about", "dreamed of", "remembered", "came back from", "waited beside"]
    private static let times =
        ["In the morning", "At noon", "That night", "After supper", "On Sunday", "A week later"]
        + ["Before the rain", "In the spring", "At last", "Once again", "Soon after", "For a while", "In the end"]
    private static let endings =
        ["and said nothing", "but it was too late", "and smiled", "while the rain fell"]
        + ["and then went home", "with great care", "for the third time", "and laughed", "without a word"]
    private static let whole = [
        "It was a quiet day.", "The rain did not stop.", "Nobody answered.", "The road was long and dusty.",
        "The wind came from the sea.", "It grew dark.", "The fire was warm.", "The clock struck four.",
    ]

    private static func words(_ text: String) -> [String] { text.split(separator: " ").map(String.init) }
}
